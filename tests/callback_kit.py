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

"""A trainer, a folder and what is logged go in; a training with the callback, and what it left, come out."""

import json
import math
from pathlib import Path

import pytest
import tiny
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState
from trl import SFTConfig

from trl_diagnostics import Engine, Finding, Record


KL_ALERT = "all: `boom` > 0.5 for 1 steps -> high: boom at {value:.1f}"
LOSS_ALERT = "all: loss > -1 for 3 steps -> high: loss is {value:.1f}"
CPU = {"use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1}


def train(kind, folder, callback=None, others=(), resume=None, **overrides):
    trainer = tiny.make_trainer(kind, folder, [*([callback] if callback else []), *others], **overrides)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def lines(folder, name):
    file = Path(folder) / "diagnostics" / name
    return (
        [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
        if file.exists()
        else []
    )


def all_records(folder):
    return [Record.from_json(line) for line in lines(folder, "metrics.jsonl")]


def records(folder):
    """Those of the training itself."""
    return [record for record in all_records(folder) if record.phase != "preflight"]


def findings(folder):
    return [Finding.from_json(line) for line in lines(folder, "findings.jsonl")]


def started(found):
    return [(finding.rule, finding.step) for finding in found if finding.state == "started"]


def without_resume(found):
    """Without those about the resume itself, for a changed folder or a new commit."""
    return [finding for finding in found if not finding.rule.startswith("resume_")]


def messages(caplog, start=""):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(start)]


def replay(callback, folder):
    """What a new engine says about the records on disk."""
    engine = Engine(callback.rules, callback.engine.trainer, callback.engine.config, callback.metric_map)
    return [finding.to_json() for record in all_records(folder) for finding in engine.update(record)]


def bad(found, least=("critical", "high", "medium", "low")):
    return [finding.rule for finding in found if finding.severity in least]


def problems(found):
    """Without those that say that something is normal."""
    return [finding for finding in found if finding.severity != "info"]


class Stage:
    """A training run without a trainer: logs are handed to the callback as the Trainer hands them."""

    def __init__(self, callback, folder, config=SFTConfig, **overrides):
        self.callback, self.step = callback, 0
        self.args = config(output_dir=str(folder), **(CPU | overrides))
        self.state = TrainerState(max_steps=1000, logging_steps=self.args.logging_steps, num_train_epochs=3)
        self.control = TrainerControl()
        callback.on_train_begin(self.args, self.state, self.control)

    def log(self, logs, **kwargs):
        self.state.global_step += 1
        self.callback.on_log(self.args, self.state, self.control, logs=logs, **kwargs)

    def end(self):
        self.callback.on_train_end(self.args, self.state, self.control)


class At(TrainerCallback):
    """Does something to the model at the begin of a step."""

    def __init__(self, step, action):
        self.step, self.action = step, action

    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step == self.step - 1:
            self.action(model)


def poison(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)


class StopsAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def write_rule(folder, name, **fields):
    folder.mkdir(exist_ok=True)
    fields = {
        "severity": "high",
        "status": "stable",
        "metric": "'`boom`'",
        "condition": '"> 0.5 for 1 steps"',
    } | fields
    body = "\n".join(f"{key}: {value}" for key, value in fields.items())
    text = f'name: {name}\ntrainers: [all]\n{body}\nmin_steps: 2\nmessage: "boom at {{value:.1f}}"\n'
    (folder / f"{name}.yaml").write_text(text)
