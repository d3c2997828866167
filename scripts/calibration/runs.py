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

"""Recorded runs and rules go in; each run comes out with what was said about it and whether that was right."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from failure_lab import corpus

from trl_diagnostics.engine.finding import Finding, Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.metrics.names import MetricMap


TUNED, HELD_OUT = "tuned", "held-out"


def half_of(seed: int) -> str:
    """Which half of the corpus a run with this seed belongs to."""
    return HELD_OUT if seed >= corpus.FIRST_HELD_OUT else TUNED


@dataclass(frozen=True, kw_only=True)
class Judged:
    """
    A recorded run and what the rules say about it.

    Args:
        name (`str`):
            Recipe of the run.
        seed (`int`):
            From `corpus.FIRST_HELD_OUT` on it belongs to the half that is held out.
        trainer (`str`):
            Trainer.
        fault (`str`, *optional*):
            Kind of fault; `None` for a healthy run.
        onset (`int`, *optional*, defaults to `1`):
            Optimizer step of the first log that can show the fault.
        expected (`tuple[str, ...]`, *optional*):
            Rules that are the right answer.
        symptoms (`tuple[str, ...]`, *optional*):
            Rules that may join.
        low_only (`bool`, *optional*, defaults to `False`):
            Whether all right answers are rules of low severity, so that no warning can be asked for.
        replayed (`bool`, *optional*, defaults to `False`):
            Whether its logs were computed instead of trained.
        hidden (`bool`, *optional*, defaults to `False`):
            Whether the probes are needed to see the fault.
        logging_steps (`int`, *optional*, defaults to `1`):
            Optimizer steps per log.
        logs (`tuple[int, ...]`, *optional*):
            Optimizer steps of the logs of training; 0 for what was seen before it.
        records (`int`, *optional*, defaults to `0`):
            Number of all records.
        findings (`tuple[Finding, ...]`, *optional*):
            Findings that start, in order.
    """

    name: str
    seed: int
    trainer: str
    fault: str | None = None
    onset: int = 1
    expected: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    low_only: bool = False
    replayed: bool = False
    hidden: bool = False
    logging_steps: int = 1
    logs: tuple[int, ...] = ()
    records: int = 0
    findings: tuple[Finding, ...] = ()

    @property
    def half(self) -> str:
        """Which half of the corpus it belongs to."""
        return half_of(self.seed)

    @property
    def kind(self) -> str:
        """Kind of fault; healthy runs are of one kind per trainer."""
        return self.fault or f"healthy {self.trainer}"

    @property
    def warnings(self) -> list[Finding]:
        """Findings of medium severity or above: what a user is warned about."""
        return [finding for finding in self.findings if finding.level >= Severity.MEDIUM]

    @property
    def stops(self) -> list[Finding]:
        """Findings at which `stop_on_critical=True` ends the run."""
        return [one for one in self.findings if one.status == "stable" and one.level >= Severity.HIGH]

    @property
    def hits(self) -> list[Finding]:
        """Findings that name the fault. One from before the fault is none of them, even under the right name."""
        return [one for one in self.findings if one.rule in self.expected and one.step >= self.onset]

    @property
    def caught(self) -> bool:
        """Whether a warning names the fault."""
        return any(hit.level >= Severity.MEDIUM for hit in self.hits)

    @property
    def remarked(self) -> bool:
        """Whether only a finding of low severity names the fault."""
        return not self.caught and any(hit.level == Severity.LOW for hit in self.hits)

    @property
    def named_first(self) -> bool:
        """Whether the first warning names the fault."""
        return bool(self.warnings) and self.warnings[0] in self.hits

    @property
    def right_first(self) -> bool:
        """Whether the first finding that counts names the fault. Remarks count where no warning can be asked for."""
        least = Severity.LOW if self.low_only else Severity.MEDIUM
        first = next((one for one in self.findings if one.level >= least), None)
        return first in self.hits

    @property
    def false(self) -> list[Finding]:
        """Warnings in a healthy run, before the fault, or about something that the fault does not cause."""
        fine = {*self.expected, *self.symptoms}
        return [one for one in self.warnings if not self.fault or one.rule not in fine or one.step < self.onset]

    @property
    def delay(self) -> tuple[int, int] | None:
        """Logs and optimizer steps from the first log that can show the fault to the finding that names it."""
        hit = next((hit for hit in self.hits if hit.level > Severity.INFO), None)
        if hit is None:
            return None
        possible = [step for step in self.logs if step >= self.onset] or [hit.step]
        return sum(step < hit.step for step in possible), hit.step - possible[0]

    def fired(self, rule: str) -> bool:
        """Whether a rule said anything."""
        return any(finding.rule == rule for finding in self.findings)


def _label(label: dict[str, Any]) -> dict[str, Any]:
    """The label with the right answers as the table has them now."""
    # only now: the recipes import torch and transformers, which takes seconds
    from failure_lab.hidden import RECIPES as HIDDEN
    from failure_lab.recipe import label_of
    from failure_lab.table import RECIPES

    recipe = RECIPES.get(label["name"])
    known = label_of(recipe, label["seed"]) if recipe else {}
    return label | known | {"hidden": recipe in HIDDEN}


def _low_only(expected: list[str], rules: list[Rule]) -> bool:
    """Whether these names are of rules of low severity, all that are known."""
    severities = [rule.severity for rule in rules if rule.name in expected]
    return max(severities, default=Severity.MEDIUM) <= Severity.LOW


def judge(path: Path, rules: list[Rule], only_for: set[str] | None = None) -> Judged:
    """
    Replay one run.

    Args:
        path (`Path`):
            File of the run.
        rules (`list[Rule]`):
            All rules that take part.
        only_for (`set[str]`, *optional*):
            Names of the rules whose findings count; the others only silence them.
    """
    label, records = corpus.read_run(path)
    label = _label(label)
    metric_map = MetricMap(label["trainer"], label["trl_version"])
    findings = [one for one in corpus.replay(label, records, rules) if one.state == "started"]
    return Judged(
        name=label["name"],
        seed=label["seed"],
        trainer=label["trainer"],
        fault=label["fault"],
        onset=1 if label["onset"] is None else label["onset"],
        expected=tuple(label["expected"]),
        symptoms=tuple(label["symptoms"]),
        low_only=_low_only(label["expected"], rules),
        replayed=label["replayed"],
        hidden=label["hidden"],
        logging_steps=label["config"].get("logging_steps", metric_map.defaults.get("logging_steps", 1)),
        logs=tuple(one.step for one in records if one.phase in ("preflight", "train")),
        records=len(records),
        findings=tuple(one for one in findings if only_for is None or one.rule in only_for),
    )


def files(folder: Path, only: str = "*", half: str | None = None) -> list[Path]:
    """Files of the runs whose name matches a glob, of one half or of both."""
    found = []
    for path in sorted(folder.glob(f"*{corpus.SUFFIX}")):
        name, _, seed = path.name.removesuffix(corpus.SUFFIX).rpartition("__")
        if fnmatchcase(name, only) and half in (None, half_of(int(seed))):
            found.append(path)
    return found


def judge_all(
    folder: Path, rules: list[Rule], only: str = "*", half: str | None = None, only_for: set[str] | None = None
) -> Iterator[Judged]:
    """[`judge`] of each of [`files`]."""
    return (judge(path, rules, only_for) for path in files(folder, only, half))


def with_causes(rules: Iterable[Rule], names: set[str]) -> list[Rule]:
    """The named rules and those that silence them, directly or not."""
    known = {rule.name: rule for rule in rules}
    todo, needed = list(names), set()
    while todo:
        name = todo.pop()
        if name in known and name not in needed:
            needed.add(name)
            todo += known[name].unless
    return [rule for rule in known.values() if rule.name in needed]
