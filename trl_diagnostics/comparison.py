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

"""The curves of two runs go in; at equal step, which one is better in which metric, and whether noise explains it."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from .engine.engine import MOST_METRICS
from .engine.finding import Record
from .metrics.names import MetricMap


FEWEST = 20  # logs: with fewer, the autocorrelation cannot be told, and one difference in seven looks real by chance
FEWEST_EFFECTIVE = 4  # as many logs without autocorrelation
MOST_POINTS = 4096  # of a series
LAST = 4  # the last quarter of the steps that both runs have is compared
SURE = 0.95
# What a trainer is for, first found first; the loss only where nothing says it better.
GOALS = ("env_reward", "policy_score", "reward", "accuracy", "win_rate", "reward_margin", "jsd", "loss")
# Arguments (and the trainer) that change the scale of a metric, so that its values in two runs cannot be held against each other.
SCALES = {
    "loss": (
        *("trainer", "loss_type", "loss_weights", "beta", "label_smoothing", "simpo_gamma", "cpo_alpha", "rpo_alpha"),
        *("completion_only_loss", "assistant_only_loss", "max_length", "packing"),
    ),
    "reward_margin": ("trainer", "beta", "loss_type"),
    "reward": ("reward_weights", "reward_funcs", "reward_model_path"),
}


@dataclass
class Series:
    """
    The finite points of one metric in bounded memory: when there are too many, each two become their mean, at the step
    of the later one. The mean of all stays what it was.
    """

    steps: array = field(default_factory=lambda: array("d"))
    values: array = field(default_factory=lambda: array("d"))
    width: int = 1  # logs per point
    count: int = 0  # finite ones
    holes: int = 0  # values that are no finite number
    first_hole: float | None = None

    def push(self, step: float, value: float | None) -> None:
        """Add a point."""
        if value is None or not math.isfinite(value):
            self.holes += 1
            self.first_hole = step if self.first_hole is None else self.first_hole
            return
        if inside := self.count % self.width:
            self.steps[-1] = step
            self.values[-1] += value / (inside + 1) - self.values[-1] / (inside + 1)
        else:
            if len(self.steps) == MOST_POINTS:
                self._halve()
            self.steps.append(step)
            self.values.append(value)
        self.count += 1

    def _halve(self) -> None:
        self.steps = self.steps[1::2]
        self.values = array("d", (a / 2 + b / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)))
        self.width *= 2


@dataclass(frozen=True)
class Compared:
    """
    One metric of two runs over the last steps that both have.

    Args:
        metric (`str`), better (`str` or `None`):
            Canonical name, and `"lower"` or `"higher"` where that is clear.
        a (`float`), b (`float`):
            Means of the two runs.
        first_step (`float`), last_step (`float`), points (`int`):
            What they are the means of. Where one run logged more often, its logs between two of the other are averaged,
            and of a long run neighbouring logs, see [`Series`].
        common (`int`):
            How many such points both runs have, from the first on.
        effective (`float` or `None`):
            Sample size without the autocorrelation of the differences.
        low (`float` or `None`), high (`float` or `None`):
            95 % confidence interval of b - a; `None` where there is too little to tell.
        p (`float` or `None`):
            Chance of such a difference if there is none.
    """

    metric: str
    better: str | None
    a: float
    b: float
    first_step: float
    last_step: float
    points: int
    common: int
    effective: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None

    @property
    def winner(self) -> str | None:
        """`"A"` or `"B"`, if the difference is more than noise and it is clear which direction is better."""
        if self.p is None or self.p >= 1 - SURE or self.better is None:
            return None
        return "B" if (self.b > self.a) == (self.better == "higher") else "A"


def collect_series(records: Iterable[Record]) -> dict[str, Series]:
    """The metrics of training and evaluation, in the order in which they came first."""
    series: dict[str, Series] = {}
    for record in records:
        if record.phase == "summary":  # of the whole run
            continue
        for metric, value in record.metrics.items():
            if metric in series or len(series) < MOST_METRICS:
                series.setdefault(metric, Series()).push(record.step, value)
    return series


def compare_series(a: dict[str, Series], b: dict[str, Series], metric_map: MetricMap) -> list[Compared]:
    """
    Hold the metrics that both runs have against each other, over the last quarter of the steps that both have.

    The logs are paired by step. A t-test asks whether the mean of the differences is zero; as its sample size counts
    the number of independent differences with the same information, n (1 - r) / (1 + r), where r is their
    autocorrelation from log to log, corrected for the bias that it has in short series
    (Kendall 1954, https://doi.org/10.1093/biomet/41.3-4.403).

    Args:
        a (`dict[str, Series]`), b (`dict[str, Series]`):
            As given by [`collect_series`].
        metric_map ([`MetricMap`]):
            Tells whether lower or higher is better.

    Returns:
        `list[Compared]`: in the order of the first run. The p of each is its own: see [`corrected`].
    """
    found = []
    for metric, series in a.items():
        steps, values_a, values_b = paired(series, b.get(metric, Series()))
        if len(steps):
            # where there is a reward, the loss is of a policy gradient: its value says nothing
            better = None if metric == "loss" and "reward" in a else metric_map.better(metric)
            found.append(_compared(metric, better, steps, values_a, values_b))
    return found


def paired(a: Series, b: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Two series on the same steps.

    Args:
        a (`Series`), b (`Series`):
            Points in the order in which they were logged; of two at one step the later counts.

    Returns:
        `tuple`: steps of the series that was logged less often, and the values of both, each the mean since the step
        before.
    """
    (steps_a, values_a), (steps_b, values_b) = _in_order(a), _in_order(b)
    if not len(steps_a) or not len(steps_b):
        return np.array([]), np.array([]), np.array([])
    edges = steps_a if _gap(steps_a) >= _gap(steps_b) else steps_b
    edges = edges[edges <= min(steps_a[-1], steps_b[-1])]
    means_a, means_b = _means(steps_a, values_a, edges), _means(steps_b, values_b, edges)
    both = np.isfinite(means_a) & np.isfinite(means_b)
    return edges[both], means_a[both], means_b[both]


def _in_order(series: Series) -> tuple[np.ndarray, np.ndarray]:
    steps, values = np.asarray(series.steps), np.asarray(series.values)
    steps, last = np.unique(steps[::-1], return_index=True)
    return steps, values[::-1][last]


def _gap(steps: np.ndarray) -> float:
    return float(np.median(np.diff(steps))) if len(steps) > 1 else 0.0


def _means(steps: np.ndarray, values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean of the values after the edge before and up to each edge; NaN where there are none."""
    before = 2 * edges[0] - edges[1] if len(edges) > 1 else -math.inf
    place = np.where(steps > before, np.searchsorted(edges, steps), len(edges))
    sums = np.bincount(place, values, len(edges) + 1)[: len(edges)]
    counts = np.bincount(place, minlength=len(edges) + 1)[: len(edges)]
    with np.errstate(invalid="ignore"):
        return sums / counts


def _compared(metric: str, better: str | None, steps: np.ndarray, a: np.ndarray, b: np.ndarray) -> Compared:
    common = len(steps)
    last = slice(-max(common // LAST, FEWEST if common >= FEWEST else 1), None)
    steps, a, b = steps[last], a[last], b[last]
    means, span = (float(a.mean()), float(b.mean())), (float(steps[0]), float(steps[-1]))
    found = Compared(metric, better, *means, *span, len(steps), common)
    if common < FEWEST:
        return found
    difference = b - a
    effective, variance = _independent(difference)
    if effective < FEWEST_EFFECTIVE:
        return replace(found, effective=effective)
    middle, error = float(difference.mean()), math.sqrt(variance / effective)
    if error == 0:
        return replace(found, effective=effective, low=middle, high=middle, p=1.0 if middle == 0 else 0.0)
    spread = error * stats.t.ppf((1 + SURE) / 2, effective - 1)
    p = 2 * stats.t.sf(abs(middle) / error, effective - 1)
    return replace(found, effective=effective, low=middle - spread, high=middle + spread, p=float(p))


def _independent(x: np.ndarray) -> tuple[float, float]:
    """How many independent numbers say as much about the mean, and the variance of one."""
    n, x = len(x), x - x.mean()
    square = float(x @ x)
    if square == 0:
        return float(n), 0.0
    r = (float(x[1:] @ x[:-1]) / square + 1 / n) / (1 - 3 / n)
    r = min(max(r, 0.0), 0.99)
    effective = max(n * (1 - r) / (1 + r), 1.0)
    return effective, square / max(n - n / effective, 1.0)


def corrected(found: Iterable[Compared]) -> list[Compared]:
    """Of many metrics some differ by chance: their p after Benjamini and Hochberg, 1995."""
    found = list(found)
    tested = [i for i, one in enumerate(found) if one.p is not None]
    ps = stats.false_discovery_control([found[i].p for i in tested]) if tested else []
    for i, p in zip(tested, ps, strict=True):
        found[i] = replace(found[i], p=float(p))
    return found


def goal(
    found: Iterable[Compared], config_a: dict[str, Any], config_b: dict[str, Any]
) -> tuple[str | None, list[str]]:
    """
    The metric that tells which run is better.

    Args:
        found (`Iterable[Compared]`):
            What both runs have.
        config_a (`dict`), config_b (`dict`):
            Their training arguments, and as `"trainer"` what trained them, where that is known.

    Returns:
        `tuple[str | None, list[str]]`: its name, and which ones do not count although they come first, with the reason.
    """
    present, passed = {one.metric: one for one in found}, []
    named = [name for goal in GOALS for name in (f"eval_{goal}", goal) if name in present]
    tested = [name for name in named if present[name].p is not None]
    for name in tested or named:
        if reasons := incomparable(name, config_a, config_b):
            passed.append(f"{name} has another scale: {', '.join(reasons)} differ{'s' * (len(reasons) == 1)}")
        else:
            return name, passed
    return None, passed


def incomparable(metric: str, config_a: dict[str, Any], config_b: dict[str, Any]) -> list[str]:
    """The arguments that differ and give a metric another scale."""
    keys = SCALES.get(metric.removeprefix("eval_"), ())
    return [key for key in keys if key in config_a and key in config_b and config_a[key] != config_b[key]]
