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

"""A rule and a metric go in, a `Judge` of the one on the other comes out, with what it needs to see."""

import re
from dataclasses import dataclass, field

from .episode import Episode
from .history import History
from .rule import Rule
from .tree import can_hold
from .value import Value
from .verdict import Verdict


@dataclass(slots=True)
class Judge:
    """One rule bound to one metric (a glob gives one judge per metric it matches), with its streak and episode."""

    rule: Rule
    metric: str
    history: History
    verdict: Verdict
    numbers: dict[str, Value]  # the evidence of a finding
    names: dict[str, str]  # metrics of the condition as written -> as recorded
    others: dict[str, History]  # their histories
    needs_all: bool  # judged at each train record, since the rule asks whether a metric is missing
    causes: tuple[str, ...]  # rules that silence this one while they fire
    episode: Episode = field(default_factory=Episode)

    def key(self) -> str:
        return f"{self.rule.name}|{self.metric}"


def needs(judge: Judge, missing: set[str]) -> bool:
    """Whether a rule has nothing to say without these metrics."""
    return "value" in missing or not can_hold(judge.rule.condition.test, missing)


def once_seen(verdict: Verdict, histories: list[History]) -> Verdict:
    """The verdict, unknown until each metric came once."""
    return lambda: verdict() if all(history.count for history in histories) else None


def pattern(glob: str) -> re.Pattern:
    """`*` stands for text without a slash and is captured."""
    return re.compile("([^/]+)".join(map(re.escape, glob.split("*"))))


def fill(name: str, captured: tuple[str, ...]) -> str:
    """Replace each `*` by what the rule's own metric had there."""
    for text in captured:
        name = name.replace("*", text, 1)
    return name


def look(history: History, window: int) -> float | None:
    """The number that a condition saw: the mean of the window, or the last point where that says more."""
    last = history.values[-1] if history.values else None
    if history.last() is None:
        return last
    mean = history.mean(window)
    return last if mean is None else mean
