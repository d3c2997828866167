# Copyright 2020-2026 The HuggingFace Team. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What a training leaves that is asked to end, or that hangs, and what becomes of it when the training goes on."""

import logging
import os
import signal
import sys
import time

import pytest
import tiny
from callback_kit import CPU, StopsAt, messages, train
from test_run_record import SAVING, Boom, Raises, ended, load, start, wait_for
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig

from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.ending import read_postmortem
from trl_diagnostics.run_record import CAUGHT, OPEN, SIGTERM


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on")


@pytest.fixture(autouse=True)
def info_messages(caplog):
    caplog.set_level(logging.INFO, "trl_diagnostics")


# SIGTERM


@pytest.fixture
def handled():
    """The handler that the user had installed, and what it was called with."""
    calls = []

    def handler(number, frame):
        calls.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    yield calls
    assert signal.getsignal(signal.SIGTERM) is handler
    signal.signal(signal.SIGTERM, before)


def test_a_handler_of_the_user_goes_before_us(tmp_path, handled, reports):
    kill = Raises(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    seen = Raises(4, lambda: handled.append(ended(tmp_path)))
    train("sft", tmp_path, DiagnosticsCallback(), [kill, seen, StopsAt(5)], max_steps=9)
    assert handled == [signal.SIGTERM, ("sigterm", 3)]  # written at once, whatever the handler does then
    assert ended(tmp_path) == ("sigterm", 5)
    assert load(tmp_path, "postmortem.json")["what"] == f"{SIGTERM} Training ended at step 5 of 9."
    assert reports[0][2] is False  # no time for pictures


def test_a_run_that_goes_on_to_its_end_has_reached_it(tmp_path, handled, caplog, reports):
    kill = Raises(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train("sft", tmp_path, DiagnosticsCallback(), [kill], max_steps=6)
    assert ended(tmp_path) == ("completed", 6) and handled == [signal.SIGTERM]
    said = "Training reached its end, step 6. SIGTERM had come before."
    assert load(tmp_path, "postmortem.json")["what"] == said
    assert messages(caplog, "TRL diagnostics: training ended") == [] and reports[0][2] is True


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_rule_that_ends_a_run_later_is_the_reason(goes_on, tmp_path, handled, reports):
    kill = Raises(2 if goes_on else 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    callback = DiagnosticsCallback(stop_on_critical=True)
    train("sft", tmp_path, callback, [kill, tiny.PoisonWeights(4)], max_steps=9)
    assert ended(tmp_path) == ("stopped_by_rule" if goes_on else "sigterm", 4) and handled == [signal.SIGTERM]
    assert load(tmp_path, "postmortem.json")["what"].endswith(" SIGTERM had come before.") is goes_on
    assert reports[0][2] is goes_on


def test_a_checkpoint_first(tmp_path, handled):
    kill = Raises(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    callback = DiagnosticsCallback(checkpoint_on_sigterm=True)
    trainer = train("sft", tmp_path, callback, [kill], max_steps=50, save_strategy="no")
    assert trainer.state.global_step in (3, 4) and handled == [signal.SIGTERM]
    found = load(tmp_path, "postmortem.json")
    saved = tmp_path / f"checkpoint-{trainer.state.global_step}"
    assert (found["exit_reason"], found["last_step"]) == ("sigterm", trainer.state.global_step)
    assert found["last_verified_finite_checkpoint"] == str(saved)
    train("sft", tmp_path, DiagnosticsCallback(), resume=str(saved), max_steps=8)
    assert ended(tmp_path) == ("completed", 8)


def test_after_a_signal_that_it_outlived_a_run_goes_on_as_any_other(tmp_path, handled):
    """The handler of the user notes it and no more; what ends the run later is the reason."""
    seen = []
    kill = Raises(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    look = Raises(4, lambda: seen.append(read_postmortem(tmp_path / "diagnostics")["exit_reason"]))
    with pytest.raises(RuntimeError), DiagnosticsCallback() as callback:
        train("sft", tmp_path, callback, [kill, look, Raises(5, RuntimeError("CUDA out of memory."))], max_steps=9)
    assert seen == ["unfinished"] and handled == [signal.SIGTERM]
    assert ended(tmp_path) == ("oom", 5)


def test_an_exception_in_the_step_of_a_signal_follows_from_it(tmp_path, handled):
    class KillsAndRaises(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            os.kill(os.getpid(), signal.SIGTERM)
            raise Boom

    with pytest.raises(Boom), DiagnosticsCallback() as callback:
        train("sft", tmp_path, callback, [KillsAndRaises()], max_steps=9)
    assert ended(tmp_path) == ("sigterm", 1)


def test_a_signal_while_the_end_is_written_down_is_another_story(tmp_path, monkeypatch):
    def kill(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return []

    seen = []
    before = signal.signal(signal.SIGTERM, lambda *args: seen.append(ended(tmp_path)))
    callback, args, state = start(tmp_path)
    state.global_step = state.max_steps
    monkeypatch.setattr("trl_diagnostics.run_record.checkpoints", kill)
    callback.on_train_end(args, state, TrainerControl())
    signal.signal(signal.SIGTERM, before)
    assert set(seen) == {("completed", 100)} and ended(tmp_path) == ("completed", 100)


def test_a_signal_that_waits_for_a_loop_that_was_left_does_not_wait_on(tmp_path, handled, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.LOOK", 0.05)
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.EVERY", 0.1)

    def kill():
        os.kill(os.getpid(), signal.SIGTERM)
        raise Boom

    with pytest.raises(Boom):
        train("sft", tmp_path, DiagnosticsCallback(checkpoint_on_sigterm=True), [Raises(2, kill)], max_steps=9)
    wait_for(lambda: handled == [signal.SIGTERM])
    time.sleep(0.3)
    assert handled == [signal.SIGTERM]


@pytest.mark.skipif(os.name != "posix", reason="there is no fork")
def test_a_forked_process_knows_nothing_of_the_training(tmp_path):
    callback, args, state = start(tmp_path)
    child = os.fork()
    if not child:
        callback.__exit__(Boom, Boom(), None)
        os._exit(len(OPEN))
    assert os.waitpid(child, 0)[1] == 0
    assert len(OPEN) == 1 and not (tmp_path / "diagnostics" / "postmortem.json").exists()
    callback.on_train_end(args, state, TrainerControl())


def test_a_signal_after_a_training_that_was_left_is_not_its_end(tmp_path, handled, reports):
    with pytest.raises(Boom):
        train("sft", tmp_path, DiagnosticsCallback(checkpoint_on_sigterm=True), [Raises(2, Boom())], max_steps=9)
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == [signal.SIGTERM]
    assert ended(tmp_path) == ("exception", 2) and load(tmp_path, "postmortem.json")["what"] == CAUGHT
    assert reports[0][2] is False


@pytest.mark.parametrize("callback", [DiagnosticsCallback(checkpoint_on_sigterm=True), DiagnosticsCallback()])
def test_another_process_than_the_main_one_keeps_no_signal(callback, tmp_path, handled):
    args = SFTConfig(output_dir=str(tmp_path), **CPU)
    state = [TrainerState(max_steps=3, logging_steps=1, num_train_epochs=1) for _ in range(2)]
    for one in state:
        one.is_world_process_zero = False
    DiagnosticsCallback(checkpoint_on_sigterm=True).on_train_begin(args, state[0], TrainerControl())
    os.kill(os.getpid(), signal.SIGTERM)
    assert handled == []
    callback.on_train_begin(args, state[1], TrainerControl())
    assert handled == [signal.SIGTERM]
    callback.on_train_end(args, state[1], TrainerControl())


@pytest.mark.parametrize("inside_with", [False, True])
def test_the_traceback_comes_before_a_signal_that_had_to_wait(inside_with, tmp_path, handled, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: handled.append(str(error)))
    callback, *_ = start(tmp_path, DiagnosticsCallback(checkpoint_on_sigterm=True))
    os.kill(os.getpid(), signal.SIGTERM)
    if inside_with:
        with pytest.raises(Boom), callback:
            raise Boom("mine")
    else:
        sys.excepthook(Boom, Boom("mine"), None)
    assert handled == ["mine", signal.SIGTERM]
    assert ended(tmp_path) == ("sigterm", 0) and "Boom: mine" in load(tmp_path, "postmortem.json")["traceback"]


def test_in_haste_the_metrics_are_not_read_again(tmp_path, handled, reports, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.sources.logs.Run.records", pytest.fail)
    kill = Raises(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    callbacks = [tiny.PoisonWeights(2), kill]
    train("sft", tmp_path, DiagnosticsCallback(checkpoint_on_sigterm=True), callbacks, max_steps=9, **SAVING)
    ((_, diagnosis, _),) = reports
    assert diagnosis.broken == {} and diagnosis.advice is None
    assert [bool(checkpoint.suspect) for checkpoint in diagnosis.checkpoints] == [True, True]


# Hangs


def sleep_like_a_stuck_reward():
    time.sleep(3.0)


def test_a_hang_is_said_with_what_it_waits_for_and_the_run_goes_on(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.LOOK", 0.05)
    seen = []
    look = Raises(4, lambda: seen.append((tmp_path / "diagnostics" / "postmortem.json").exists()))
    train(
        "sft",
        tmp_path,
        DiagnosticsCallback(hang_timeout=0.4),
        [Raises(3, sleep_like_a_stuck_reward), look],
        max_steps=5,
    )
    (said,) = messages(caplog, "TRL diagnostics: No sign of life for ")
    assert "sleep_like_a_stuck_reward" in said and "last step 3." in said
    (over,) = messages(caplog, "TRL diagnostics: training goes on after ")
    assert ended(tmp_path) == ("completed", 5)
    (hang,) = load(tmp_path, "postmortem.json")["hangs"]
    assert hang["step"] == 3 and hang["seconds"] >= 2.9 and "sleep_like_a_stuck_reward" in hang["stack"]
    log = (tmp_path / "diagnostics" / "hang.log").read_text()
    assert "sleep_like_a_stuck_reward" in log and "most recent call first" in log


def test_while_it_hangs_the_postmortem_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.LOOK", 0.05)
    found = []

    def hang():
        wait_for((tmp_path / "diagnostics" / "postmortem.json").exists)
        found.append(read_postmortem(tmp_path / "diagnostics"))

    train("sft", tmp_path, DiagnosticsCallback(hang_timeout=0.3), [Raises(2, hang)], max_steps=3)
    assert found[0]["exit_reason"] == "hang" and "in hang\n" in found[0]["traceback"]
    assert ended(tmp_path) == ("completed", 3)


def test_a_program_that_left_its_training_does_not_hang(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.LOOK", 0.05)
    monkeypatch.setattr("trl_diagnostics.sinks.watchdog.EVERY", 0.1)
    with pytest.raises(Boom):
        train("sft", tmp_path, DiagnosticsCallback(hang_timeout=0.2), [Raises(3, Boom())], max_steps=9)
    wait_for(lambda: load(tmp_path, "heartbeat.json")["left"])
    time.sleep(1.0)
    assert messages(caplog, "TRL diagnostics: No sign of life") == []
    found = read_postmortem(tmp_path / "diagnostics")
    assert (found["exit_reason"], found["what"], found["last_step"]) == ("exception", CAUGHT, 3)


def test_a_subclass_is_in_its_training_like_any_other(tmp_path):
    class Mine(DiagnosticsCallback):
        def on_train_begin(self, *args, **kwargs):
            super().on_train_begin(*args, **kwargs)

    seen = []
    callback = Mine()
    train(
        "sft",
        tmp_path,
        callback,
        [Raises(2, lambda: seen.append((callback.run.loop.code, callback.run.loop.is_running())))],
        max_steps=2,
    )
    ((code, is_running),) = seen
    assert code.co_name == "_inner_training_loop" and is_running
