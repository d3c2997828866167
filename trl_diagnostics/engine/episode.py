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

"""Verdicts of one condition go in, point by point; its streak and its episode come out."""

from dataclasses import dataclass, field

from .tree import Condition


@dataclass(slots=True)
class Episode:
    """Where one rule stands on one metric. All of it is JSON, `asdict` is its state."""

    points: int = 0
    known: bool = False  # whether there was ever enough data for a verdict
    streak: int = 0
    since: int = 0  # step at which the streak began
    recent: list[int | None] = field(
        default_factory=list
    )  # for `for N of M`: steps of the true points among the last M
    active: bool = False
    first_step: int = 0  # `since` of the episode
    quiet: int = 0  # points since the condition last held in this episode

    def see(self, verdict: bool | None, step: int, condition: Condition) -> bool:
        """Count one point; returns whether the condition holds, its `for` included. Unknown counts as not true."""
        self.points += 1
        if verdict is not None:
            self.known = True
        if condition.of > condition.streak:
            return self._see_recent(step if verdict else None, condition)
        if not verdict:
            self.streak = 0
            return False
        if self.streak == 0:
            self.since = step
        self.streak += 1
        return self.streak >= condition.streak

    def _see_recent(self, step: int | None, condition: Condition) -> bool:
        self.recent.append(step)
        del self.recent[: -condition.of]
        true = [step for step in self.recent if step is not None]
        if true:
            self.since = true[0]
        return len(true) >= condition.streak

    def start(self) -> None:
        """Begin the episode."""
        self.active, self.first_step, self.quiet = True, self.since, 0

    def rest(self, window: int) -> bool:
        """Count one point of an episode at which the condition does not hold; returns whether that ends it."""
        self.quiet += 1
        self.active = self.quiet < window
        return not self.active
