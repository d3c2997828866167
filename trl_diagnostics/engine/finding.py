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

"""What goes in and out of the engine: a `Record` is one logged event, a `Finding` is one thing said about it."""

import math
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import Any


class Severity(IntEnum):
    """
    How bad a finding is; comparable, so `severity >= Severity.HIGH` reads as it should.

    - `CRITICAL`: the weights or the run are already worthless.
    - `HIGH`: the run is probably wasted, look now.
    - `MEDIUM`: the result will suffer.
    - `LOW`: worth knowing.
    - `INFO`: something odd-looking that is normal here; said in one sentence in the summary at the end, never before.
    """

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    def __str__(self) -> str:
        return self.name.lower()


class DiagnosticsError(ValueError):
    """
    The one error that reaches the user: a rule, alert, option or file that cannot be used, with where, what and what to
    do.

    Args:
        message (`str`):
            The whole text.
        column (`int`, *optional*):
            Offset in the offending text, counted from 0; set by the condition parser.
    """

    def __init__(self, message: str, column: int | None = None):
        super().__init__(message)
        self.column = column


@dataclass(frozen=True)
class Record:
    """
    One logged event.

    Args:
        step (`int`):
            Optimizer step.
        time (`float`):
            Unix time in seconds.
        phase (`str`):
            `"train"`, `"eval"`, `"probe"`, `"rank"`, `"snapshot"`, `"preflight"`, `"resume"` or `"summary"`.
        metrics (`dict[str, float | None]`):
            Canonical name to value. `None` and non-finite values are signals and are kept.
    """

    step: int
    time: float
    phase: str
    metrics: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """The record as a strict-JSON dictionary: one line of `metrics.jsonl`."""
        return {"step": self.step, "time": self.time, "phase": self.phase, "metrics": json_numbers(self.metrics)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Record":
        """The inverse of [`Record.to_json`]."""
        metrics = {key: from_json_number(value) for key, value in data["metrics"].items()}
        return cls(data["step"], data["time"], data["phase"], metrics)


@dataclass(frozen=True)
class Finding:
    """
    One thing said about a run. An episode gives one finding when it starts and one when it resolves.

    Args:
        rule (`str`):
            Name of the rule.
        severity (`str`):
            `"critical"`, `"high"`, `"medium"`, `"low"` or `"info"`.
        state (`str`):
            `"started"` or `"resolved"`.
        step (`int`):
            Optimizer step of the record that decided.
        first_step (`int`):
            Optimizer step at which the condition became true.
        metric (`str`):
            Metric as the run logs it under its canonical name.
        value (`float` or `None`):
            What the condition looked at: the mean of the window, or the last point where that is not finite.
        message (`str`):
            What is wrong, in one sentence with its numbers.
        why (`str`), fix (`str`):
            What it means and what to change.
        reference (`list[str]`):
            Where mechanism and threshold come from.
        evidence (`dict[str, float | None]`):
            The numbers that decided, by their name in the condition.
        trainer (`str`):
            Trainer type.
        status (`str`):
            Status of the rule: `"stable"`, `"experimental"` or `"deprecated"`.
        cascade_of (`str`, *optional*):
            The critical rule that was already firing when this finding started.
    """

    rule: str
    severity: str
    state: str
    step: int
    first_step: int
    metric: str
    value: float | None
    message: str
    why: str = ""
    fix: str = ""
    reference: list[str] = field(default_factory=list)
    evidence: dict[str, float | None] = field(default_factory=dict)
    trainer: str = "unknown"
    status: str = "stable"
    cascade_of: str | None = None

    @property
    def level(self) -> Severity:
        """The severity as something that can be compared."""
        return Severity[self.severity.upper()]

    def to_json(self) -> dict[str, Any]:
        """The finding as a strict-JSON dictionary: one line of `findings.jsonl`."""
        return {**asdict(self), "value": json_number(self.value), "evidence": json_numbers(self.evidence)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Finding":
        """The inverse of [`Finding.to_json`]."""
        evidence = {key: from_json_number(value) for key, value in data["evidence"].items()}
        return cls(**{**data, "value": from_json_number(data["value"]), "evidence": evidence})


NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def json_number(value: float | None) -> float | str | None:
    """A number that strict JSON can hold: NaN and infinities become `"NaN"`, `"Infinity"`, `"-Infinity"`."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def json_numbers(values: dict[str, float | None]) -> dict[str, float | str | None]:
    """[`json_number`] of each value."""
    return {key: json_number(value) for key, value in values.items()}


def from_json_number(value: float | str | None) -> float | None:
    """The inverse of [`json_number`]."""
    return NON_FINITE[value] if isinstance(value, str) else value
