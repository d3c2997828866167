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

"""The records of a run go in; after a resume, numbers that say how far the run went on as it was come out."""

import math
from collections import deque
from typing import Any, NamedTuple

from ..engine.finding import Record
from ..engine.history import mad, median


BEFORE = 40  # logs before the resume that make the band
FEWEST = 10  # logs below which there is no band
AFTER = 10  # logs after the resume that are compared with it
FINEST = 0.01  # of the level: a smooth curve scatters less, but a hundredth more or less is nothing to speak of
SIGMA_OF_MAD = 1.4826  # standard deviation of Gaussian noise over its median distance from the median
# What a lost optimizer, other data or other weights show in, whatever the trainer.
COMPARED = (
    *("loss", "grad_norm", "reward", "reward_margin", "win_rate", "token_accuracy", "entropy", "kl"),
    "completion_length",
)
LINES = ("learning_rate", "epoch")  # what goes on in a line from log to log


class Continuity:
    """
    Compares the first logs after a resume with the last ones before it.

    Give it every record. After [`Continuity.resume`] it answers the first train record with a record of phase
    `"resume"` about steps, learning rate and position in the data, and the tenth with one about losses, gradients and
    rewards. Memory does not grow with the run.

    Example:

    ```python
    >>> continuity = Continuity()
    >>> continuity.load_state_dict(state)  # of the checkpoint
    >>> continuity.resume(step=200)
    >>> continuity.update(record)
    ```
    """

    def __init__(self):
        self.bands: dict[str, deque[float]] = {}
        self.lines: dict[str, deque[tuple[int, float]]] = {}  # the last two points
        self.peak = 0.0  # highest learning rate
        self.resumed_at: int | None = None  # while the logs after a resume are collected
        self.after: dict[str, list[float]] = {}
        self.count = 0  # train records since the resume

    def resume(self, step: int) -> None:
        """Compare from here on with what was before; `step` is that of the checkpoint."""
        self.resumed_at, self.after, self.count = step, {}, 0

    def update(self, record: Record) -> Record | None:
        """
        Take one record.

        Args:
            record ([`Record`]):
                Numbers under canonical names.

        Returns:
            [`Record`] or `None`: of phase `"resume"`, at the first and the tenth train record after a resume.
        """
        if record.phase != "train":
            return None
        if self.resumed_at is None:
            self._remember(record)
            return None
        self.count += 1
        self._collect(record)
        metrics = self._first(record) if self.count == 1 else {}
        self._extend_lines(record)
        if self.count == AFTER:
            metrics = self._shifts()
            self._adopt()
        return Record(record.step, record.time, "resume", metrics) if metrics else None

    def _remember(self, record: Record) -> None:
        for name in COMPARED:
            if _is_finite(value := record.metrics.get(name)):
                self.bands.setdefault(name, deque(maxlen=BEFORE)).append(value)
        self._extend_lines(record)

    def _extend_lines(self, record: Record) -> None:
        for name in LINES:
            if _is_finite(value := record.metrics.get(name)):
                self.lines.setdefault(name, deque(maxlen=2)).append((record.step, value))
        if _is_finite(rate := record.metrics.get("learning_rate")):
            self.peak = max(self.peak, rate)

    def _collect(self, record: Record) -> None:
        for name in COMPARED:
            if _is_finite(value := record.metrics.get(name)):
                self.after.setdefault(name, []).append(value)

    def _first(self, record: Record) -> dict[str, float]:
        """Steps since the checkpoint, and where learning rate and position in the data are beside their line."""
        metrics = {"resume_first_log": float(record.step - self.resumed_at)}
        for name, unit in (("learning_rate", self.peak), ("epoch", 1.0)):
            points, value = self.lines.get(name, ()), record.metrics.get(name)
            if len(points) == 2 and unit and _is_finite(value) and points[1][0] > points[0][0]:
                (step_1, value_1), (step_2, value_2) = points
                usual = (value_2 - value_1) / (step_2 - step_1) * (record.step - step_2)
                metrics[f"resume_{name}_jump"] = (value - value_2 - usual) / unit
                metrics[f"resume_{name}_usual"] = abs(usual) / unit
        self.lines.clear()
        return metrics

    def _shifts(self) -> dict[str, float]:
        metrics = {}
        for name, after in self.after.items():
            before = list(self.bands.get(name, ()))
            if len(before) >= FEWEST and len(after) >= AFTER // 2 and (found := compare_logs(before, after)):
                metrics |= {f"resume_{what}/{name}": value for what, value in found._asdict().items()}
        return metrics

    def _adopt(self) -> None:
        """The comparison is over: what came since the resume belongs to the band of the next one."""
        for name, values in self.after.items():
            self.bands.setdefault(name, deque(maxlen=BEFORE)).extend(values)
        self.resumed_at, self.after = None, {}

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, ready for JSON."""
        return {
            "bands": {name: list(band) for name, band in self.bands.items()},
            "lines": {name: [list(point) for point in points] for name, points in self.lines.items()},
            "peak": self.peak,
            "resumed_at": self.resumed_at,
            "after": self.after,
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was saved."""
        self.bands = {name: deque(band, maxlen=BEFORE) for name, band in state["bands"].items()}
        self.lines = {name: deque(map(tuple, points), maxlen=2) for name, points in state["lines"].items()}
        self.peak, self.resumed_at, self.count = state["peak"], state["resumed_at"], state["count"]
        self.after = {name: list(values) for name, values in state["after"].items()}


class Shift(NamedTuple):
    """How far some logs are from those before them; the names of the numbers in the resume record."""

    shift: float  # standard deviations of a single log
    change: float  # relative to the level before
    chance: float  # of a difference like this between equals
    was_low: float  # where single logs were, two standard deviations around the level before
    was_high: float
    now: float  # level after


def compare_logs(before: list[float], after: list[float]) -> Shift | None:
    """
    How far some logs are from those before them.

    A metric may go on along its trend, or stay where it was; only what lies outside of both counts. The trend is the
    median of the slopes between all pairs of points (Theil and Sen), so that single outliers do not bend it.

    Args:
        before (`list[float]`), after (`list[float]`):
            Finite values in their order.

    Returns:
        `Shift` or `None`: the distance in standard deviations of a single log; the same relative to the level before; the
        chance of a difference like this between equals (Mann and Whitney, two-sided); the levels. `None` where nothing
        scattered before, so that there is no measure.
    """
    # here and not above: a run that was never resumed does not wait for it
    from scipy.stats import mannwhitneyu, theilslopes

    slope, start = map(float, theilslopes(before)[:2])
    residuals = [value - start - slope * i for i, value in enumerate(before)]
    end = start + slope * (len(before) - 1)
    if (scatter := SIGMA_OF_MAD * mad(residuals)) == 0:
        return None
    noise = max(scatter, FINEST * abs(end))
    beyond = end + slope * (len(after) + 1) / 2
    low, high = min(end, beyond), max(end, beyond)
    off = [value - min(max(value, low), high) for value in after]
    distance = median(off)
    chance = float(mannwhitneyu(residuals, off).pvalue)
    levels = (end - 2 * noise, end + 2 * noise, median(after))
    return Shift(distance / noise, distance / max(abs(end), noise), chance, *levels)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
