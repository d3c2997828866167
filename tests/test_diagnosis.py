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

"""`diagnose` on the files that a run left says what the callback said while it trained, to the letter."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from failure_lab import corpus
from report_kit import builtin_rules
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig

from trl_diagnostics import DiagnosticsCallback, Finding, callback
from trl_diagnostics.diagnosis import diagnose
from trl_diagnostics.metrics.catalogue import index
from trl_diagnostics.sinks.report import write_report
from trl_diagnostics.sources.logs import open_run


CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1}
ALERTS = ["all: loss > 0.1 for 2 steps -> low: loss is {value:.2f}", "all: `other` > 0.5 for 1 steps -> high: other"]


def said(folder):
    """The findings that the callback wrote."""
    file = Path(folder) / "findings.jsonl"
    return [Finding.from_json(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def same(live, found):
    """As JSON, where NaN equals NaN."""
    return [finding.to_json() for finding in live] == [finding.to_json() for finding in found]


def check(folder):
    """That the folder of a run is diagnosed as it was judged live; the diagnosis."""
    made = diagnose(open_run(folder))
    assert same(said(folder), made.findings)
    assert made.coverage == json.loads((Path(folder) / "coverage.json").read_text())
    assert made.broken == {}
    return made


def train(kind, folder, resume=None, callbacks=(), **overrides):
    trainer = tiny.make_trainer(kind, folder, list(callbacks), **overrides)
    trainer.train(resume_from_checkpoint=resume)


class Stage:
    """A training without a trainer: logs are handed to the callback as the Trainer hands them."""

    def __init__(self, folder, config=SFTConfig, **options):
        self.callback = DiagnosticsCallback(enable_live_warnings=False, **options)
        self.args = config(output_dir=str(folder), **CPU)
        self.state = TrainerState(max_steps=1000, logging_steps=1, num_train_epochs=3)
        self.control = TrainerControl()
        self.callback.on_train_begin(self.args, self.state, self.control)

    def log(self, **logs):
        self.state.global_step += 1
        self.callback.on_log(self.args, self.state, self.control, logs=logs)

    def end(self):
        self.callback.on_train_end(self.args, self.state, self.control)


# Runs made of logs


@pytest.mark.usefixtures("reports")
def test_episodes_that_come_and_go_are_all_there(tmp_path):
    stage = Stage(tmp_path, custom_alerts=ALERTS)
    for step in range(120):
        stage.log(loss=1.0 if step // 10 % 2 else 0.0, other=float(step % 7 == 0), grad_norm=1.0)
    stage.end()
    made = check(tmp_path / "diagnostics")
    assert len(stage.callback.findings) < len(made.findings)
    assert (made.records, made.last_step) == (120, 120)


@pytest.mark.usefixtures("reports")
def test_what_is_no_number_is_judged_alike(tmp_path):
    stage = Stage(tmp_path, custom_alerts=ALERTS)
    odd = (math.nan, None, math.inf, 0.0, -0.0, 1e308, 5e-324, 2, True)
    for step in range(60):
        stage.log(loss=odd[step % len(odd)], grad_norm=odd[step // 2 % len(odd)], other=odd[step // 3 % len(odd)])
    stage.log(eval_loss=math.nan, eval_runtime=2.5)
    stage.log(train_loss=0.5, train_runtime=3.0)
    stage.end()
    made = check(tmp_path / "diagnostics")
    assert "nonfinite_grad_norm" in {finding.rule for finding in made.findings}


@pytest.mark.usefixtures("reports")
def test_own_rules_and_muted_rules_are_taken_from_the_run(tmp_path):
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "mine.yaml").write_text(
        "name: mine\ntrainers: [sft]\nmetric: loss\ncondition: value > config.learning_rate for 3 steps\n"
        'severity: medium\nmin_steps: 1\nmessage: "loss {value:.1f}"\n'
    )
    stage = Stage(tmp_path, custom_heuristics_dir=rules, disable=["loss_*", "nonfinite_loss"])
    for _ in range(5):
        stage.log(loss=1.0)
    for _ in range(5):
        stage.log(loss=math.nan)
    stage.end()
    made = check(tmp_path / "diagnostics")
    assert [finding.rule for finding in made.findings][0] == "mine"
    assert not any(name.startswith("loss_") for name in made.coverage)
    (rules / "mine.yaml").unlink()
    rules.rmdir()
    made = diagnose(open_run(tmp_path / "diagnostics"))
    assert list(made.broken) == ["rules of the run"] and str(rules) in made.broken["rules of the run"]
    assert "loss_spike_transient" in made.coverage  # the built-in rules, all of them


@pytest.mark.usefixtures("reports")
def test_rules_can_be_given(tmp_path):
    stage = Stage(tmp_path, custom_alerts=ALERTS)
    for _ in range(40):
        stage.log(loss=1.0)
    stage.end()
    made = diagnose(open_run(tmp_path / "diagnostics"), [])
    assert made.findings == () and made.coverage == {} and made.records == 40


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("run_metadata_start_1.json", '{"resumed": true}', ""),
        ("run_metadata_start_1.json", '{"resumed": {"number": 1, "records": 0, "with_state": false}}', ""),
        ("run_metadata_start_1.json", '{"resumed": {"number": "1"}, "diagnostics": []}', "'diagnostics' is no JSON"),
        ("run_metadata_start.json", "{}", ""),
        ("run_metadata_start.json", '{"diagnostics": 2}', "'diagnostics' is no JSON object, it is left out"),
        ("run_metadata_start.json", '{"diagnostics": {"custom_heuristics_dir": 5}}', "expected a path, found 5"),
        ("run_metadata_start.json", '{"diagnostics": {"custom_alerts": 5, "disable": {}}}', "custom_alerts: expected"),
    ],
)
def test_metadata_of_somebody_else(name, text, said, tmp_path):
    """They may be of another tool, or of another release; what is not understood is left out."""
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "time": 1.0, "phase": "train", "metrics": {"loss": 1.0}}\n')
    (tmp_path / name).write_text(text)
    made = diagnose(open_run(tmp_path))
    assert made.records == 1 and said in " ".join([*made.run.notes, *made.broken.values()])
    write_report(tmp_path / "r", made, plots=False)


@pytest.mark.usefixtures("reports")
def test_a_run_that_goes_on_is_diagnosed_up_to_here(tmp_path):
    stage = Stage(tmp_path, custom_alerts=ALERTS)
    for _ in range(40):
        stage.log(loss=1.0, other=1.0)
    made = diagnose(open_run(tmp_path / "diagnostics"))
    assert same(said(tmp_path / "diagnostics"), made.findings) and len(made.findings) >= 2
    assert made.postmortem["exit_reason"] == "unfinished"
    stage.end()


@pytest.mark.usefixtures("reports")
def test_a_torn_last_line_is_no_record(tmp_path):
    stage = Stage(tmp_path, custom_alerts=ALERTS)
    for _ in range(40):
        stage.log(loss=1.0)
    stage.end()
    with (tmp_path / "diagnostics" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "time": 1.0, "phase": "tra')
    made = diagnose(open_run(tmp_path / "diagnostics"))
    assert same(said(tmp_path / "diagnostics"), made.findings) and made.records == 40


# Real runs


@pytest.mark.slow
def test_a_healthy_sft_run(tmp_path):
    train("sft", tmp_path, callbacks=[DiagnosticsCallback()], max_steps=40, save_strategy="steps", save_steps=20)
    made = check(tmp_path / "diagnostics")
    assert made.run.trainer == "sft" and made.run.confidence == 1
    assert (made.records, made.last_step) == (40, 40)
    assert made.postmortem["exit_reason"] == "completed"
    assert [(found.step, found.finite) for found in made.checkpoints] == [(20, True), (40, True)]
    assert made.advice.go_on.step == 40


@pytest.mark.slow
def test_a_dpo_run_with_a_learning_rate_far_too_high(tmp_path):
    options = {"custom_alerts": ["dpo: rewards/margins > 1000 -> low: large"], "disable": ["dpo_saturated_*"]}
    train("dpo", tmp_path, callbacks=[DiagnosticsCallback(**options)], max_steps=80, learning_rate=0.5)
    made = check(tmp_path / "diagnostics")
    live = (tmp_path / "diagnostics" / "reports" / "run_report.md").read_text()
    assert live == write_report(tmp_path / "again", made)[0].read_text()
    assert "lr_far_too_high" in {finding.rule for finding in made.findings}
    assert not any(name.startswith("dpo_saturated_") for name in made.coverage)


@pytest.mark.slow
def test_a_run_that_was_resumed_twice_with_other_arguments(tmp_path):
    saving = {"save_strategy": "steps", "save_steps": 20}
    alert = ["all: value > config.learning_rate for 3 steps -> low: loss is {value:.2f}".replace("value >", "loss >")]
    for resume, steps, rate, alerts in ((None, 30, 1e-3, alert), (20, 60, 0.1, alert), (40, 90, 1e-3, [])):
        callbacks = [DiagnosticsCallback(custom_alerts=alerts)]
        checkpoint = str(tmp_path / f"checkpoint-{resume}") if resume else None
        train("sft", tmp_path, checkpoint, callbacks, max_steps=steps, learning_rate=rate, **saving)
    made = check(tmp_path / "diagnostics")
    assert len(list((tmp_path / "diagnostics").glob("run_metadata_start*.json"))) == 3
    assert (made.records, made.last_step) == (90, 90)
    # from an earlier checkpoint than the resume before
    callbacks = [DiagnosticsCallback(custom_alerts=alert)]
    train("sft", tmp_path, str(tmp_path / "checkpoint-20"), callbacks, max_steps=70, learning_rate=1e-4, **saving)
    made = check(tmp_path / "diagnostics")
    assert (made.records, made.last_step) == (70, 70)


# Recorded runs


def arguments(label, folder):
    """Training arguments of a class with the name of the trainer's own, which say what the run's said."""
    config, name = label["config"], index()["trainers"][label["trainer"]]["configs"][0]
    methods = {
        "to_dict": lambda self: config,
        "get_warmup_steps": lambda self, max_steps: config.get("warmup_steps", 0),
        "world_size": config.get("world_size", 1),
    }
    return type(name, (TrainingArguments,), methods)(output_dir=str(folder), use_cpu=True, report_to="none")


def relive(label, records, folder, monkeypatch):
    """Hand a recorded run to the callback, log by log, at the times of that day."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(callback, "time", SimpleNamespace(time=lambda: clock.now))
    monkeypatch.setattr(callback, "trl_version", lambda: label["trl_version"])
    args, config = arguments(label, folder), label["config"]
    watching = DiagnosticsCallback(enable_live_warnings=False)
    state = TrainerState(max_steps=config.get("max_steps", 0), logging_steps=config.get("logging_steps", 500))
    control = TrainerControl()
    watching.on_train_begin(args, state, control)
    for record in records:
        state.global_step, clock.now = record.step, record.time
        watching.on_log(args, state, control, logs=dict(record.metrics))
    watching.on_train_end(args, state, control)
    assert watching.broken == {}


SOME = ("nan_weights__grpo__0", "lr_too_high__dpo__0", "healthy__sft__0", "overfit__sft__0", "lr_zero__ppo__0")


def check_recorded(path, folder, monkeypatch):
    label, records = corpus.read_run(path)
    relive(label, records, folder, monkeypatch)
    made = check(folder / "diagnostics")
    assert made.run.trainer == label["trainer"]
    return label, records, made


@pytest.mark.usefixtures("reports")
@pytest.mark.parametrize("name", SOME)
def test_a_recorded_run(name, tmp_path, monkeypatch):
    label, records, made = check_recorded(corpus.FOLDER / f"{name}{corpus.SUFFIX}", tmp_path, monkeypatch)
    config = {**label["config"], "max_steps": label["config"].get("max_steps", 0)}
    assert same(corpus.replay({**label, "config": config}, records, builtin_rules()), made.findings)


@pytest.mark.slow
@pytest.mark.usefixtures("reports")
def test_every_recorded_run(tmp_path, monkeypatch):
    """One seed of each; all of them with `ALL_SEEDS=1`, which takes a few minutes."""
    files = sorted(corpus.FOLDER.glob(f"*{corpus.SUFFIX}"))
    recipes = {path.name.rpartition("__")[0]: path for path in reversed(files)}
    chosen = files if "ALL_SEEDS" in os.environ else recipes.values()
    assert len(chosen) > 150
    for path in chosen:
        check_recorded(path, tmp_path / path.name, monkeypatch)
