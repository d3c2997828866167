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

"""The tree of a condition: plain data that the parser builds and the verdicts are bound from."""

from collections.abc import Iterator
from dataclasses import dataclass


# every record has these; step is the optimizer step, time is in seconds
OF_THE_RECORD = ("step", "time")

# a window is kept in memory and in every checkpoint
MAX_POINTS = 10_000

# shortest window in which a function or statistic can say anything
SHORTEST = {"frozen": 2, "plateau": 2, "outlier": 3, "trend": 5, "slope": 5, "std": 2, "mad": 3}

# measured: what one more point of the window adds, compared with looking at the last point
EFFORT_PER_POINT = {"mean": 0.05, "min": 0.05, "max": 0.05, "std": 0.2, "median": 0.2, "mad": 0.5}
EFFORT_PER_POINT |= {"outlier": 0.5, "slope": 0.5, "trend": 0.5}


@dataclass(frozen=True)
class Number:
    value: float


@dataclass(frozen=True)
class Metric:
    metric: str  # as written; "value" is the rule's own metric


@dataclass(frozen=True)
class Config:
    name: str


@dataclass(frozen=True)
class Statistic:
    name: str
    metric: str
    n: int | None  # None: the rule's window


@dataclass(frozen=True)
class Math:
    name: str
    argument: "Sum"


@dataclass(frozen=True)
class Arithmetic:
    operator: str
    left: "Sum"
    right: "Sum"


@dataclass(frozen=True)
class Comparison:
    operator: str
    left: "Sum"
    right: "Sum"


@dataclass(frozen=True)
class Function:
    name: str
    metric: str
    numbers: tuple[float, ...] = ()
    percent: bool = False
    direction: str = ""


@dataclass(frozen=True)
class Not:
    item: "Test"


@dataclass(frozen=True)
class AllOf:
    items: tuple["Test", ...]


@dataclass(frozen=True)
class AnyOf:
    items: tuple["Test", ...]


Sum = Number | Metric | Config | Statistic | Math | Arithmetic
Test = Comparison | Function | Not | AllOf | AnyOf


def children(node: Sum | Test) -> tuple[Sum | Test, ...]:
    """The nodes directly below a node, in the order of the text."""
    match node:
        case Math():
            return (node.argument,)
        case Arithmetic() | Comparison():
            return (node.left, node.right)
        case Not():
            return (node.item,)
        case AllOf() | AnyOf():
            return node.items
    return ()


def walk(node: Sum | Test) -> Iterator[Sum | Test]:
    """The node and all nodes below it, in the order of the text."""
    yield node
    for child in children(node):
        yield from walk(child)


def effort(node: Sum | Test, window: int) -> float:
    """
    Rough time that a node takes when it is false, in times of the cheapest one: a statistic takes longer over a longer
    window, and one false test is enough for an `and`.
    """
    if isinstance(node, AllOf):
        return min(effort(item, window) for item in node.items)
    n = node.n or window if isinstance(node, Statistic) else window
    own = 1 + EFFORT_PER_POINT.get(node.name, 0.0) * n if isinstance(node, Statistic | Function) else 1.0
    return own + sum(effort(child, window) for child in children(node))


def can_hold(node: Test, missing: set[str]) -> bool:
    """
    Whether a test can be decided by itself, or one side of an `or` in it, without the metrics and the training arguments
    (`config.beta`) that are missing.
    """
    match node:
        case AllOf():
            return all(can_hold(item, missing) for item in node.items)
        case AnyOf():
            return any(can_hold(item, missing) for item in node.items)
        case Not():
            return can_hold(node.item, missing)
    return missing.isdisjoint(
        f"config.{part.name}" if isinstance(part, Config) else part.metric
        for part in walk(node)
        if isinstance(part, Config | Metric | Statistic | Function)
    )


@dataclass(frozen=True)
class Condition:
    """
    A parsed condition.

    Args:
        text (`str`):
            The condition as written.
        test (`Test`):
            Tree of comparisons and functions.
        streak (`int`):
            N of `for N steps`, otherwise 1.
        of (`int`):
            M of `for N of M steps`, otherwise equal to `streak`.
        has_for (`bool`):
            Whether the condition says `for`; such a rule looks at single points unless it sets a window.
        metrics (`tuple[str, ...]`):
            Metrics named in the condition in order of appearance, without `value`.
        configs (`tuple[str, ...]`):
            Training arguments named in the condition.
    """

    text: str
    test: Test
    streak: int = 1
    of: int = 1
    has_for: bool = False
    metrics: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
