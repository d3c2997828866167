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

"""A finding and the rule behind it go in, the numbers that its metric was held against come out."""

from collections.abc import Iterator

from ..engine.finding import Finding
from ..engine.rule import Rule
from ..engine.tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Config,
    Function,
    Math,
    Metric,
    Number,
    Statistic,
    Sum,
    Test,
    walk,
)
from ..engine.value import MATH
from ..engine.verdict import COMPARE


ABOVE, BELOW, AT = "above", "below", "at"
SIDES = {">": ABOVE, ">=": ABOVE, "<": BELOW, "<=": BELOW, "==": AT, "!=": AT}
MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}
LEVELS = {"mean", "median", "min", "max", "last"}  # statistics that lie on the curve itself
EXTREMES = {"best", "worst"}  # that have lain on it
OPERATORS = {"+": float.__add__, "-": float.__sub__, "*": float.__mul__}


def thresholds(rule: Rule, finding: Finding) -> list[float]:
    """
    The levels that the metric of a finding crossed, as they were when it was found; empty where the condition has none.
    Of several levels that it had to be above, or below, the hardest counts.

    Args:
        rule ([`Rule`]):
            Rule that made the finding.
        finding ([`Finding`]):
            Its evidence has the numbers that the condition looked at.
    """
    hardest: dict[str, float] = {}
    for side, level in _levels(rule.condition.test, finding, {"value", rule.metric, finding.metric}):
        known = hardest.setdefault(side, level)
        hardest[side] = max(known, level) if side == ABOVE else min(known, level)
    return list(dict.fromkeys(hardest.values()))


def _levels(test: Test, finding: Finding, own: set[str]) -> Iterator[tuple[str, float]]:
    """Levels with the side of them on which the metric was."""
    match test:
        case AllOf() | AnyOf():
            for item in test.items:
                yield from _levels(item, finding, own)
        case Comparison():
            yield from _compared(test, finding, own)
        case Function() if test.metric in own:
            yield from _function(test, finding)


def _compared(test: Comparison, finding: Finding, own: set[str]) -> Iterator[tuple[str, float]]:
    left, right = (_number(side, finding) for side in (test.left, test.right))
    if left is None or right is None or not COMPARE[test.operator](left, right):
        return  # the other side of an `or` decided
    if _is_level(test.left, test.right, own):
        yield SIDES[test.operator], right
    elif _is_level(test.right, test.left, own):
        yield SIDES[MIRRORED.get(test.operator, test.operator)], left


def _is_level(curve: Sum, level: Sum, own: set[str]) -> bool:
    """Whether one side of a comparison lies on the curve and the other does not move with it."""
    moves = any(_lies_on_curve(node, own, LEVELS) for node in walk(level))
    return _lies_on_curve(curve, own, LEVELS | EXTREMES) and not moves


def _lies_on_curve(node: Sum, own: set[str], statistics: set[str]) -> bool:
    return (isinstance(node, Metric) and node.metric in own) or (
        isinstance(node, Statistic) and node.name in statistics and node.metric in own
    )


def _function(test: Function, finding: Finding) -> Iterator[tuple[str, float]]:
    if test.name in ("range", "outside"):
        yield from zip((ABOVE, BELOW), test.numbers, strict=True)
    elif test.name in ("drop", "rise"):
        before = finding.evidence.get(f"baseline({test.metric})")
        if before is not None:
            size = test.numbers[0] / 100 * abs(before) if test.percent else test.numbers[0]
            yield (ABOVE, before + size) if test.name == "rise" else (BELOW, before - size)


def _number(node: Sum, finding: Finding) -> float | None:
    match node:
        case Number():
            return node.value
        case Config():
            return finding.evidence.get(f"config.{node.name}")
        case Metric():
            return finding.evidence.get(finding.metric if node.metric == "value" else node.metric)
        case Statistic():
            n = f", {node.n}" if node.n else ""
            return finding.evidence.get(f"{node.name}({node.metric}{n})")
        case Math():
            inner = _number(node.argument, finding)
            return None if inner is None else MATH[node.name](inner)
        case Arithmetic():
            return _arithmetic(node, _number(node.left, finding), _number(node.right, finding))


def _arithmetic(node: Arithmetic, left: float | None, right: float | None) -> float | None:
    if left is None or right is None:
        return None
    if node.operator == "/":
        return left / right if right else None
    return OPERATORS[node.operator](float(left), float(right))
