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

"""What is remembered of one metric: logged points go in, window statistics, baseline and running extremes come out."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from operator import mul
from typing import Any, NamedTuple

from .finding import from_json_number, json_number


class Trend(NamedTuple):
    """Least-squares line through a window: `slope` per point, its standard `error`, and the line's value at the start."""

    slope: float
    error: float
    start: float


class History:
    """
    The points of one metric that the active rules look at. Memory is bounded by the longest window, not by the run.

    A point is one logged value: a float, possibly NaN or infinite, or `None` where the trainer logged null. Statistics
    are over the *finite* points of the last `n` logged ones and are `None` (unknown) until `n` points were logged or
    when none of them is finite. Results are kept until the next point, since many rules ask for the same.

    Args:
        lower_is_better (`bool`, *optional*, defaults to `False`):
            Direction of `best` and `worst`.
    """

    def __init__(self, lower_is_better: bool = False):
        self.lower_is_better = lower_is_better
        self.size = 1  # longest window asked for
        self.baseline_size = 0
        self.extremes: dict[int, list[float | None]] = {}  # n -> [lowest, highest] n-point mean so far
        self.values: list[float | None] = []
        self.start: list[float | None] = []  # the first `baseline_size` points past warm-up
        self.unbroken = 0  # how many points at the end are finite without a hole
        self.count = 0
        self.past_warmup = 0
        self.last_record = 0  # number of the train record that held the last point
        self._baselines: dict[int, float | None] = {}
        self._cache: dict[Any, Any] = {}

    def push(self, value: float | None, past_warmup: bool = True) -> None:
        """Add one point. `past_warmup`: whether it counts for the baseline."""
        values = self.values
        values.append(value)
        if len(values) > 2 * self.size:  # trimming every `size` points keeps the cost per point constant
            del values[: -self.size]
        self.count += 1
        finite = value is not None and -math.inf < value < math.inf
        self.unbroken = self.unbroken + 1 if finite else 0
        if past_warmup:
            self.past_warmup += 1
            if len(self.start) < self.baseline_size:
                self.start.append(value)
        if self._cache:
            self._cache.clear()
        for n, pair in self.extremes.items():
            if n > self.unbroken:
                mean = self.mean(n) if n > 1 else None
            else:  # the common case, a call less
                mean = self._cache[n] = sum(values[-n:]) / n if n > 1 else value
            if mean is None:
                continue
            if pair[0] is None:
                pair[:] = [mean, mean]
            elif mean < pair[0]:
                pair[0] = mean
            elif mean > pair[1]:
                pair[1] = mean

    def last(self) -> float | None:
        """The last logged point if it is finite."""
        return self.values[-1] if self.unbroken else None

    def window(self, n: int, back: int = 0) -> list[float] | None:
        """The finite values of the `n` points before the last `back` ones; `None` until that many were logged."""
        key, cache = (n, back), self._cache
        if key in cache:
            return cache[key]
        end = len(self.values) - back
        points = self.values[end - n : end] if end >= n else None
        whole = points is None or self.unbroken >= n + back  # nothing to leave out
        result = cache[key] = points if whole else _finite(points)
        return result

    def reader(self, name: str, n: int) -> Callable[[], float | None]:
        """
        A statistic as a function without arguments: what rules ask at every point is looked up once.

        Args:
            name (`str`):
                `"mean"`, `"median"`, `"min"`, `"max"`, `"std"` (sample, ddof 1) or `"mad"` (median absolute deviation
                from the median, unscaled) of the window; `"best"` or `"worst"` `n`-point mean since the start, in the
                metric's own direction.
            n (`int`):
                Number of points.
        """
        if name in ("best", "worst"):
            pair, side = self.extremes.setdefault(n, [None, None]), (name == "best") != self.lower_is_better
            return lambda: pair[side]
        if name == "mean":
            return partial(self.mean, n)
        key, cache, compute = f"{name} {n}", self._cache, STATISTICS[name]  # a text, for its hash is computed once

        def read() -> float | None:
            if key in cache:
                return cache[key]
            whole = len(self.values) >= n <= self.unbroken
            window = self.values[-n:] if whole else self.window(n)
            result = cache[key] = compute(window) if window else None
            return result

        return read

    def mean(self, n: int) -> float | None:
        """Mean of the window."""
        cache = self._cache
        if n in cache:  # what is asked most has the shortest key
            return cache[n]
        window = self.values[-n:] if len(self.values) >= n <= self.unbroken else self.window(n)
        result = cache[n] = sum(window) / len(window) if window else None
        return result

    def finite_count(self, n: int) -> float:
        """How many of the last `n` points are finite; known from the first point on."""
        return float(n if self.unbroken >= n else len(_finite(self.values[-n:])))

    def delta(self) -> float | None:
        """Last point minus the one before."""
        return self.values[-1] - self.values[-2] if len(self.values) >= 2 <= self.unbroken else None

    def baseline(self, n: int) -> float | None:
        """Mean of the first `n` points past warm-up, once all of them were logged."""
        if len(self.start) < n:
            return None
        if n not in self._baselines:  # never changes again
            window = _finite(self.start[:n])
            self._baselines[n] = mean(window) if window else None
        return self._baselines[n]

    def slope(self, n: int) -> float | None:
        """Least-squares slope of the window, per logged point."""
        trend = self.trend(n)
        return None if trend is None else trend.slope

    def trend(self, n: int) -> Trend | None:
        """
        Least-squares line through the window.

        The standard error is that of `n (1 - r) / (1 + r)` independent residuals, where `r` is their lag-1
        autocorrelation: neighbouring logs of a training run resemble each other, and the plain formula would call every
        slow wave a trend (Santer et al., 2000). `r` is corrected for its bias in short detrended windows (Tjostheim and
        Paulsen, 1983) and not allowed below 0. At least one degree of freedom is left, so that a smooth curve, whose
        residuals are one wave, can still be a trend.
        """
        key = ("trend", n)
        if key not in self._cache:
            complete = len(self.values) >= n
            self._cache[key] = _trend(self.values[-n:], self.unbroken >= n) if complete else None
        return self._cache[key]

    def frozen(self, n: int) -> bool | None:
        """Whether the last `n` points are one and the same finite number."""
        if len(self.values) < n:
            return None
        return self.unbroken >= n and self.values[-n:].count(self.values[-1]) == n

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready state."""
        return {
            "values": [json_number(value) for value in self.values[-self.size :]],
            "start": [json_number(value) for value in self.start],
            "extremes": {str(n): [json_number(mean) for mean in pair] for n, pair in self.extremes.items()},
            "count": self.count,
            "past_warmup": self.past_warmup,
            "last_record": self.last_record,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Take over a state. A window longer than the saved one is complete once enough new points came; a longer baseline
        is completed with the next points.
        """
        self.values = [from_json_number(value) for value in state["values"]]
        self.start = [from_json_number(value) for value in state["start"]]
        for n in self.extremes:
            self.extremes[n][:] = map(from_json_number, state["extremes"].get(str(n), (None, None)))
        self.unbroken = 0
        while self.unbroken < len(self.values) and _is_finite(self.values[-1 - self.unbroken]):
            self.unbroken += 1
        self.count, self.past_warmup, self.last_record = state["count"], state["past_warmup"], state["last_record"]
        self._baselines.clear()
        self._cache.clear()


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _finite(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def mean(values: list[float]) -> float:
    """Mean of a non-empty list."""
    return sum(values) / len(values)


def median(values: list[float]) -> float:
    """Median of a non-empty list."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def mad(values: list[float]) -> float:
    """Median absolute deviation of a non-empty list."""
    center = median(values)
    return median([abs(value - center) for value in values])


def _std(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    center = mean(values)
    offsets = [value - center for value in values]
    return math.sqrt(sum(map(mul, offsets, offsets)) / (len(values) - 1))


STATISTICS = {"mean": mean, "median": median, "min": min, "max": max, "std": _std, "mad": mad}


@lru_cache(maxsize=256)
def _centered(positions: Sequence[int]) -> tuple[tuple[float, ...], float]:
    center = sum(positions) / len(positions)
    offsets = tuple(position - center for position in positions)
    return offsets, sum(map(mul, offsets, offsets))


def _trend(values: list[float | None], whole: bool) -> Trend | None:
    positions: Sequence[int] = range(len(values))
    if not whole:
        positions = tuple(i for i in positions if _is_finite(values[i]))
        values = _finite(values)
    n = len(values)
    if n < 5:  # below, residuals say nothing about their own autocorrelation
        return None
    offsets, spread = _centered(positions)
    center = sum(values) / n
    slope = sum(map(mul, offsets, values)) / spread
    residuals = [y - center - slope * x for x, y in zip(offsets, values, strict=True)]
    squares = sum(map(mul, residuals, residuals))
    start = center + slope * offsets[0]
    noise = 1e-9 * max(map(abs, values))
    if squares <= noise * noise * n:  # an exact line up to rounding
        return Trend(slope, 0.0, start)
    r = sum(map(mul, residuals, residuals[1:])) / squares
    r = min(max(r + (2 + 4 * r) / n, 0.0), 0.99)
    freedom = max(n * (1 - r) / (1 + r) - 2, 1.0)
    return Trend(slope, math.sqrt(squares / freedom / spread), start)
