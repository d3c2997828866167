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

"""The records of a run go in, a few hundred points per metric come out, however long the run: spikes and holes stay."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ..engine.engine import MOST_METRICS, Engine
from ..engine.finding import Record


BUCKETS = 512  # more than a picture has room for
MOST_CURVES = 60
HEAD = 100  # first points past warm-up that are kept one by one, for the baseline

Point = tuple[float, float]


@dataclass(slots=True)
class Bucket:
    """Neighbouring points of a curve: the lowest, the highest, and the first place with no finite number."""

    low: Point | None = None
    high: Point | None = None
    hole: float | None = None

    def add(self, x: float, y: float | None) -> None:
        if y is None or not math.isfinite(y):
            self.hole = x if self.hole is None else self.hole
            return
        if self.low is None or y < self.low[1]:
            self.low = (x, y)
        if self.high is None or y > self.high[1]:
            self.high = (x, y)

    def merged(self, later: "Bucket") -> "Bucket":
        lows = [bucket.low for bucket in (self, later) if bucket.low]
        highs = [bucket.high for bucket in (self, later) if bucket.high]
        hole = later.hole if self.hole is None else self.hole
        return Bucket(min(lows, key=_value, default=None), max(highs, key=_value, default=None), hole)


def _value(point: Point) -> float:
    return point[1]


@dataclass(slots=True)
class Curve:
    """
    One metric over the steps in bounded memory: when the buckets run out, each two become one.

    Args:
        warmup (`float`, *optional*, defaults to `0.0`):
            Optimizer steps that do not count for the baseline.
        phase (`str`, *optional*, defaults to `"train"`):
            Of the record in which the metric came first.
    """

    warmup: float = 0.0
    phase: str = "train"
    buckets: list[Bucket] = field(default_factory=list)
    width: int = 1  # points per bucket
    count: int = 0
    nonfinite: int = 0
    total: float = 0.0
    head: list[Point] = field(default_factory=list)

    def push(self, x: float, y: float | None) -> None:
        """Add a point; `None` and non-finite values are holes."""
        if self.count % self.width == 0:
            if len(self.buckets) == BUCKETS:
                pairs = zip(self.buckets[::2], self.buckets[1::2], strict=True)
                self.buckets = [first.merged(second) for first, second in pairs]
                self.width *= 2
            self.buckets.append(Bucket())
        self.buckets[-1].add(x, y)
        self.count += 1
        finite = y is not None and math.isfinite(y)
        self.nonfinite += not finite
        self.total += y if finite else 0.0
        if finite and x > self.warmup and len(self.head) < HEAD:
            self.head.append((x, y))

    def points(self) -> Iterator[Point]:
        """What to draw, in order: lowest and highest of each bucket, NaN where a bucket has no finite number."""
        for bucket in self.buckets:
            if bucket.low is None:
                yield bucket.hole, math.nan
            elif bucket.low == bucket.high:
                yield bucket.low
            else:
                yield from sorted((bucket.low, bucket.high))

    @property
    def mean(self) -> float:
        """Mean of the finite points."""
        return self.total / max(self.count - self.nonfinite, 1)

    @property
    def low(self) -> float:
        """Lowest finite point."""
        return min((bucket.low[1] for bucket in self.buckets if bucket.low), default=math.nan)

    @property
    def high(self) -> float:
        """Highest finite point."""
        return max((bucket.high[1] for bucket in self.buckets if bucket.high), default=math.nan)

    def holes(self) -> list[float]:
        """Where a point was no finite number, one place per bucket."""
        return [bucket.hole for bucket in self.buckets if bucket.hole is not None]


def collect_curves(records: Iterable[Record], engine: Engine, wanted: Callable[[str, str], bool]) -> dict[str, Curve]:
    """
    The curves of some metrics, in one pass.

    Args:
        records (`Iterable[Record]`):
            Records of a run; they are not kept.
        engine ([`Engine`]):
            A fresh one with the rules whose metrics are drawn: it computes those that are not logged but derived.
        wanted (`Callable[[str, str], bool]`):
            Whether a metric is wanted, by its canonical name and the phase of the record in which it came first.

    Returns:
        `dict[str, Curve]`: in the order in which the metrics came first.
    """
    curves: dict[str, Curve] = {}
    seen: set[str] = set()
    derived = [name for name, _, _ in engine.derived if wanted(name, "train")]
    for record in records:
        for metric, value in record.metrics.items():
            if metric not in seen:
                if len(seen) < MOST_METRICS:
                    seen.add(metric)
                    if wanted(metric, record.phase) and len(curves) < MOST_CURVES:
                        curves[metric] = Curve(engine.warmup_steps, record.phase)
            if metric in curves:
                curves[metric].push(record.step, value)
        if derived:
            engine.update(record)
            _push_derived(curves, derived, engine, record.step)
    return curves


def _push_derived(curves: dict[str, Curve], derived: list[str], engine: Engine, step: int) -> None:
    for metric in derived:
        history, known = engine.histories[metric], curves.get(metric)
        if history.count > (known.count if known else 0):
            curves.setdefault(metric, Curve(engine.warmup_steps)).push(step, history.values[-1])
