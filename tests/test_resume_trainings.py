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

"""Real trainings that are interrupted and go on: in silence as the same run, with the right finding as another one."""

import json
import logging
import shutil

import datasets
import pytest
import tiny
import torch
from callback_kit import StopsAt
from tiny_data import text_dataset

from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.engine.finding import DiagnosticsError, Finding, Record
from trl_diagnostics.sinks.run_dir import last_metadata
from trl_diagnostics.sources.advice import advise, judge_checkpoints
from trl_diagnostics.sources.checkpoints import checkpoints


pytestmark = pytest.mark.slow

STOP, END = 12, 24  # enough logs before and after for a band
SAVING = {"max_steps": END, "save_strategy": "steps", "save_steps": STOP // 2}
KINDS = [kind for kind in tiny.TRAINERS if kind != "ppo"]  # whose own loop cannot resume


@pytest.fixture(autouse=True, scope="module")
def outside_of_a_repository(tmp_path_factory):
    """Whoever works on this repository commits while the tests run, and that is a difference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(autouse=True, scope="module")
def quiet():
    datasets.disable_progress_bars()
    logging.getLogger("trl_diagnostics").setLevel(logging.ERROR)
    yield
    logging.getLogger("trl_diagnostics").setLevel(logging.NOTSET)


def train(kind, folder, others=(), resume=None, **overrides):
    callback = DiagnosticsCallback(enable_live_warnings=False)
    trainer = tiny.make_trainer(kind, folder, [callback, *others], **{**SAVING, **overrides})
    trainer.train(resume_from_checkpoint=resume)
    assert callback.broken == {}
    return callback


def resumes(folder):
    """The resume records and the findings about the resume in the files of a run."""
    lines = [json.loads(line) for line in (folder / "diagnostics" / "metrics.jsonl").read_text().splitlines()]
    found = folder / "diagnostics" / "findings.jsonl"
    findings = (
        [Finding.from_json(json.loads(line)) for line in found.read_text().splitlines()] if found.exists() else []
    )
    records = [Record.from_json(line) for line in lines]
    return [r for r in records if r.phase == "resume"], [f for f in findings if f.rule.startswith("resume_")]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interrupted")
    train("sft", folder, [StopsAt(STOP)])
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_resume_is_silent(kind, tmp_path):
    train(kind, tmp_path, [StopsAt(STOP)])
    callback = train(kind, tmp_path, resume=str(tmp_path / f"checkpoint-{STOP}"))
    (start, first, tenth), findings = resumes(tmp_path)
    assert findings == [] and [f for f in callback.findings if f.severity != "info"] == []
    assert (start.step, first.step, tenth.step) == (STOP, STOP + 1, STOP + 10)
    compared = {name: value for name, value in start.metrics.items() if not name.endswith(("_before", "_after"))}
    assert set(compared.values()) == {0.0} and len(compared) > 20
    assert first.metrics["resume_first_log"] == 1.0
    assert abs(first.metrics["resume_learning_rate_jump"]) < 1e-6 and abs(first.metrics["resume_epoch_jump"]) < 1e-6
    assert "resume_shift/loss" in tenth.metrics
    assert [(one.finite, one.missing) for one in checkpoints(tmp_path)] == [(True, ())] * 4


def other_rows():
    return datasets.Dataset.from_list([{"text": f"{row['text']} and more"} for row in text_dataset(seed=0)])


def lose_optimizer(folder):
    (folder / f"checkpoint-{STOP}" / "optimizer.pt").unlink()


def lose_weights(folder):
    """What the Trainer cannot notice: the adapter or the model of the checkpoint holds other weights."""
    file = folder / f"checkpoint-{STOP}" / "model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file({name: tensor + 0.3 * torch.randn_like(tensor) for name, tensor in load_file(file).items()}, file)


def more_processes(folder):
    """As if the run had begun with two processes: one computer has no second GPU to try it with."""
    file = folder / f"checkpoint-{STOP}" / "trainer_state.json"
    state = json.loads(file.read_text())
    state["stateful_callbacks"]["DiagnosticsCallback"]["attributes"]["saved"]["start"]["world_size"] = 2
    file.write_text(json.dumps(state))


CASES = {
    "learning rate": ({"learning_rate": 1e-4}, None, {"resume_learning_rate_changed"}),
    "length": ({"max_steps": 2 * END}, None, {"resume_schedule_changed"}),
    "seed": ({"seed": 1, "train_dataset": "same"}, None, {"resume_seed_changed"}),
    "data seed": ({"data_seed": 7}, None, {"resume_data_order_changed"}),
    "shuffled": ({"train_dataset": "shuffled"}, None, {"resume_data_order_changed"}),
    "other data": ({"train_dataset": "other"}, None, {"resume_dataset_changed"}),
    "batch size": (
        {"per_device_train_batch_size": 4},
        None,
        {"resume_batch_size_changed"},
    ),
    "dtype": ({"bf16": True}, None, {"resume_precision_changed"}),
    "optimizer state": ({}, lose_optimizer, {"resume_optimizer_state_missing"}),
    "processes": ({}, more_processes, {"resume_world_size_changed", "resume_batch_size_changed"}),
}
DATA = {
    "same": lambda: text_dataset(seed=0),
    "shuffled": lambda: text_dataset(seed=0).shuffle(seed=3),
    "other": other_rows,
}


@pytest.mark.parametrize("case", CASES)
def test_another_run_is_told_from_the_same_one(case, interrupted, tmp_path):
    overrides, prepare, expected = CASES[case]
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    if prepare:
        prepare(folder)
    if "train_dataset" in overrides:
        overrides = overrides | {"train_dataset": DATA[overrides["train_dataset"]]()}
    train("sft", folder, [StopsAt(STOP + 2)], resume=str(folder / f"checkpoint-{STOP}"), **overrides)
    _, findings = resumes(folder)
    assert {finding.rule for finding in findings if finding.severity != "info"} == expected
    assert {finding.step for finding in findings} == {STOP}
    told = json.loads((folder / "diagnostics" / "resume_1.json").read_text())
    assert (told["schema_version"], told["step"]) == (1, STOP)
    assert {"changes the run"} <= {difference["effect"] for difference in told["differences"]}


def longer(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def test_another_reward_function_is_another_run(tmp_path):
    train("grpo", tmp_path, [StopsAt(STOP)])
    resume = str(tmp_path / f"checkpoint-{STOP}")
    train("grpo", tmp_path, [StopsAt(STOP + 1)], resume=resume, reward_funcs=longer)
    _, findings = resumes(tmp_path)
    assert [(one.rule, one.step) for one in findings] == [("resume_reward_functions_changed", STOP)]
    differences = json.loads((tmp_path / "diagnostics" / "resume_1.json").read_text())["differences"]
    (one,) = differences
    assert (one["field"], one["effect"]) == ("reward_functions.0", "changes the run")
    assert [one[key].split()[0] for key in ("before", "after")] == ["colour_variety", "longer"]


def test_other_data_for_evaluations_are_told(tmp_path):
    train("sft", tmp_path, [StopsAt(STOP)], eval_dataset=text_dataset(seed=1))
    resume = str(tmp_path / f"checkpoint-{STOP}")
    train("sft", tmp_path, [StopsAt(STOP + 1)], resume=resume, eval_dataset=text_dataset(seed=2))
    _, findings = resumes(tmp_path)
    assert [finding.rule for finding in findings] == ["resume_eval_dataset_changed"]


def test_weights_that_were_not_loaded_are_seen_in_the_loss(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    lose_weights(folder)
    train("sft", folder, resume=str(folder / f"checkpoint-{STOP}"))
    _, findings = resumes(folder)
    assert "resume_loss_jump" in {finding.rule for finding in findings}


def test_data_that_are_not_skipped(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    options = {"ignore_data_skip": True}
    train("sft", folder, [StopsAt(STOP + 2)], resume=str(folder / f"checkpoint-{STOP}"), **options)
    (_, first), findings = resumes(folder)
    assert {finding.rule for finding in findings if finding.severity != "info"} == {"resume_data_seen_again"}
    assert first.metrics["resume_epoch_jump"] == pytest.approx(-STOP * first.metrics["resume_epoch_usual"], rel=0.01)


def test_a_mismatch_may_stop_the_resume_before_its_first_step(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    callback = DiagnosticsCallback(fail_on_resume_mismatch=True)
    trainer = tiny.make_trainer("sft", folder, [callback], **SAVING, learning_rate=1e-4)
    with pytest.raises(DiagnosticsError, match="learning_rate was 0.003 and is 0.0001"):
        trainer.train(resume_from_checkpoint=str(folder / f"checkpoint-{STOP}"))
    assert trainer.state.global_step == STOP


def test_a_second_resume_is_compared_with_the_first_one(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    train("sft", folder, [StopsAt(18)], resume=str(folder / "checkpoint-12"), learning_rate=1e-4)
    train("sft", folder, [StopsAt(19)], resume=str(folder / "checkpoint-18"), learning_rate=1e-4)
    train("sft", folder, [StopsAt(20)], resume=str(folder / "checkpoint-18"), learning_rate=1e-5)
    _, findings = resumes(folder)
    said = [(finding.step, finding.message) for finding in findings if finding.severity != "info"]
    assert said == [
        (12, "learning_rate was 0.003 and is 0.0001; the checkpoint's optimizer keeps the old one."),
        (18, "learning_rate was 0.0001 and is 1e-05; the checkpoint's optimizer keeps the old one."),
    ]


def test_the_learning_rate_of_the_checkpoint_stays_in_force(interrupted, tmp_path):
    """What the message says: the new argument does not reach the optimizer."""
    folder = tmp_path / "run"
    shutil.copytree(interrupted, folder)
    options = {"learning_rate": 1e-4}
    train("sft", folder, [StopsAt(STOP + 2)], resume=str(folder / f"checkpoint-{STOP}"), **options)
    (_, first), _ = resumes(folder)
    assert abs(first.metrics["resume_learning_rate_jump"]) < 1e-6
    assert last_metadata(folder / "diagnostics")["arguments"]["learning_rate"] == 1e-4


def test_checkpoints_of_a_run_whose_weights_die(tmp_path):
    callback = train("sft", tmp_path, [tiny.PoisonWeights(14)], save_steps=4)
    lines = (tmp_path / "diagnostics" / "metrics.jsonl").read_text().splitlines()
    records = [Record.from_json(json.loads(line)) for line in lines]
    judged = judge_checkpoints(checkpoints(tmp_path), records, callback.findings)
    assert [(one.step, one.finite) for one in judged] == [
        *((step, True) for step in (4, 8, 12)),
        *((step, False) for step in (16, 20, 24)),
    ]
    found = advise(judged)
    assert (found.go_on.step, found.ship.step) == (12, 12)
    assert [bool(one.suspect) for one in judged] == [False] * 3 + [True] * 3
