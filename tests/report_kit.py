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

"""Records in memory, or a recorded lab run, go in; a `Diagnosis` of them comes out, as `diagnose` makes it of a folder."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from failure_lab import corpus

from trl_diagnostics.diagnosis import Diagnosis
from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import MetricMap


builtin_rules = cache(collect_rules)  # reading them takes longer than any test


@dataclass(frozen=True)
class MemoryRun:
    """A run without a file."""

    kept: list[Record]
    trainer: str = "dpo"
    config: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    path: Path = Path("out/diagnostics")
    kind: str = "run directory"
    trainer_how: str = "its config class"
    confidence: float = 1.0
    trl_version: str | None = "1.16.0"
    notes: tuple[str, ...] = ()

    def records(self):
        return iter(self.kept)


def diagnosed(run, rules=None, **fields) -> Diagnosis:
    """What the rules say about a run, without its folder."""
    rules = builtin_rules() if rules is None else rules
    engine = Engine(rules, run.trainer, run.config, MetricMap(run.trainer, run.trl_version))
    findings = tuple(finding for record in run.records() for finding in engine.update(record))
    last_step = run.kept[-1].step if run.kept else 0
    made = Diagnosis(run, findings, engine.coverage(), engine.records, last_step, rules=tuple(rules))
    return replace(made, **fields)


def lab_run(name: str, **fields) -> MemoryRun:
    """A run that the failure lab recorded."""
    label, records = corpus.read_run(corpus.FOLDER / f"{name}{corpus.SUFFIX}")
    return MemoryRun(records, label["trainer"], label["config"], trl_version=label["trl_version"], **fields)
