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

"""Arithmetic over metrics and the histories it looks at go in, a function that gives its number comes out."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .history import History
from .tree import Arithmetic, Config, Math, Metric, Number, Statistic, Sum, walk


Value = Callable[[], float | None]  # None: unknown


@dataclass(frozen=True)
class Scope:
    """
    What the names in a condition stand for.

    Args:
        history (`Callable[[str], History]`):
            History of a metric by its name in the condition.
        config (`Callable[[str], float | None]`):
            Numeric training argument by name.
        window (`int`):
            Window of the rule in logged points.
        records (`Callable[[], int]`):
            How many train records there were, for `missing`.
        step (`Callable[[], int]`):
            Optimizer step of the record being judged.
    """

    history: Callable[[str], History]
    config: Callable[[str], float | None]
    window: int
    records: Callable[[], int]
    step: Callable[[], int]

    def sized(self, metric: str, n: int) -> History:
        """History of a metric that keeps at least `n` points."""
        history = self.history(metric)
        history.size = max(history.size, n)
        return history


def bind_sum(node: Sum, scope: Scope) -> Value:
    """Bind an arithmetic tree to histories."""
    match node:
        case Number():
            value = node.value
            return lambda: value
        case Config():
            argument = scope.config(node.name)
            return lambda: argument
        case Metric(metric="step"):  # of the record, not a mean of step numbers
            return scope.step
        case Metric(metric="time"):
            return scope.history("time").last
        case Metric():
            history, n = scope.sized(node.metric, scope.window), scope.window
            return history.last if n == 1 else history.reader("mean", n)
        case Statistic():
            return _statistic(node, scope)
        case Math():
            value = _math(node.name, bind_sum(node.argument, scope))
        case Arithmetic():
            value = _arithmetic(node, scope)
    if is_constant(node):
        constant = value()
        return lambda: constant
    return value


def is_constant(node: Sum) -> bool:
    """Numbers and training arguments only."""
    return not any(isinstance(part, Metric | Statistic) for part in walk(node))


def settles(node: Sum) -> bool:
    """Numbers, training arguments and baselines only: once known, it never changes again."""
    return all(
        not isinstance(part, Metric) and (not isinstance(part, Statistic) or part.name == "baseline")
        for part in walk(node)
    )


def _statistic(node: Statistic, scope: Scope) -> Value:
    n = node.n or scope.window
    if node.name in ("last", "delta"):
        history = scope.sized(node.metric, 2)
        return history.last if node.name == "last" else history.delta
    if node.name == "baseline":
        history = scope.history(node.metric)
        history.baseline_size = max(history.baseline_size, n)
        return partial(history.baseline, n)
    history = scope.sized(node.metric, n)
    if node.name in ("count", "slope"):
        return partial(history.finite_count if node.name == "count" else history.slope, n)
    return history.reader(node.name, n)


def _math(name: str, argument: Value) -> Value:
    apply = MATH[name]
    return lambda: None if (x := argument()) is None else apply(x)


MATH = {
    "abs": abs,
    "exp": lambda x: math.exp(x) if x < 709 else math.inf,  # the largest double is exp(709.78)
    "log": lambda x: math.log(x) if x > 0 else None,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else None,
}


def _arithmetic(node: Arithmetic, scope: Scope) -> Value:
    left, right, apply = bind_sum(node.left, scope), bind_sum(node.right, scope), ARITHMETIC[node.operator]
    if node.operator != "/" and is_constant(node.left) and (known := left()) is not None:
        # the common case, one call less
        return lambda: None if (b := right()) is None or (result := apply(known, b)) != result else result

    def value() -> float | None:
        a = left()
        if a is None or (b := right()) is None:
            return None
        try:
            result = apply(a, b)
        except ZeroDivisionError:
            return None
        return result if result == result else None  # not NaN

    return value


ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
