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

"""A parsed condition and the histories it looks at go in, a function that gives its three-valued verdict comes out."""

import operator
from collections.abc import Callable
from functools import partial

from .history import History, mad, mean, median
from .tree import (
    AllOf,
    AnyOf,
    Comparison,
    Config,
    Function,
    Metric,
    Not,
    Statistic,
    Test,
    effort,
    walk,
)
from .value import Scope, Value, bind_sum, is_constant, settles


Verdict = Callable[[], bool | None]  # None: not enough data to say

COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
# a last point that is so against the bound decides what the extreme of the window is against it
CONTRADICTS = {
    "max": {"<": operator.ge, "<=": operator.gt, "==": operator.gt},
    "min": {">": operator.le, ">=": operator.lt, "==": operator.lt},
}
LIGHT = 8.0  # effort of a test that may be asked before cheaper ones
SPIKE_POINTS = 5  # a spike is looked for among the last 5 points


def bind_test(node: Test, scope: Scope) -> Verdict:
    """Bind a condition tree to histories."""
    match node:
        case Comparison():
            return _comparison(node, scope)
        case Function():
            return FUNCTIONS[node.name](node, scope.history(node.metric), scope)
        case Not():
            inner = bind_test(node.item, scope)
            return lambda: None if (verdict := inner()) is None else not verdict
        case AllOf():
            # cheap tests first: most logs are healthy, so that one test is false and the others need not be asked
            items = sorted(node.items, key=lambda item: effort(item, scope.window))
            light = sum(effort(item, scope.window) < LIGHT for item in items)
            return _all([bind_test(item, scope) for item in items], light)
        case AnyOf():
            return _any([bind_test(item, scope) for item in node.items])


def numbers_of(tree: Test, scope: Scope) -> dict[str, Value]:
    """Each number that a condition looks at, by its name in the condition: the evidence of a finding."""
    numbers = {}
    for node in walk(tree):
        match node:
            case Config():
                numbers[f"config.{node.name}"] = bind_sum(node, scope)
            case Metric():
                numbers[node.metric] = bind_sum(node, scope)
            case Statistic():
                n = f", {node.n}" if node.n else ""
                numbers[f"{node.name}({node.metric}{n})"] = bind_sum(node, scope)
            case Function():
                numbers[node.metric] = bind_sum(Metric(node.metric), scope)
                if node.name in ("drop", "rise"):
                    baseline = Statistic("baseline", node.metric, None)
                    numbers[f"baseline({node.metric})"] = bind_sum(baseline, scope)
    return numbers


def _comparison(node: Comparison, scope: Scope) -> Verdict:
    compare, left = COMPARE[node.operator], bind_sum(node.left, scope)
    if is_constant(node.right):  # the common case, one call less
        bound = bind_sum(node.right, scope)()
        if bound is None:
            return lambda: None
        if isinstance(node.left, Statistic) and node.operator in CONTRADICTS.get(node.left.name, ()):
            return _extreme_bounded(node, bound, left, scope)
        return lambda: None if (value := left()) is None else compare(value, bound)
    right = bind_sum(node.right, scope)
    if settles(node.right):
        return _settling(compare, left, right)

    def verdict() -> bool | None:
        value = left()
        if value is None:
            return None
        other = right()
        return None if other is None else compare(value, other)

    return verdict


def _settling(compare: Callable, left: Value, right: Value) -> Verdict:
    bound = None

    def verdict() -> bool | None:
        nonlocal bound
        if (value := left()) is None:
            return None
        if bound is None and (bound := right()) is None:
            return None
        return compare(value, bound)

    return verdict


def _extreme_bounded(node: Comparison, bound: float, left: Value, scope: Scope) -> Verdict:
    """`max(x, n) < bound`: when the last point alone contradicts it, the others need not be looked at."""
    history, n = scope.history(node.left.metric), node.left.n or scope.window
    compare, contradicts = COMPARE[node.operator], CONTRADICTS[node.left.name][node.operator]

    def verdict() -> bool | None:
        values = history.values
        if len(values) >= n and history.unbroken and contradicts(values[-1], bound):
            return False
        return None if (value := left()) is None else compare(value, bound)

    return verdict


def _all(verdicts: list[Verdict], light: int) -> Verdict:
    """
    The order in which the tests are asked does not change the result, only how soon a false one is found. One that was
    false is probably false at the next point too, so it goes first, unless it is one of those that take long.
    """

    def verdict() -> bool | None:
        result = verdicts[0]()
        if result is False:
            return False
        for i, item in enumerate(verdicts[1:], 1):
            one = item()
            if one is False:
                if i < light:
                    verdicts.insert(0, verdicts.pop(i))
                return False
            if one is None:
                result = None
        return result

    return verdict


def _any(verdicts: list[Verdict]) -> Verdict:
    def verdict() -> bool | None:
        result = False
        for item in verdicts:
            one = item()
            if one:
                return True
            if one is None:
                result = None
        return result

    return verdict


def _between(node: Function, history: History, scope: Scope) -> Verdict:
    low, high = node.numbers
    inside = node.name == "range"
    number = bind_sum(Metric(node.metric), scope)
    return lambda: None if (value := number()) is None else (low <= value <= high) == inside


def _change(node: Function, history: History, scope: Scope) -> Verdict:
    """`drop` and `rise`: the mean of the window against the mean of the baseline window."""
    n, (size,), sign = scope.window, node.numbers, 1 if node.name == "rise" else -1
    scope.sized(node.metric, n)
    history.baseline_size = max(history.baseline_size, n)

    def verdict() -> bool | None:
        before, now = history.baseline(n), history.mean(n)
        if before is None or now is None or history.past_warmup < 2 * n or (node.percent and before == 0):
            return None
        return sign * (now - before) >= (size / 100 * abs(before) if node.percent else size)

    return verdict


def _plateau(node: Function, history: History, scope: Scope) -> Verdict:
    n, (size,), half = scope.window, node.numbers, scope.window // 2
    scope.sized(node.metric, n)

    def verdict() -> bool | None:
        first, second = history.window(half, n - half), history.window(half)
        if not first or not second:
            return None
        a, b = mean(first), mean(second)
        return abs(a - b) <= (size / 100 * max(abs(a), abs(b)) if node.percent else size)

    return verdict


def _spike(node: Function, history: History, scope: Scope) -> Verdict:
    n, (factor,) = scope.window, node.numbers
    scope.sized(node.metric, n + SPIKE_POINTS)

    def verdict() -> bool | None:
        before, now = history.window(n, SPIKE_POINTS), history.window(SPIKE_POINTS)
        if not before or not now:
            return None
        baseline = mean(before)
        return max(now) > factor * baseline if baseline > 0 else None

    return verdict


def _outlier(node: Function, history: History, scope: Scope) -> Verdict:
    n, (k,) = scope.window, node.numbers
    scope.sized(node.metric, n + 1)

    def verdict() -> bool | None:
        before, last = history.window(n, 1), history.last()
        if not before or last is None:
            return None
        return last > median(before) + k * mad(before)

    return verdict


def _trend(node: Function, history: History, scope: Scope) -> Verdict:
    n, size = scope.window, node.numbers[0] if node.numbers else 0.0
    sign = 1 if node.direction == "up" else -1
    scope.sized(node.metric, n)

    def verdict() -> bool | None:
        trend = history.trend(n)
        if trend is None:
            return None
        change = sign * trend.slope * (n - 1)
        # the first term keeps the rounding noise of a constant series from being an exact line
        least = max(1e-9 * abs(trend.start), size / 100 * abs(trend.start) if node.percent else size)
        return change > least and sign * trend.slope > 3 * trend.error

    return verdict


def _nonfinite(node: Function, history: History, scope: Scope) -> Verdict:
    return lambda: history.values[-1] is not None and not history.unbroken if history.values else None


def _null(node: Function, history: History, scope: Scope) -> Verdict:
    return lambda: history.values[-1] is None if history.values else None


def _frozen(node: Function, history: History, scope: Scope) -> Verdict:
    n = scope.window
    scope.sized(node.metric, n)
    return partial(history.frozen, n)


def _missing(node: Function, history: History, scope: Scope) -> Verdict:
    n, records = scope.window, scope.records
    return lambda: records() - history.last_record >= n if records() >= n else None


FUNCTIONS = {
    "range": _between,
    "outside": _between,
    "drop": _change,
    "rise": _change,
    "plateau": _plateau,
    "spike": _spike,
    "outlier": _outlier,
    "trend": _trend,
    "nonfinite": _nonfinite,
    "null": _null,
    "frozen": _frozen,
    "missing": _missing,
}
