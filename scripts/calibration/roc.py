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

"""A rule with a tuned number goes in, the same rule with other numbers and how often each is right come out."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from calibration.measures import Rate, rate
from calibration.runs import HELD_OUT, TUNED, Judged, judge_all
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.engine.tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Function,
    Math,
    Metric,
    Not,
    Number,
    Statistic,
    Sum,
    Test,
    children,
    walk,
)
from trl_diagnostics.metrics.names import MetricMap


GRID = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
SMALLEST = 1e-3  # a smaller number says "zero but for rounding"
AROUND_ONE = (0.75, 2.0)

Node = Sum | Test


def rebuilt(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with some nodes changed; what lies below a changed node is left alone."""
    new = change(node)
    if new is not node:
        return new
    match node:
        case Math():
            return replace(node, argument=rebuilt(node.argument, change))
        case Arithmetic() | Comparison():
            return replace(node, left=rebuilt(node.left, change), right=rebuilt(node.right, change))
        case Not():
            return replace(node, item=rebuilt(node.item, change))
        case AllOf() | AnyOf():
            return replace(node, items=tuple(rebuilt(item, change) for item in node.items))
    return node


def _looks_at(node: Node, metric: str) -> bool:
    return any(
        isinstance(part, Metric | Function)
        and part.metric in ("value", metric)
        or isinstance(part, Statistic)
        and part.name != "count"
        and part.metric in ("value", metric)
        for part in walk(node)
    )


def _numbers(node: Node, factors: bool) -> list[float]:
    """Numbers of a comparison outside `sqrt(...)` and the like: those that multiply or divide, or the others."""
    if isinstance(node, Math):
        return []
    factor = isinstance(node, Arithmetic) and node.operator in "*/"
    own = [child.value for child in children(node) if isinstance(child, Number) and factor == factors]
    below = [number for child in children(node) for number in _numbers(child, factors)]
    return [number for number in own if abs(number) >= SMALLEST] + below


def decisive(rule: Rule) -> Comparison | Function | None:
    """The first comparison or function that looks at the rule's own metric and has a number that may be another."""
    for node in walk(rule.condition.test):
        inexact = isinstance(node, Comparison) and node.operator not in ("==", "!=")
        if inexact and _looks_at(node, rule.metric) and tuned_number(node) is not None:
            return node
        if isinstance(node, Function) and node.numbers and _looks_at(node, rule.metric):
            return node
    return None


def tuned_number(node: Comparison | Function) -> float | None:
    """The number of a decisive node: the first factor, or else the first number."""
    if isinstance(node, Function):
        return node.numbers[0]
    return next(iter(_numbers(node, True) + _numbers(node, False)), None)


def scaled(number: float, factor: float) -> float:
    """The number times a factor. Near 1 (`1.2 * baseline`, a share of 0.95) its distance from 1 is what is scaled."""
    low, high = AROUND_ONE
    near_one = low <= number <= high and number != 1
    return round(1 + factor * (number - 1) if near_one else factor * number, 6)


def variant(rule: Rule, factor: float) -> Rule:
    """
    The rule under another name and with another number. The same number moves in all comparisons that look at the
    rule's own metric: some conditions have one branch for frequent logs and one for rare ones.
    """
    node = decisive(rule)
    number = tuned_number(node)

    def other(part: Node) -> Node:
        return Number(scaled(number, factor)) if part == Number(number) else part

    def change(part: Node) -> Node:
        if isinstance(part, Function) and part == node:
            return replace(part, numbers=tuple(scaled(one, factor) for one in part.numbers))
        if isinstance(part, Comparison) and isinstance(node, Comparison) and _looks_at(part, rule.metric):
            return replace(part, left=rebuilt(part.left, other), right=rebuilt(part.right, other))
        return part

    condition = replace(rule.condition, test=rebuilt(rule.condition.test, change))
    return replace(rule, name=variant_name(rule, factor), condition=condition, renamed_from=())


def variant_name(rule: Rule, factor: float) -> str:
    """Name of a variant; the rule as it is keeps its own."""
    return rule.name if factor == 1 else f"{rule.name} x{factor:g}"


@dataclass(frozen=True)
class Point:
    """
    One variant of a rule on one half.

    Args:
        number (`float`):
            The tuned number.
        factor (`float`):
            By how much it differs from the rule's own.
        caught ([`Rate`]):
            Of the runs that expect the rule, those in which it fires.
        healthy ([`Rate`]):
            Of the healthy runs of its trainers, those in which it fires.
        elsewhere ([`Rate`]):
            Of the runs with a fault that neither expects it nor has it as a symptom, those in which it fires.
    """

    number: float
    factor: float
    caught: Rate
    healthy: Rate
    elsewhere: Rate


def _point(rule: Rule, factor: float, runs: list[Judged]) -> Point:
    name = variant_name(rule, factor)
    expecting = [run for run in runs if rule.name in run.expected]
    others = [run for run in runs if run.fault and rule.name not in (*run.expected, *run.symptoms)]
    caught = [any(one.rule == name and one.step >= run.onset for one in run.findings) for run in expecting]
    return Point(
        number=scaled(tuned_number(decisive(rule)), factor),
        factor=factor,
        caught=rate(zip(expecting, caught, strict=True)),
        healthy=rate((run, run.fired(name)) for run in runs if not run.fault),
        elsewhere=rate((run, run.fired(name)) for run in others),
    )


def curve(rule: Rule, runs: list[Judged]) -> list[Point]:
    """One point per number of the grid."""
    applies = {trainer: rule.applies_to(MetricMap(trainer).family) for trainer in {run.trainer for run in runs}}
    mine = [run for run in runs if applies[run.trainer]]
    return [_point(rule, factor, mine) for factor in GRID]


def curves(folder: Path, rules: list[Rule], chosen: set[str], only: str = "*") -> dict[str, dict[str, list[Point]]]:
    """
    Curves of all chosen rules that have a tuned number and that a recorded fault expects.

    Args:
        folder (`Path`):
            Recorded runs.
        rules (`list[Rule]`):
            All rules: they silence the variants as they silence the rule itself.
        chosen (`set[str]`):
            Names of the rules to vary.
        only (`str`, *optional*, defaults to `"*"`):
            Glob of the runs.

    Returns:
        `dict`: rule to half to points.
    """
    expected = chosen.intersection(name for run in judge_all(folder, [], only) for name in run.expected)
    varied = [rule for rule in rules if rule.name in expected and decisive(rule)]
    # all variants in one replay: they share the statistics of the metrics, and silence nobody
    variants = [variant(rule, factor) for rule in varied for factor in GRID if factor != 1]
    runs = list(judge_all(folder, [*rules, *variants], only))
    halves = {half: [run for run in runs if run.half == half] for half in (TUNED, HELD_OUT)}
    return {rule.name: {half: curve(rule, mine) for half, mine in halves.items()} for rule in varied}
