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

"""The look before the first step: when it is taken, that it changes nothing, and how to take it alone."""

import json
import logging
import random
import sys

import numpy as np
import pytest
import torch
from cli_kit import run, shell
from preflight_kit import report, seen
from tiny import make_trainer
from tiny_data import colour_variety

from trl_diagnostics import DiagnosticsCallback, DiagnosticsError, preflight
from trl_diagnostics.commands.preflight import trainer_of_script
from trl_diagnostics.sources import preflight as source
from trl_diagnostics.sources.preflight import look_before
from trl_diagnostics.sources.unseen import Unseen


SCRIPT = """
import sys
from trl import GRPOConfig, GRPOTrainer
import tiny
from tiny_data import COLOURS

WORDS = COLOURS

def variety(completions, **kwargs):
    return [float(sum(word in text for word in WORDS)) for text in completions]

print("the script says", sys.argv[1:])
trainer = tiny.make_trainer("grpo", "out", reward_funcs=variety)
if "--frozen" in sys.argv:
    trainer.model.requires_grad_(False)
if "--exit" in sys.argv:
    sys.exit("wrong argument")
if "--error" in sys.argv:
    raise ValueError("no data")
if __name__ == "__main__" and "--nothing" not in sys.argv:
    try:
        trainer.train()
    except Exception:
        pass
    print("trained")
"""


class Counter:
    """A reward function with a state of its own, which draws random numbers."""

    __name__ = "counter"

    def __init__(self):
        self.calls, self.seen, self.random = 0, [], random.Random(3)

    def __call__(self, completions, **kwargs):
        self.calls += 1
        self.seen += completions
        random.random(), np.random.random(), torch.rand(1)
        return [colour_variety([text])[0] + self.random.random() for text in completions]

    def state(self):
        return self.calls, self.seen, self.random.getstate()


def trained(folder, kind, callback, **overrides):
    """Weights, random states and what was logged of a training, and the state of its reward function."""
    function = {"reward_funcs": (counter := Counter())} if kind in ("grpo", "rloo") else {}
    trainer = make_trainer(kind, folder, [callback] if callback else [], max_steps=3, **function, **overrides)
    trainer.train()
    weights = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    timed = ("runtime", "per_second", "step_time")
    logs = [{k: v for k, v in log.items() if not any(t in k for t in timed)} for log in trainer.state.log_history]
    return weights, states, logs, counter.state() if function else None


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("sft", {}), ("dpo", {}), ("grpo", {}), ("grpo", {"beta": 0.04}), ("rloo", {}), ("gkd", {})],
)
def test_training_is_the_same_with_and_without(tmp_path, kind, overrides):
    weights, *rest = trained(tmp_path / "plain", kind, None, **overrides)
    for name, on in (("on", True), ("off", False)):
        others, *states = trained(tmp_path / name, kind, DiagnosticsCallback(preflight=on), **overrides)
        assert all(map(torch.equal, weights, others))
        assert json.dumps(states, default=str) == json.dumps(rest, default=str)
    assert report(tmp_path / "on")["seconds"]
    assert not (tmp_path / "off" / "diagnostics" / "preflight.json").exists()


def test_random_states_come_back(tmp_path, monkeypatch):
    def draws(trainer):
        return {"drawn": random.random() + np.random.random() + torch.rand(1).item()}

    trainer = make_trainer("sft", tmp_path)
    monkeypatch.setitem(source.MODEL_CHECKS, "draws", draws)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert 0 < look_before(trainer, _call).metrics["drawn"] < 3
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


def _call(part, function, *args):
    return function(*args)


def test_a_check_that_sees_a_part(tmp_path, monkeypatch):
    def partly(trainer):
        raise Unseen("the rest is hidden", {"a": 1.0})

    monkeypatch.setattr(source, "MODEL_CHECKS", {"partly": partly})
    monkeypatch.setattr(source, "DATA_CHECKS", {})
    monkeypatch.setattr(source, "REWARD_CHECKS", {})
    found = look_before(make_trainer("sft", tmp_path), _call)
    assert (found.metrics, found.unseen, list(found.seconds)) == (
        {"a": 1.0},
        {"partly": "the rest is hidden"},
        ["partly"],
    )


def test_a_check_with_an_error_of_its_own(tmp_path, monkeypatch):
    def broken(trainer):
        return 1 / 0

    monkeypatch.setitem(source.MODEL_CHECKS, "broken", broken)
    callback = DiagnosticsCallback()
    make_trainer("sft", tmp_path, [callback], max_steps=1).train()
    assert callback.broken == {"preflight, broken": "ZeroDivisionError: division by zero"}
    assert report(tmp_path)["unseen"] == {"broken": "failed with an error of its own"}
    assert seen(tmp_path)["trainable_parameters"] > 0


def test_what_takes_too_long_leaves_the_others_out(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "SECONDS", -1.0)
    found = look_before(make_trainer("sft", tmp_path), _call)
    assert found.metrics == {} and found.seconds == {}
    assert set(found.unseen.values()) == {"left out, the others took -1 s"}


def test_what_was_not_measured_is_not_missed(tmp_path):
    callback = DiagnosticsCallback()
    make_trainer("sft", tmp_path, [callback], max_steps=1).train()
    coverage = callback.engine.coverage()
    assert coverage["nothing_trainable"] == "active"
    assert {coverage[name] for name in ("gpu_left_idle", "disk_too_small_for_a_checkpoint", "few_updates")} == {
        "not applicable"
    }


class TestAlone:
    def test_a_healthy_trainer(self, tmp_path, caplog, info_messages):
        assert preflight(make_trainer("sft", tmp_path)) == []
        assert [message for message in caplog.messages if "not seen" in message] == [
            "TRL diagnostics: not seen: optimizer (the optimizer is built when training begins)"
        ]

    def test_a_fault(self, tmp_path, caplog):
        caplog.set_level(logging.INFO, "trl_diagnostics")
        trainer = make_trainer("sft", tmp_path)
        trainer.model.requires_grad_(False)
        (finding,) = preflight(trainer)
        assert (finding.rule, finding.step, finding.trainer) == ("nothing_trainable", 0, "sft")
        assert any(message.startswith("[CRITICAL] nothing_trainable  step 0") for message in caplog.messages)

    def test_nothing_is_written_and_training_is_the_same(self, tmp_path):
        def run(folder, look):
            trainer = make_trainer("grpo", folder, max_steps=2, reward_funcs=Counter())
            if look:
                assert preflight(trainer) == []
                assert not folder.exists() or list(folder.iterdir()) == []
            trainer.train()
            return [parameter.detach().clone() for parameter in trainer.model.parameters()], torch.get_rng_state()

        (weights, state), (others, other) = run(tmp_path / "a", False), run(tmp_path / "b", True)
        assert all(map(torch.equal, weights, others)) and torch.equal(state, other)

    def test_other_processes_do_nothing(self, tmp_path, monkeypatch):
        trainer = make_trainer("sft", tmp_path)
        trainer.model.requires_grad_(False)
        monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
        assert preflight(trainer) == []


@pytest.fixture
def script(tmp_path, monkeypatch):
    file = tmp_path / "train.py"
    file.write_text(SCRIPT)
    monkeypatch.chdir(tmp_path)
    return file


class TestScript:
    def test_the_first_training_does_not_begin(self, script, capsys):
        arguments, folders = sys.argv, sys.path
        trainer = trainer_of_script(script, ["--steps", "3"])
        assert trainer.state.global_step == 0
        assert capsys.readouterr().out == "the script says ['--steps', '3']\n"
        assert (sys.argv, sys.path) == (arguments, folders)
        assert preflight(trainer) == []  # its reward function has the globals of the script
        trainer.args.max_steps = 1
        assert trainer.train().global_step == 1  # and train is what it was

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("--nothing", "train.py: it has ended, and Trainer.train() was not called"),
            ("--exit", "train.py: ended with 'wrong argument' before Trainer.train()"),
            ("--error", "train.py: ValueError before Trainer.train()"),
        ],
    )
    def test_a_script_that_does_not_train(self, script, argument, message):
        with pytest.raises(DiagnosticsError) as error:
            trainer_of_script(script, [argument])
        assert str(error.value).endswith(message)

    def test_no_script(self, capsys):
        assert run(capsys, "preflight", "nowhere.py") == (
            2,
            "",
            "nowhere.py: no such file; expected the Python script that trains\n",
        )

    @pytest.mark.slow
    def test_a_healthy_script(self, script):
        done = shell("preflight", script, cwd=script.parent, PYTHONPATH=":".join(sys.path))
        assert (done.returncode, done.stdout) == (
            0,
            "Preflight: nothing is wrong as far as it can be seen before training\n",
        )

    @pytest.mark.slow
    def test_a_script_with_a_fault(self, script):
        done = shell("preflight", "--json", script, "--frozen", cwd=script.parent, PYTHONPATH=":".join(sys.path))
        assert done.returncode == 1
        document = json.loads(done.stdout)
        assert [finding["rule"] for finding in document["findings"]] == ["nothing_trainable"]
        assert (document["exit_code"], document["fail_on"]) == (1, "high")
        assert "the script says ['--frozen']" in done.stderr
