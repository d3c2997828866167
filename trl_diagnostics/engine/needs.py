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

"""A condition goes in, what it needs comes out: how many points, how many of them recent ones."""

from .condition import PLAIN
from .tree import (
    OF_THE_RECORD,
    SHORTEST,
    AllOf,
    AnyOf,
    Comparison,
    Function,
    Metric,
    Not,
    Statistic,
    Sum,
    Test,
    children,
    walk,
)
from .verdict import SPIKE_POINTS


def too_short(tree: Test, window: int) -> str | None:
    """Name of a function or statistic that cannot say anything with this window, if there is one."""
    for node in walk(tree):
        n = node.n if isinstance(node, Statistic) and node.n else window
        if isinstance(node, Statistic | Function) and n < SHORTEST.get(node.name, 1):
            return node.name
    return None


def points_needed(node: Test | Sum, window: int) -> int:
    """How many points must be logged before a condition can be true."""
    match node:
        case Metric():
            return 1 if node.metric in OF_THE_RECORD else window
        case Statistic(name="last" | "count"):
            return 1
        case Statistic(name="delta"):
            return 2
        case Statistic():
            return node.n or window
        case Function(name="drop" | "rise"):
            return 2 * window
        case Function(name="spike"):
            return window + SPIKE_POINTS
        case Function(name="outlier"):
            return window + 1
        case Function(name="nonfinite" | "null"):
            return 1
        case Function():
            return window
        case AnyOf():
            return min(points_needed(item, window) for item in node.items)
        case Not():
            return points_needed(node.item, window)
    return max((points_needed(child, window) for child in children(node)), default=1)


def look_back(tree: Test, window: int) -> int:
    """How many points before the one at which a condition became true it may owe that to."""
    recent = [1]
    for node in walk(tree):
        if (
            isinstance(node, Metric)
            and node.metric not in OF_THE_RECORD
            or isinstance(node, Function)
            and node.name not in PLAIN
        ):
            recent.append(window)
        if isinstance(node, Statistic) and node.name not in ("baseline", "best", "worst", "last"):
            recent.append(node.n or window)
    return max(recent)


def since_start(tree: Test) -> bool:
    """
    Whether a condition says that a metric has never been better than some bound: what was logged before the point at which
    it became true was no better then. Not so where the bound is what the same metric is now.
    """
    match tree:
        case AllOf():
            return any(map(since_start, tree.items))
        case AnyOf():
            return all(map(since_start, tree.items))
        case Comparison(operator="<" | "<=" | "==", left=left):
            never = {node.metric for node in walk(left) if isinstance(node, Statistic) and node.name == "best"}
            return bool(never - {node.metric for node in walk(tree) if _is_recent(node)})
    return False


def _is_recent(node: Sum | Test) -> bool:
    if isinstance(node, Statistic):
        return node.name not in ("best", "worst", "baseline", "std", "mad")
    return isinstance(node, Metric)
