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

"""Every streaming statistic, replayed against NumPy and SciPy on every prefix of series with holes."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from trl_diagnostics.engine.history import History


HOLES = [None, math.nan, math.inf, -math.inf]
WINDOWS = (1, 2, 5, 8, 20)


def series(seed, n=90, holes=0.15):
    """A noisy ramp with a step in it; a share of the points is null, NaN or infinite."""
    noise = np.random.default_rng(seed)
    points = [float(x) for x in noise.normal(size=n) + 0.03 * np.arange(n) + 2.0 * (np.arange(n) > n // 2)]
    for i in np.flatnonzero(noise.random(n) < holes):
        points[i] = HOLES[noise.integers(len(HOLES))]
    return points


SERIES = [series(0), series(1, holes=0.0), series(2, holes=0.5), series(3, holes=1.0), series(4, n=7), [5.0] * 40]


def finite(points):
    array = np.array([np.nan if point is None else point for point in points], dtype=float)
    return array[np.isfinite(array)]


def prefixes(points, windows=WINDOWS, lower_is_better=False, warmup=0):
    """A history and the prefix that it holds, after each point."""
    history = History(lower_is_better)
    history.size, history.baseline_size = max(windows), max(windows)
    history.extremes = {n: [None, None] for n in windows}
    for i, point in enumerate(points):
        history.push(point, i >= warmup)
        yield history, points[: i + 1]


def window(points, n):
    """Finite points of the last `n`, or None while fewer than `n` were logged or none is finite."""
    part = finite(points[-n:])
    return part if len(points) >= n and len(part) else None


def mad(part):
    return np.median(np.abs(part - np.median(part)))


def same(got, expected):
    assert (got is None) == (expected is None)
    assert got is None or got == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("points", SERIES)
@pytest.mark.parametrize(
    "name, function, least",
    [
        ("mean", np.mean, 1),
        ("median", np.median, 1),
        ("min", np.min, 1),
        ("max", np.max, 1),
        ("std", lambda part: np.std(part, ddof=1), 2),
        ("mad", mad, 1),
    ],
)
def test_window_statistic(points, name, function, least):
    for history, prefix in prefixes(points):
        for n in WINDOWS:
            part = window(prefix, n)
            same(history.reader(name, n)(), function(part) if part is not None and len(part) >= least else None)


@pytest.mark.parametrize("points", SERIES)
def test_last_delta_and_count(points):
    for history, prefix in prefixes(points):
        two = finite(prefix[-2:])
        same(history.last(), finite(prefix[-1:])[0] if len(finite(prefix[-1:])) else None)
        same(history.delta(), two[1] - two[0] if len(prefix) >= 2 and len(two) == 2 else None)
        for n in WINDOWS:
            assert history.finite_count(n) == len(finite(prefix[-n:]))


def line(points, n):
    """scipy's least-squares line through the finite points of the window, at their places."""
    places = [i for i, point in enumerate(points[-n:]) if point is not None and math.isfinite(point)]
    if len(points) < n or len(places) < 5:
        return None, None, None
    return stats.linregress(places, [points[-n:][i] for i in places]), places, [points[-n:][i] for i in places]


@pytest.mark.parametrize("points", SERIES)
def test_slope_and_standard_error(points):
    plain = 0
    for history, prefix in prefixes(points):
        for n in (5, 8, 20):
            fit, places, ys = line(prefix, n)
            same(history.slope(n), fit and fit.slope)
            if fit is None or not fit.stderr > 1e-12:  # an exact line
                continue
            trend = history.trend(n)
            residuals = np.array(ys) - fit.intercept - fit.slope * np.array(places)
            r = residuals[1:] @ residuals[:-1] / (residuals @ residuals)
            r = r + (2 + 4 * r) / len(ys)
            same(trend.start, fit.intercept + fit.slope * places[0])
            if r <= 0:  # the residuals are independent: scipy's own error
                plain += 1
                same(trend.error, fit.stderr)
            else:
                freedom = max(len(ys) * (1 - min(r, 0.99)) / (1 + min(r, 0.99)) - 2, 1)
                same(trend.error, fit.stderr * math.sqrt((len(ys) - 2) / freedom))
                assert trend.error > fit.stderr
    assert plain or len(finite(points)) < 10 or np.ptp(finite(points)) == 0


def test_exact_line_has_no_error():
    history = History()
    history.size = 20
    for i in range(20):
        history.push(0.1 * i)
    assert history.trend(20).error == 0.0
    assert history.slope(20) == pytest.approx(0.1)


@pytest.mark.parametrize("points", SERIES)
@pytest.mark.parametrize("warmup", [0, 13])
def test_baseline(points, warmup):
    for history, prefix in prefixes(points, warmup=warmup):
        for n in WINDOWS:
            start = prefix[warmup:][:n]
            same(history.baseline(n), finite(start).mean() if len(start) == n and len(finite(start)) else None)


@pytest.mark.parametrize("points", SERIES)
@pytest.mark.parametrize("lower_is_better", [False, True])
def test_best_and_worst(points, lower_is_better):
    for history, prefix in prefixes(points, lower_is_better=lower_is_better):
        for n in WINDOWS:
            parts = [window(prefix[: end + 1], n) for end in range(len(prefix))]
            means = [part.mean() for part in parts if part is not None]
            low, high = (min(means), max(means)) if means else (None, None)
            same(history.reader("best", n)(), low if lower_is_better else high)
            same(history.reader("worst", n)(), high if lower_is_better else low)


@pytest.mark.parametrize("points", SERIES)
def test_frozen(points):
    for history, prefix in prefixes(points):
        for n in WINDOWS:
            part = prefix[-n:]
            expected = all(p is not None and math.isfinite(p) and p == part[0] for p in part)
            assert history.frozen(n) is (expected if len(prefix) >= n else None)


def test_results_follow_each_point_although_they_are_kept():
    history = History()
    history.size = 3
    for point, mean in ((3.0, None), (6.0, None), (9.0, 6.0), (0.0, 5.0)):
        history.push(point)
        assert history.mean(3) == mean
        assert history.mean(3) == mean


def test_memory_is_bounded_by_the_window():
    history = History()
    history.size = 10
    for i in range(5000):
        history.push(float(i))
        assert len(history.values) <= 20
    assert history.mean(10) == 4994.5
    assert history.count == 5000


def test_window_that_grows_later_is_unknown_until_it_is_full():
    history = History()
    for i in range(50):
        history.push(float(i))
    history.size = 10
    for i in range(50, 70):
        mean = history.mean(10)
        assert mean is None or mean == i - 5.5
        history.push(float(i))
    assert history.mean(10) == 64.5


@pytest.mark.parametrize("huge", [1e200, 1e308, -1e308])
def test_huge_numbers_raise_nothing(huge):
    history = History()
    history.size = 6
    for i in range(12):
        history.push(huge if i % 2 else -huge)
    for name in ("mean", "median", "min", "max", "std", "mad"):
        history.reader(name, 6)()
    history.slope(6)
    history.extremes = {6: [None, None]}
    history.push(huge)
    json.dumps(history.state_dict(), allow_nan=False)


READ = ("mean", "median", "std", "mad", "best", "worst")


def all_of(history):
    methods = (history.slope, history.baseline, history.finite_count, history.frozen)
    return [ask(n) for ask in methods for n in (5, 8)] + [history.reader(name, n)() for name in READ for n in (5, 8)]


@pytest.mark.parametrize("points", [series(5), series(6, holes=0.6)])
def test_state_goes_through_json_at_every_position(points):
    whole = [all_of(history) for history, _ in prefixes(points)]
    for i, (history, _) in enumerate(prefixes(points)):
        state = json.loads(json.dumps(history.state_dict(), allow_nan=False))
        copy = History()
        copy.size, copy.baseline_size = history.size, history.baseline_size
        copy.extremes = {n: [None, None] for n in history.extremes}
        copy.load_state_dict(state)
        assert copy.state_dict() == history.state_dict()
        for point, expected in zip(points[i + 1 : i + 12], whole[i + 1 :], strict=False):
            copy.push(point)
            assert all_of(copy) == expected


def test_state_of_a_shorter_window():
    short = History()
    short.size, short.baseline_size, short.extremes = 3, 2, {}
    for i in range(20):
        short.push(float(i))
    long = History()
    long.size, long.baseline_size, long.extremes = 8, 4, {2: [None, None]}
    long.load_state_dict(short.state_dict())
    assert (long.mean(3), long.mean(8), long.baseline(2), long.baseline(4), long.reader("best", 2)()) == (
        18.0,
        None,
        0.5,
        None,
        None,
    )
    for i in range(20, 25):
        long.push(float(i))
    assert (long.mean(8), long.reader("best", 2)()) == (20.5, 23.5)
    assert long.baseline(4) == (0 + 1 + 20 + 21) / 4  # completed with the next points
