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

"""Judged runs go in; rates with their intervals, delays and counts come out."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from calibration.runs import Judged
from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.metrics.names import MetricMap


Z = 1.959963984540054  # 95 % of a normal distribution lie within so many standard deviations
LOGGING_STEPS = (1, 10)
WITHIN = (1, 3, 10)  # logs
# What tests/test_accuracy.py holds the held-out half to.
MIN_NOTICED, MIN_RIGHT_FIRST, MAX_DELAY, MAX_STOPS, MAX_WARNINGS = 0.95, 0.90, 10, 0, 1.0


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; see https://doi.org/10.1080/01621459.1927.10502953."""
    if not total:
        return 0.0, 1.0
    share, spread = hits / total, Z * Z / total
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Rate:
    """
    A share of runs.

    Args:
        hits (`int`):
            Runs with a good outcome.
        total (`int`):
            All runs.
        by_recipe (`float`):
            Mean of the shares of the recipes, so that one with many seeds counts no more than another.
        by_kind (`float`):
            Mean of the shares of the kinds of fault, of which some have many recipes.
    """

    hits: int
    total: int
    by_recipe: float
    by_kind: float

    @property
    def raw(self) -> float:
        """Share of all runs."""
        return self.hits / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share of all runs."""
        return wilson(self.hits, self.total)


def mean_by(key: Callable[[Any], str], outcomes: Iterable[tuple[Any, float]]) -> float:
    """Mean of the means of groups of runs or logs."""
    groups: dict[str, list[float]] = defaultdict(list)
    for run, outcome in outcomes:
        groups[key(run)].append(outcome)
    return fmean(map(fmean, groups.values())) if groups else math.nan


def rate(outcomes: Iterable[tuple[Judged, bool]]) -> Rate:
    """Share of the runs with a good outcome."""
    outcomes = list(outcomes)
    return Rate(
        hits=sum(outcome for _, outcome in outcomes),
        total=len(outcomes),
        by_recipe=mean_by(lambda run: run.name, outcomes),
        by_kind=mean_by(lambda run: run.kind, outcomes),
    )


@dataclass(frozen=True)
class Faults:
    """
    How faulty runs were judged.

    Args:
        noticed ([`Rate`]):
            A warning or a remark of low severity names the fault.
        caught ([`Rate`]):
            A warning does.
        by_stable ([`Rate`]):
            A warning of a stable rule does.
        right_first ([`Rate`]):
            The first warning names it; where only rules of low severity are right, the first warning or remark.
        named_first ([`Rate`]):
            The first warning names it, whatever is right.
        delays (`dict`):
            `logging_steps` to the median delay in logs and in optimizer steps over the runs in which the fault is
            named, and their number.
        delay (`float`):
            Median delay in logs over all of them.
        false (`int`):
            Warnings that neither name the fault nor are a symptom of it.
        misled ([`Rate`]):
            Runs with such a warning.
    """

    noticed: Rate
    caught: Rate
    by_stable: Rate
    right_first: Rate
    named_first: Rate
    delays: dict[int, tuple[float, float, int]]
    delay: float
    false: int
    misled: Rate


def _delays(runs: list[Judged]) -> dict[int, tuple[float, float, int]]:
    found = {}
    for logging_steps in LOGGING_STEPS:
        known = [run.delay for run in runs if run.delay and run.logging_steps == logging_steps]
        if known:
            found[logging_steps] = (*(float(median(one)) for one in zip(*known, strict=True)), len(known))
    return found


def _caught_by_stable(run: Judged) -> bool:
    return any(hit.status == "stable" and hit.level >= Severity.MEDIUM for hit in run.hits)


def faults(runs: Iterable[Judged]) -> Faults:
    """How the faulty ones among these runs were judged."""
    faulty = [run for run in runs if run.fault]
    known = [run.delay[0] for run in faulty if run.delay]
    return Faults(
        noticed=rate((run, run.caught or run.remarked) for run in faulty),
        caught=rate((run, run.caught) for run in faulty),
        by_stable=rate((run, _caught_by_stable(run)) for run in faulty),
        right_first=rate((run, run.right_first) for run in faulty),
        named_first=rate((run, run.named_first) for run in faulty),
        delays=_delays(faulty),
        delay=float(median(known)) if known else math.nan,
        false=sum(len(run.false) for run in faulty),
        misled=rate((run, bool(run.false)) for run in faulty),
    )


def named_within(runs: Iterable[Judged], logs: float) -> Rate:
    """Faulty runs in which the fault is named within so many logs, from the first that can show it."""
    return rate((run, bool(run.delay) and run.delay[0] < logs) for run in runs if run.fault)


@dataclass(frozen=True)
class Healthy:
    """
    How healthy runs were judged.

    Args:
        stopped ([`Rate`]):
            Runs that `stop_on_critical=True` would have ended.
        warned ([`Rate`]):
            Runs with a warning.
        records (`int`):
            Records of all runs.
        warnings (`int`):
            Warnings in them.
        remarks (`int`):
            Findings of low severity in them.
        per_1000 (`float`):
            Warnings per 1,000 records.
        by_recipe (`float`):
            Its mean over the recipes.
    """

    stopped: Rate
    warned: Rate
    records: int
    warnings: int
    remarks: int
    per_1000: float
    by_recipe: float

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the warnings per 1,000 records."""
        low, high = wilson(self.warnings, self.records)
        return 1000 * low, 1000 * high


def healthy(runs: Iterable[Judged]) -> Healthy:
    """How the healthy ones among these runs were judged."""
    fine = [run for run in runs if not run.fault]
    records, warnings = sum(run.records for run in fine), sum(len(run.warnings) for run in fine)
    return Healthy(
        stopped=rate((run, bool(run.stops)) for run in fine),
        warned=rate((run, bool(run.warnings)) for run in fine),
        records=records,
        warnings=warnings,
        remarks=sum(one.level == Severity.LOW for run in fine for one in run.findings),
        per_1000=1000 * warnings / records if records else math.nan,
        by_recipe=mean_by(lambda run: run.name, ((run, 1000 * len(run.warnings) / run.records) for run in fine)),
    )


@dataclass(frozen=True)
class OfRule:
    """
    How one rule did.

    Args:
        rule ([`Rule`]):
            The rule.
        precision ([`Rate`]):
            Of the runs in which it fired, those with a fault that expects it or lists it as a symptom.
        recall ([`Rate`]):
            Of the runs that expect it, those in which it fired. A fault may expect one of several rules.
        healthy (`int`):
            Healthy runs in which it fired.
        healthy_runs (`int`):
            Healthy runs of its trainers.
    """

    rule: Rule
    precision: Rate
    recall: Rate
    healthy: int
    healthy_runs: int


def of_rule(rule: Rule, runs: list[Judged]) -> OfRule:
    """How one rule did in these runs."""
    name = rule.name
    fired = [run for run in runs if run.fired(name)]
    return OfRule(
        rule=rule,
        precision=rate((run, name in run.expected or name in run.symptoms) for run in fired),
        recall=rate((run, any(hit.rule == name for hit in run.hits)) for run in runs if name in run.expected),
        healthy=sum(not run.fault for run in fired),
        healthy_runs=sum(not run.fault and rule.applies_to(MetricMap(run.trainer).family) for run in runs),
    )


def rules_seen(runs: list[Judged], rules: Iterable[Rule]) -> list[OfRule]:
    """How the rules did that fired or should have, in the order of their names."""
    every = (of_rule(rule, runs) for rule in sorted(rules, key=lambda rule: rule.name))
    return [one for one in every if one.precision.total or one.recall.total]


def grouped(runs: Iterable[Judged], key: Callable[[Judged], str]) -> dict[str, list[Judged]]:
    """Runs by a key, sorted by it."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for run in runs:
        groups[key(run)].append(run)
    return dict(sorted(groups.items()))


def never_named(runs: Iterable[Judged]) -> list[str]:
    """Kinds of fault that neither a warning nor a remark names in any of these runs."""
    kinds = grouped((run for run in runs if run.fault), lambda run: run.kind)
    return [kind for kind, members in kinds.items() if not any(run.delay for run in members)]
