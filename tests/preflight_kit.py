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

"""A kind of trainer and its overrides go in; what was found before its first step, and the record it was judged by, come out."""

import json
from pathlib import Path

import tiny
from callback_kit import all_records, problems
from transformers import TrainerCallback

from trl_diagnostics import DiagnosticsCallback


class Begun(Exception):
    pass


class Ends(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        raise Begun


def begin(folder, kind, change=None, **overrides):
    """The callback of a training that ended before its first step; `change` changes the trainer first."""
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer(kind, folder, [callback, Ends()], **{"max_steps": 20, **overrides})
    if change is not None:
        change(trainer)
    try:
        trainer.train()
    except Begun:
        pass
    assert callback.broken == {}
    return callback


def said(callback):
    """Rule and message of each finding above info."""
    return [(finding.rule, finding.message) for finding in problems(callback.findings)]


def seen(folder):
    """Metrics of the record of the preflight."""
    (record,) = [record for record in all_records(folder) if record.phase == "preflight"]
    return record.metrics


def report(folder):
    return json.loads((Path(folder) / "diagnostics" / "preflight.json").read_text())
