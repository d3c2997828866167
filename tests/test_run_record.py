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

"""What a training leaves beside its metrics: where it came from, how it ended, and nothing in the process."""

import faulthandler
import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref

import psutil
import pytest
import tiny
from callback_kit import CPU, Stage, StopsAt, findings, lines, messages, records, train
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig

from trl_diagnostics import DiagnosticsCallback, DiagnosticsError
from trl_diagnostics.diagnosis import diagnose
from trl_diagnostics.ending import VANISHED, read_postmortem
from trl_diagnostics.run_record import CAUGHT, NOTHING_KNOWN, OPEN
from trl_diagnostics.sinks import console
from trl_diagnostics.sinks.run_dir import write_json
from trl_diagnostics.sinks.watchdog import identity
from trl_diagnostics.sources.logs import open_run


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on")

LOSS_ALERT = "all: loss > -1 for 3 steps -> high: loss is {value:.1f}"
SAVING = {"save_strategy": "steps", "save_steps": 2}


@pytest.fixture(autouse=True)
def info_messages(caplog):
    caplog.set_level(logging.INFO, "trl_diagnostics")


class Boom(Exception):
    pass


class Raises(TrainerCallback):
    """At the end of a step; `error` is raised if it is one, or called."""

    def __init__(self, step, error):
        self.step, self.error = step, error

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            if isinstance(self.error, BaseException):
                raise self.error
            self.error()


def load(folder, name):
    return json.loads((folder / "diagnostics" / name).read_text(), parse_constant=pytest.fail)


def ended(folder):
    found = load(folder, "postmortem.json")
    return found["exit_reason"], found["last_step"]


def start(folder, callback=None, step=0, **overrides):
    """A training that began, and nothing else."""
    args = SFTConfig(output_dir=str(folder), **(CPU | overrides))
    state = TrainerState(global_step=step, max_steps=100, logging_steps=1, num_train_epochs=1)
    callback = callback or DiagnosticsCallback()
    if step:
        state.stateful_callbacks["DiagnosticsCallback"] = callback.state()
    callback.on_train_begin(args, state, TrainerControl())
    return callback, args, state


# A run that ends by itself


def test_a_run_leaves_these_files(tmp_path, reports):
    train(
        "sft", tmp_path, DiagnosticsCallback(custom_alerts=[LOSS_ALERT], disable=["lr_zero"]), max_steps=32, **SAVING
    )
    assert sorted(path.name for path in (tmp_path / "diagnostics").iterdir()) == [
        *("coverage.json", "findings.jsonl", "heartbeat.json", "metrics.jsonl", "postmortem.json"),
        *("preflight.json", "run.lock", "run_metadata_final.json", "run_metadata_start.json"),
    ]
    begun = load(tmp_path, "run_metadata_start.json")
    assert (begun["schema_version"], begun["trainer"]) == (1, "sft")
    own = begun["diagnostics"]
    assert (own["custom_alerts"], own["custom_heuristics_dir"], own["disable"]) == ([LOSS_ALERT], None, ["lr_zero"])
    assert (own["config"]["max_steps"], own["config"]["logging_steps"], own["config"]["world_size"]) == (32, 1, 1)
    assert begun["arguments"]["save_steps"] == 2 and begun["train_dataset"]["rows"] == 1024
    assert begun["model"]["class"] == "Qwen2ForCausalLM" and begun["tokenizer"]["class"] and begun["command"]["argv"]
    final = load(tmp_path, "run_metadata_final.json")
    last = [record for record in records(tmp_path) if record.phase == "train"][-1]
    assert (final["exit_reason"], final["last_step"], final["broken"]) == ("completed", 32, {})
    assert final["final_metrics"] == last.metrics and final["seconds"] > 0
    assert sum(final["coverage"].values()) == len(load(tmp_path, "coverage.json"))
    found = load(tmp_path, "postmortem.json")
    assert (found["exit_reason"], found["last_step"]) == ("completed", 32)
    assert found["what"] == "Training reached its end, step 32."
    assert found["root_finding"]["rule"] == "alert_loss_gt_minus_1_for_3_steps"
    assert found["last_verified_finite_checkpoint"] == str(tmp_path / "checkpoint-32")
    assert read_postmortem(tmp_path / "diagnostics") == found
    ((folder, diagnosis, plots),) = reports
    assert folder == tmp_path / "diagnostics" / "reports" and plots is True
    assert (diagnosis.records, diagnosis.last_step, diagnosis.postmortem) == (32, 32, found)
    assert [finding.rule for finding in diagnosis.findings] == [finding.rule for finding in findings(tmp_path)]
    assert [checkpoint.step for checkpoint in diagnosis.checkpoints] == list(range(2, 33, 2)) and diagnosis.advice


@pytest.mark.parametrize("wanted", [False, True])
def test_changes_that_are_not_committed_are_kept_on_request_and_in_no_checkpoint(wanted, tmp_path, monkeypatch):
    def git(diff):
        return {"commit": "0123", "diff": "+lr = 2"} if diff else {"commit": "0123"}

    monkeypatch.setattr("trl_diagnostics.sinks.provenance._git", git)
    train("sft", tmp_path, DiagnosticsCallback(save_git_diff=wanted), max_steps=2, **SAVING)
    assert load(tmp_path, "run_metadata_start.json")["git"] == git(wanted)
    saved = (tmp_path / "checkpoint-2" / "trainer_state.json").read_text()
    assert '"commit": "0123"' in saved and "+lr = 2" not in saved


def test_nothing_is_left_in_the_process(tmp_path, monkeypatch):
    faulthandler.disable()  # pytest's own
    handled = []
    before = signal.signal(signal.SIGTERM, lambda *args: handled.append(args))
    state = sys.excepthook, signal.getsignal(signal.SIGTERM), threading.active_count()
    try:
        callback, args, training = start(tmp_path)
        assert (
            sys.excepthook != state[0] and faulthandler.is_enabled() and (tmp_path / "diagnostics/crash.log").exists()
        )
        callback.on_train_end(args, training, TrainerControl())
        wait_for(lambda: threading.active_count() == state[2])
        assert (sys.excepthook, signal.getsignal(signal.SIGTERM)) == state[:2]
        assert not faulthandler.is_enabled() and not (tmp_path / "diagnostics" / "crash.log").exists()
        assert OPEN == [] and callback.run is None
    finally:
        signal.signal(signal.SIGTERM, before)
        faulthandler.enable()


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_only_the_main_process_writes(tmp_path):
    callback = DiagnosticsCallback()
    args = SFTConfig(output_dir=str(tmp_path / "out"), **CPU)
    state = TrainerState(max_steps=3, logging_steps=1, num_train_epochs=1, is_world_process_zero=False)
    hook = sys.excepthook
    callback.on_train_begin(args, state, TrainerControl())
    callback.on_step_begin(args, state, TrainerControl())
    callback.on_log(args, state, TrainerControl(), logs={"loss": 1.0})
    callback.on_step_end(args, state, TrainerControl())
    assert sys.excepthook == hook and OPEN == []
    callback.on_train_end(args, state, TrainerControl())
    assert not (tmp_path / "out" / "diagnostics").exists()


def test_a_stop_by_a_rule_is_told_from_the_end(tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    train("sft", tmp_path, callback, [tiny.PoisonWeights(4)], max_steps=12, **SAVING)
    found = load(tmp_path, "postmortem.json")
    assert (found["exit_reason"], found["last_step"]) == ("stopped_by_rule", 4)
    assert found["what"].startswith("nonfinite_weights ended training at step 4 of 12: ")
    assert found["last_checkpoint"] == str(tmp_path / "checkpoint-4")
    assert found["last_verified_finite_checkpoint"] == str(tmp_path / "checkpoint-2")
    assert found["resume_command"].startswith(
        f'set trainer.train(resume_from_checkpoint="{tmp_path}/checkpoint-2") in '
    )


def test_another_callback_may_end_it(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(), [StopsAt(3)], max_steps=12)
    assert ended(tmp_path) == ("completed", 3)
    assert load(tmp_path, "postmortem.json")["what"] == (
        "Training ended at step 3 of 12, as a callback asked for or for lack of data."
    )


# Exceptions


def test_an_exception_inside_with(tmp_path, caplog, reports):
    with pytest.raises(Boom), DiagnosticsCallback() as callback:
        train("sft", tmp_path, callback, [Raises(3, Boom("no hf_abcdefghijklmnopqrstuvwxyz0123456789"))], max_steps=9)
    found = load(tmp_path, "postmortem.json")
    assert (found["exit_reason"], found["last_step"]) == ("exception", 3)
    assert found["what"].endswith("Boom: no <redacted>")
    assert "in on_step_end\n" in found["traceback"] and "hf_abc" not in found["traceback"]
    assert load(tmp_path, "run_metadata_final.json")["exit_reason"] == "exception"
    assert messages(caplog, "TRL diagnostics: training ended (exception) at step 3.") and len(reports) == 1


def test_an_exception_that_was_handled_inside_with(tmp_path):
    with DiagnosticsCallback() as callback:
        with pytest.raises(Boom):
            train("sft", tmp_path, callback, [Raises(3, Boom())], max_steps=9)
    assert load(tmp_path, "postmortem.json")["what"] == CAUGHT


def test_with_around_a_training_that_ends_well(tmp_path):
    with DiagnosticsCallback() as callback:
        train("sft", tmp_path, callback, max_steps=2)
    assert ended(tmp_path) == ("completed", 2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(MemoryError(), "oom"), (RuntimeError("CUDA out of memory."), "oom"), (KeyboardInterrupt(), "interrupted")],
    ids=["memory", "device memory", "interrupt"],
)
def test_reasons_of_exceptions(error, reason, tmp_path):
    with pytest.raises(type(error)), DiagnosticsCallback() as callback:
        start(tmp_path, callback)
        raise error
    assert ended(tmp_path) == (reason, 0)


def test_an_exception_that_the_program_handles_shows_at_the_next_training(tmp_path, caplog):
    first, second = DiagnosticsCallback(), DiagnosticsCallback()
    with pytest.raises(Boom):
        train("sft", tmp_path, first, [Raises(3, Boom())], max_steps=9)
    assert not (tmp_path / "diagnostics" / "postmortem.json").exists()
    train("sft", tmp_path, second, max_steps=2)
    assert ended(tmp_path) == ("completed", 2)
    before = load(tmp_path, "attempts/1/postmortem.json")
    assert (before["exit_reason"], before["last_step"], before["what"]) == ("exception", 3, CAUGHT)
    assert load(tmp_path, "attempts/1/run_metadata_final.json")["exit_reason"] == "exception"
    assert len(messages(caplog, "TRL diagnostics: training ended (exception) at step 3.")) == 1
    assert first.broken == second.broken == {}


def test_a_training_in_the_handler_of_an_exception_knows_it(tmp_path):
    start(tmp_path / "a")
    try:
        raise Boom("why")
    except Boom:
        start(tmp_path / "b")
    assert load(tmp_path / "a", "postmortem.json")["what"].endswith("Boom: why")


def test_a_smaller_batch_after_one_too_large(tmp_path):
    callback, args, _ = start(tmp_path / "a", auto_find_batch_size=True)
    callback.on_train_begin(args, TrainerState(max_steps=9, logging_steps=1, num_train_epochs=1), TrainerControl())
    found = load(tmp_path / "a", "attempts/1/postmortem.json")
    assert found["exit_reason"] == "oom" and found["what"].startswith(
        "auto_find_batch_size started the training again"
    )


@pytest.mark.parametrize("caught_by", ["the program", "a callback"])
def test_ctrl_c_that_was_caught(caught_by, tmp_path):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)

    def interrupt_and_go_on():
        with pytest.raises(KeyboardInterrupt):
            interrupt()

    others = [Raises(2, interrupt)] if caught_by == "the program" else [Raises(2, interrupt_and_go_on)]
    try:
        with pytest.raises((KeyboardInterrupt, Boom)):
            train("sft", tmp_path, DiagnosticsCallback(), [*others, Raises(4, Boom())], max_steps=9)
        OPEN[0]._on_exit(None)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    found = load(tmp_path, "postmortem.json")
    if caught_by == "a callback":
        assert (found["exit_reason"], found["what"]) == ("exception", CAUGHT)
    else:
        said = "Interrupted from the keyboard (Ctrl-C). The program caught that and went on."
        assert (found["exit_reason"], found["what"]) == ("interrupted", said)


def test_two_callbacks_in_one_training_do_not_end_each_other(tmp_path):
    both = [DiagnosticsCallback(run_dir=tmp_path / name) for name in "ab"]
    hook = sys.excepthook
    trainer = tiny.make_trainer("sft", tmp_path / "out", both, max_steps=2)
    trainer.train()
    for name in "ab":
        assert json.loads((tmp_path / name / "postmortem.json").read_text())["exit_reason"] == "completed"
    assert sys.excepthook == hook


def test_a_training_inside_of_another_one_does_not_end_it(tmp_path):
    """In a callback, for example to train a reward model."""
    seen, inner = [], DiagnosticsCallback()

    def train_inside():
        train("sft", tmp_path / "inner", inner, max_steps=2)
        seen.append((read_postmortem(tmp_path / "outer" / "diagnostics")["exit_reason"], len(OPEN)))

    train("sft", tmp_path / "outer", DiagnosticsCallback(), [Raises(2, train_inside)], max_steps=3)
    assert seen == [("unfinished", 1)] and OPEN == []
    for name, steps in {"inner": 2, "outer": 3}.items():
        assert ended(tmp_path / name) == ("completed", steps)
        assert load(tmp_path / name, "run_metadata_final.json")["exit_reason"] == "completed"


def test_a_full_disk_at_the_end_leaves_no_hooks(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    before = sys.excepthook, signal.getsignal(signal.SIGTERM)
    callback, args, state = start(tmp_path)
    monkeypatch.setattr("trl_diagnostics.run_record.write_json", full)
    callback.on_train_end(args, state, TrainerControl())
    assert (sys.excepthook, signal.getsignal(signal.SIGTERM)) == before
    assert callback.broken == {"postmortem": "OSError: [Errno 28] No space left on device"}
    assert load(tmp_path, "run_metadata_final.json")["exit_reason"] == "completed"  # the other files are not to blame


@pytest.mark.parametrize("event", ["hang", "recovery", "SIGTERM"])
def test_standard_error_that_nobody_reads_holds_up_neither_the_watchdog_nor_the_end(event, tmp_path, monkeypatch):
    callback, *_ = start(tmp_path)
    record, free = callback.run, threading.Event()
    monkeypatch.setattr(record.loop, "is_running", lambda: True)
    monkeypatch.setattr(type(record.sigterm), "is_last", True)
    record._write_postmortem("hang", "what", "trace")
    hang = {"seconds": 9.0, "limit": 5.0, "doing": "step", "step": 3}
    call, argument = {
        "hang": (record._on_hang, hang),
        "recovery": (record._on_recovery, hang),
        "SIGTERM": (record._on_sigterm, sys._getframe()),
    }[event]
    blocked = logging.Handler()
    blocked.emit = lambda message: free.wait()
    console.logger.addHandler(blocked)
    try:
        thread = threading.Thread(target=call, args=(argument,), daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
    finally:
        free.set()
        console.logger.removeHandler(blocked)


def test_on_a_full_disk_the_log_says_how_the_run_ended(tmp_path, monkeypatch, caplog):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    start(tmp_path)
    monkeypatch.setattr("trl_diagnostics.run_record.write_json", full)
    monkeypatch.setattr("trl_diagnostics.ending.write_json", full)
    OPEN[0]._on_hang({"seconds": 9.0, "limit": 5.0, "doing": "step", "step": 0})
    record = OPEN[0]
    record._on_exit(Boom("why"))
    record.report()
    file = tmp_path / "diagnostics" / "postmortem.json"
    said = f"TRL diagnostics: training ended (exception) at step 0. {file} could not be written."
    ended = messages(caplog, "TRL diagnostics: training ended")  # a thread of the test before may still have its say
    assert [message for message in ended if str(tmp_path) in message] == [said]
    full_disk = "OSError: [Errno 28] No space left on device"
    assert record.guard.broken == {"postmortem": f"2 times {full_disk}", "report": full_disk}
    assert len(messages(caplog, "TRL diagnostics: No sign of life for 9 s, in a training step")) == 1


# The run before


def vanished(folder, **beat):
    """What a run leaves that was killed at step 2."""
    train("sft", folder, DiagnosticsCallback(), max_steps=2, **SAVING)
    (folder / "diagnostics" / "postmortem.json").unlink()
    written = load(folder, "heartbeat.json")
    write_json(
        folder / "diagnostics" / "heartbeat.json",
        written | {"process_started": 1.0, "faulthandler_taken": False} | beat,
    )


def test_the_next_run_says_that_the_one_before_was_killed(tmp_path, caplog):
    vanished(tmp_path)
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    said = f"TRL diagnostics: the run before in this folder ended (killed) at step 2. {VANISHED}"
    assert messages(caplog, "TRL diagnostics: the run before") == [said]
    assert load(tmp_path, "attempts/1/postmortem.json")["exit_reason"] == "killed"
    assert ended(tmp_path) == ("completed", 1)


def test_a_run_that_may_go_on_elsewhere_is_a_reason_to_warn(tmp_path, caplog):
    vanished(tmp_path, host="node-7", time=time.time())
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    (said,) = messages(caplog, "TRL diagnostics: there is an unfinished run in this folder. ")
    assert "The run is or was on node-7" in said
    assert not (tmp_path / "diagnostics" / "attempts" / "1" / "postmortem.json").exists()


TRAINS = """
import sys, time
import tiny
from transformers import TrainerCallback
from trl_diagnostics import DiagnosticsCallback
class Waits(TrainerCallback):
    def on_log(self, *args, **kwargs):
        print("logged", flush=True)
        sys.stdin.readline()
tiny.make_trainer("sft", sys.argv[1], [DiagnosticsCallback(), Waits()], max_steps=1).train()
"""


@pytest.mark.slow
def test_two_processes_do_not_write_into_one_folder(tmp_path, caplog):
    paths = os.pathsep.join(sys.path)
    arguments = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen([sys.executable, "-c", TRAINS, str(tmp_path)], env=environment, **arguments) as other:
        assert other.stdout.readline() == "logged\n"
        train("sft", tmp_path, DiagnosticsCallback(), max_steps=2)
        train("sft", tmp_path, DiagnosticsCallback(), max_steps=3)
        assert not (tmp_path / "diagnostics" / "postmortem.json").exists()
        other.communicate("\n" * 9)
    assert ended(tmp_path) == ("completed", 1)
    folder = tmp_path / "diagnostics-2"
    assert json.loads((folder / "postmortem.json").read_text())["last_step"] == 3
    assert json.loads((folder / "attempts" / "1" / "postmortem.json").read_text())["last_step"] == 2
    said = f"another training writes into {tmp_path / 'diagnostics'}, this is {folder}"
    assert len(messages(caplog, f"TRL diagnostics: {said}")) == 2


def test_after_a_run_that_ended_well_nothing_is_said(tmp_path, caplog):
    for _ in range(2):
        train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    assert messages(caplog, "TRL diagnostics: the") == []


def test_all_files_of_the_run_before_move(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    left = {path.name for path in (tmp_path / "diagnostics").iterdir()} - {"run.lock"} | {"hang.log", "crash.log"}
    for name in ("hang.log", "crash.log"):
        (tmp_path / "diagnostics" / name).write_text("x")
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=1)
    assert {path.name for path in (tmp_path / "diagnostics" / "attempts" / "1").iterdir()} == left


# Resumes


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run that was stopped at step 4 of 8."""
    folder = tmp_path_factory.mktemp("half")
    train("sft", folder, DiagnosticsCallback(), [StopsAt(4)], max_steps=8, **SAVING)
    return folder


@pytest.fixture
def copied(half, tmp_path):
    shutil.copytree(half, tmp_path / "run")
    return tmp_path / "run"


def test_a_resume_has_metadata_and_an_end_of_its_own(copied):
    train("sft", copied, DiagnosticsCallback(), resume=str(copied / "checkpoint-4"), max_steps=8, **SAVING)
    run_dir = copied / "diagnostics"
    assert sorted(path.name for path in run_dir.glob("run_metadata_*")) == [
        *("run_metadata_final.json", "run_metadata_final_1.json"),
        *("run_metadata_start.json", "run_metadata_start_1.json"),
    ]
    assert load(copied, "run_metadata_start_1.json")["resumed"] == {
        "number": 1,
        "step": 4,
        "records": 5,
        "lines": {"metrics.jsonl": 5},
        "attempt": "1",
        "with_state": True,
        "saved_by": load(copied, "run_metadata_start.json")["start_id"],
    }
    assert [load(copied, name)["last_step"] for name in ("run_metadata_final.json", "run_metadata_final_1.json")] == [
        4,
        8,
    ]
    assert ended(copied) == ("completed", 8)
    assert load(copied, "attempts/1/postmortem.json")["last_step"] == 4
    assert [line["step"] for line in lines(copied, "metrics.jsonl") if line["phase"] == "train"] == list(range(1, 9))


def test_a_run_started_by_mistake_does_not_get_between_a_run_and_its_resume(copied):
    mistake, resume = {"max_steps": 2, "learning_rate": 1e-5}, {"resume": str(copied / "checkpoint-4")}
    before = load(copied, "run_metadata_start.json")["start_id"]
    train("sft", copied, DiagnosticsCallback(), save_strategy="no", **mistake)
    train("sft", copied, DiagnosticsCallback(fail_on_resume_mismatch=True), max_steps=8, **resume, **SAVING)
    assert [line["step"] for line in lines(copied, "metrics.jsonl") if line["phase"] == "train"] == list(range(1, 9))
    assert load(copied, "run_metadata_start.json")["start_id"] == before
    assert {finding.severity for finding in findings(copied)} <= {"info"}
    assert len(lines(copied, "attempts/2/metrics.jsonl")) == 4  # of the mistake


def test_a_resume_with_another_learning_rate(copied, caplog):
    overrides = {"resume": str(copied / "checkpoint-4"), "max_steps": 8, "learning_rate": 1e-5, **SAVING}
    train("sft", copied, DiagnosticsCallback(), **overrides, save_total_limit=9)
    harmless = next(said for said in caplog.messages if "other than before the resume" in said)
    assert "save_total_limit was None and is 9" in harmless and "learning_rate" not in harmless
    assert "resume_learning_rate_changed" in [finding.rule for finding in findings(copied)]


def test_a_mismatch_raises_before_the_first_step_every_time(copied):
    overrides = {"resume": str(copied / "checkpoint-4"), "max_steps": 8, "learning_rate": 1e-5, **SAVING}
    before = (copied / "diagnostics" / "metrics.jsonl").read_text().splitlines()
    for _ in range(2):  # a refused start is not what the next one is compared with
        with pytest.raises(DiagnosticsError) as error, DiagnosticsCallback(fail_on_resume_mismatch=True) as callback:
            train("sft", copied, callback, **overrides)
        assert str(error.value).splitlines() == [
            f"fail_on_resume_mismatch: this is not the run that was recorded in {copied / 'diagnostics'}:",
            "  learning_rate was 0.003 and is 1e-05 (changes the run)",
            "Undo these changes, or leave fail_on_resume_mismatch out to go on with them.",
        ]
        assert ended(copied) == ("exception", 4)
        assert json.loads((copied / "diagnostics" / "postmortem.json").read_text())["resume_command"] is None
    after = (copied / "diagnostics" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in after if '"train"' in line] == [
        json.loads(line)["step"] for line in before if '"train"' in line
    ]
    overrides["learning_rate"] = tiny.HEALTHY["sft"]["learning_rate"]
    train("sft", copied, DiagnosticsCallback(fail_on_resume_mismatch=True), **overrides)
    assert ended(copied) == ("completed", 8)


@pytest.mark.parametrize("place", ["another output_dir", "another run_dir", "a run directory that was deleted"])
def test_the_checkpoint_knows_its_run_wherever_training_goes_on(place, copied, tmp_path):
    checkpoint, folder, run_dir = copied / "checkpoint-4", copied, copied / "diagnostics"
    if place == "another output_dir":
        folder = tmp_path / "new"
        run_dir = folder / "diagnostics"
    elif place == "another run_dir":
        run_dir = tmp_path / "new"
    else:
        shutil.rmtree(run_dir)
    changed = {"resume": str(checkpoint), "max_steps": 8, "learning_rate": 1e-5, "seed": 5, **SAVING}
    with pytest.raises(DiagnosticsError, match="learning_rate was 0.003 and is 1e-05"):
        train("sft", folder, DiagnosticsCallback(run_dir=run_dir, fail_on_resume_mismatch=True), **changed)
    (checkpoint / "optimizer.pt").unlink()
    callback = DiagnosticsCallback(run_dir=run_dir)
    train("sft", folder, callback, **changed)
    found = {finding.rule for finding in callback.findings if finding.severity not in ("info", "low")}
    assert {"resume_learning_rate_changed", "resume_seed_changed", "resume_optimizer_state_missing"} <= found
    replayed = diagnose(open_run(run_dir)).findings  # although the records before the checkpoint are not there
    written = [json.loads(line) for line in (run_dir / "findings.jsonl").read_text().splitlines()]
    assert [finding.to_json() for finding in replayed] == written


def test_of_a_checkpoint_without_this_callback_nothing_is_known(tmp_path, caplog):
    train("sft", tmp_path, None, [StopsAt(4)], max_steps=8, **SAVING)
    callback = DiagnosticsCallback(fail_on_resume_mismatch=True)
    train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-4"), max_steps=8, learning_rate=1e-5, **SAVING)
    assert callback.broken == {}
    assert messages(caplog, "TRL diagnostics: nothing") == [f"TRL diagnostics: {NOTHING_KNOWN}"]


# Parts that fail


@pytest.mark.parametrize(
    ("target", "part"),
    [
        ("trl_diagnostics.run_record.provenance", "provenance"),
        ("trl_diagnostics.run_record.write_report", "report"),
        ("trl_diagnostics.run_record.checkpoints", "checkpoint search"),
        ("trl_diagnostics.run_record.postmortem", "postmortem"),
    ],
)
def test_a_part_that_fails_is_switched_off_alone(target, part, tmp_path, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise ZeroDivisionError("no")

    monkeypatch.setattr(target, fail)
    callback = DiagnosticsCallback()
    trainer = train("sft", tmp_path, callback, max_steps=2)
    assert trainer.state.global_step == 2 and list(callback.broken) == [part]
    assert len(records(tmp_path)) == 3 and OPEN == []
    assert (tmp_path / "diagnostics" / "postmortem.json").exists() == (part != "postmortem")
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_no_run_keeps_its_model_alive(tmp_path):
    callback = DiagnosticsCallback()
    trainer = train("sft", tmp_path, callback, max_steps=1)
    model = weakref.ref(trainer.model)
    del trainer
    gc.collect()
    assert model() is None


def test_this_process_is_alive_and_its_run_goes_on(tmp_path):
    start(tmp_path)
    found = read_postmortem(tmp_path / "diagnostics")
    assert found["exit_reason"] == "unfinished" and f"process {os.getpid()}" in found["what"]
    assert identity(psutil.Process())["pid"] == load(tmp_path, "heartbeat.json")["pid"]


def test_logs_after_the_training_still_arrive(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path)
    stage.log({"loss": 1.0})
    stage.end()
    stage.log({"eval_loss": 1.0})
    assert [record.phase for record in records(tmp_path)] == ["train", "eval"]
