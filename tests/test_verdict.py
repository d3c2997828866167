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

"""What each function of the condition language says, derived a second time with NumPy from the words of its description."""

import math

import numpy as np
import pytest
from engine_kit import NOT_LOGGED, verdicts

from trl_diagnostics.engine.condition import parse_condition
from trl_diagnostics.engine.needs import look_back, points_needed, too_short


NAN, INF = math.nan, math.inf
HOLES = [None, NAN, INF, -INF]


def series(seed, n=120, holes=0.1):
    """Levels that change with noise on them, so that every function is true for a while and false for a while."""
    noise = np.random.default_rng(seed)
    levels = np.repeat(noise.choice([0.2, 1.0, 1.0, 3.0, -1.0], 12), n // 12)
    points = [float(x) for x in levels + noise.choice([0.0, 0.02, 0.3]) * noise.normal(size=n)]
    for i in np.flatnonzero(noise.random(n) < holes):
        points[i] = HOLES[noise.integers(len(HOLES))]
    return points


def finite(points):
    array = np.array([np.nan if point is None else point for point in points], dtype=float)
    return array[np.isfinite(array)]


def mean(points):
    part = finite(points)
    return part.mean() if len(part) else None


def changed(points, n, size, percent, sign, warmup):
    """The mean of the last window against the mean of the first one past warm-up; needs two windows."""
    points = points[warmup:]
    if len(points) < 2 * n or mean(points[:n]) is None or mean(points[-n:]) is None:
        return None
    before, now = mean(points[:n]), mean(points[-n:])
    if percent and before == 0:
        return None
    return sign * (now - before) >= (size / 100 * abs(before) if percent else size)


def plateau(points, n, size, percent):
    if len(points) < n or n < 2:
        return None
    part, half = points[-n:], n // 2
    a, b = mean(part[:half]), mean(part[-half:])
    if a is None or b is None:
        return None
    return abs(a - b) <= (size / 100 * max(abs(a), abs(b)) if percent else size)


def spike(points, n, factor):
    if len(points) < n + 5:
        return None
    before, now = mean(points[-n - 5 : -5]), finite(points[-5:])
    return None if before is None or before <= 0 or not len(now) else now.max() > factor * before


def outlier(points, n, k):
    if len(points) < n + 1 or not len(finite(points[-n - 1 : -1])) or not len(finite(points[-1:])):
        return None
    before = finite(points[-n - 1 : -1])
    center = np.median(before)
    return points[-1] > center + k * np.median(np.abs(before - center))


def frozen(points, n):
    return len(set(points[-n:])) == 1 and len(finite(points[-n:])) == n if len(points) >= n else None


def between(points, n, low, high, inside):
    if len(points) < n or mean(points[-n:]) is None:
        return None
    return (low <= mean(points[-n:]) <= high) == inside


FUNCTIONS = [
    ("drop(30%)", lambda p, n, w: changed(p, n, 30, True, -1, w)),
    ("drop(0.4)", lambda p, n, w: changed(p, n, 0.4, False, -1, w)),
    ("rise(50%)", lambda p, n, w: changed(p, n, 50, True, 1, w)),
    ("rise(0.7)", lambda p, n, w: changed(p, n, 0.7, False, 1, w)),
    ("plateau(2%)", lambda p, n, w: plateau(p, n, 2, True)),
    ("plateau(0.05)", lambda p, n, w: plateau(p, n, 0.05, False)),
    ("spike(2x)", lambda p, n, w: spike(p, n, 2)),
    ("outlier(5)", lambda p, n, w: outlier(p, n, 5)),
    ("frozen", lambda p, n, w: frozen(p, n)),
    ("range(0.5, 1.2)", lambda p, n, w: between(p, n, 0.5, 1.2, True)),
    ("outside(0.5, 1.2)", lambda p, n, w: between(p, n, 0.5, 1.2, False)),
]


@pytest.mark.parametrize("text, expected", FUNCTIONS, ids=[text for text, _ in FUNCTIONS])
@pytest.mark.parametrize("n", [3, 8])
def test_function_on_every_prefix(text, expected, n):
    seen = set()
    for seed, warmup in ((0, 0), (1, 0), (2, 7), (3, 0), (4, 7), (5, 0)):
        points = series(seed, holes=0.1 * (seed % 3))
        got = verdicts(text, window=n, warmup=warmup, value=points)
        assert got == [expected(points[: i + 1], n, warmup) for i in range(len(points))]
        seen |= set(got)
    assert seen == {True, False, None}  # otherwise the series would not test much


@pytest.mark.parametrize(
    "text, points, expected",
    [
        ("drop(50%)", [4.0, 4.0, 4.0, 2.0, 2.0], [None, None, None, False, True]),  # exactly half counts
        ("drop(50%)", [0.0, 0.0, -9.0, -9.0], [None] * 4),  # per cent of nothing
        ("drop(1)", [0.0, 0.0, -9.0, -9.0], [None, None, None, True]),
        ("drop(50%)", [-4.0, -4.0, -6.0, -6.0], [None, None, None, True]),  # down by half of 4
        ("rise(100%)", [-4.0, -4.0, 0.0, 0.0], [None, None, None, True]),
        ("plateau(0)", [1.0, 1.0, 1.1], [None, True, False]),
        ("plateau(10%)", [-1.0, -1.05, -2.0], [None, True, False]),
        ("range(1, 2)", [1.0, 1.0, 3.0, 3.1], [None, True, True, False]),  # both bounds belong to it
        ("outside(1, 2)", [1.0, 1.0, 3.0, 3.1], [None, False, False, True]),
        ("frozen", [0.0, 0.0, 0.0, 0.1, NAN, NAN], [None, True, True, False, False, False]),
        ("frozen", [None, None, None], [None, False, False]),
        ("nonfinite", [1.0, NAN, INF, -INF, None, 2.0], [False, True, True, True, False, False]),
        ("null", [1.0, NAN, INF, None, 2.0], [False, False, False, True, False]),
        ("spike(3x)", [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.1], [None] * 6 + [False, True]),
        ("spike(3x)", [-1.0] * 7 + [9.0], [None] * 8),  # no positive baseline
        ("outlier(3)", [1.0, 1.0, 1.0, 1.1], [None, None, False, True]),
        ("outlier(3)", [1.0, 2.0, 3.0, 4.0, NAN], [None, None, False, False, None]),
    ],
)
def test_function_at_its_edges(text, points, expected):
    assert verdicts(text, window=2, value=points) == expected


def test_missing():
    points = [1.0, NOT_LOGGED, NOT_LOGGED, NOT_LOGGED, 2.0, NOT_LOGGED, NOT_LOGGED]
    expected = [None, None, False, True, False, False, False]
    assert verdicts("kl missing", window=3, value=[0.0] * 7, kl=points) == expected
    assert verdicts("kl missing", window=3, value=[0.0] * 4, kl=[NOT_LOGGED] * 4) == [None, None, True, True]


@pytest.mark.parametrize(
    "text, points, expected",
    [
        ("> 2", [1.0, 2.0, 4.0, NAN, 5.0, NAN, NAN], [None, False, True, True, True, True, None]),
        ("last(value) > 2", [1.0, 3.0, NAN, 3.0], [False, True, None, True]),
        ("delta(value) > 1", [1.0, 3.0, 3.5, NAN, 9.0, 11.0], [None, True, False, None, None, True]),
        ("count(value, 3) < 2", [1.0, 1.0, NAN, None, INF], [True, False, False, True, True]),
        ("best(value, 1) - value > 1", [1.0, 3.0, 1.0, 0.0], [None, False, False, True]),
        ("value > 2 * baseline(value, 1)", [1.0, 2.0, 4.0], [None, False, True]),
        ("abs(value) > 2", [-1.0, -2.0, -3.0], [None, False, True]),
        ("exp(value) > 2", [0.0, 0.0, 1e6, INF], [None, False, True, True]),
        ("log(value) > 0", [0.0, -1.0, 5.0], [None, None, True]),
        ("1 / value > 0", [0.0, 0.0, 4.0], [None, None, True]),
        ("exp(value) - exp(value) < 1", [1e6, 1e6], [None, None]),  # inf - inf
        ("> config.beta", [0.2, 0.2], [None, True]),
        ("> config.unset", [0.2, 0.2], [None, None]),
    ],
)
def test_numbers(text, points, expected):
    assert verdicts(text, window=2, config={"beta": 0.1}, value=points) == expected


def test_best_follows_the_direction_of_the_metric():
    points = [2.0, 1.0, 3.0]
    assert verdicts("best(value, 1) == 1", value=points, lower_is_better=["value"]) == [False, True, True]
    assert verdicts("best(value, 1) == 1", value=points) == [False, False, False]
    assert verdicts("worst(value, 1) == 1", value=points) == [False, True, True]


def test_step_is_that_of_the_record():
    assert verdicts("step > 2", window=20, value=[0.0] * 3, step=[1, 2, 3]) == [False, False, True]


T, F, U = "value > 0", "value < 0", "last(none) > 0"


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"{T} and {T}", True),
        (f"{T} and {F}", False),
        (f"{T} and {U}", None),
        (f"{U} and {F}", False),
        (f"{F} and {U}", False),
        (f"{U} and {U}", None),
        (f"{T} or {U}", True),
        (f"{U} or {T}", True),
        (f"{F} or {U}", None),
        (f"{F} or {F}", False),
        (f"not {U}", None),
        (f"not ({U} and {F})", True),
        (f"not ({U} or {T})", False),
        (f"not not {T}", True),
    ],
)
def test_three_valued_logic(text, expected):
    assert verdicts(text, window=1, value=[1.0]) == [expected]


@pytest.mark.parametrize(
    "text, window, name",
    [
        ("frozen", 1, "frozen"),
        ("frozen", 2, None),
        ("plateau(1%)", 1, "plateau"),
        ("trend(up)", 4, "trend"),
        ("trend(up)", 5, None),
        ("outlier(5)", 2, "outlier"),
        ("> 1 and std(value) > 1", 1, "std"),
        ("> 1 and std(value, 2) > 1", 1, None),
        ("drop(50%)", 1, None),
    ],
)
def test_too_short(text, window, name):
    assert too_short(parse_condition(text).test, window) == name


# trend: what 3 standard errors promise, measured


def false_alarms(r, n, count=3000):
    """Share of independent windows of stationary noise with lag-1 autocorrelation `r` that are called a rising trend."""
    noise = np.random.default_rng(n).normal(size=(count, n + 100))
    for i in range(1, n + 100):
        noise[:, i] += r * noise[:, i - 1]
    return sum(verdicts("trend(up)", window=n, value=list(row))[-1] for row in noise[:, -n:]) / count


@pytest.mark.parametrize(
    "r, n, most",
    [
        # One side of 3 standard errors of a t distribution is 0.4 % at 20 points and 0.2 % at 50. With autocorrelation
        # `r` has to be estimated from the window itself, which a short window does badly; the plain formula would give
        # 5 % for r = 0.5 and 22 to 26 % for r = 0.9.
        (0.0, 20, 0.006),
        (0.0, 50, 0.004),
        (0.5, 20, 0.025),
        (0.5, 50, 0.012),
        (0.9, 20, 0.07),
        (0.9, 50, 0.04),
    ],
)
def test_trend_seldom_sees_one_in_noise(r, n, most):
    assert false_alarms(r, n) <= most


def test_trend_finds_a_ramp_at_an_exact_position():
    noise = np.random.default_rng(0).normal(size=160)
    ramp = (0.1 * noise + np.maximum(0, np.arange(160) - 100) * 0.02).tolist()
    up = verdicts("trend(up, 0.2)", window=20, value=ramp)
    assert up[:19] == [None] * 19
    assert up.index(True) == 112  # the rise since 100 is by then 2.4 standard deviations of the noise
    assert sum(up[112:]) > 40
    assert True not in verdicts("trend(down, 0.2)", window=20, value=ramp)
    assert verdicts("trend(down, 0.2)", window=20, value=[-x for x in ramp]) == up


@pytest.mark.parametrize(
    "text, expected",
    [
        ("trend(up)", True),
        ("trend(up, 1.8)", True),
        ("trend(up, 2)", False),  # the size of the rise from end to end: 19 * 0.1 = 1.9
        ("trend(up, 18%)", True),  # 1.9 of 10
        ("trend(up, 20%)", False),
        ("trend(down)", False),
    ],
)
def test_trend_size(text, expected):
    assert verdicts(text, window=20, value=[10 + 0.1 * i for i in range(20)])[-1] is expected


@pytest.mark.parametrize("level", [0.0, 0.1, 1e9, -3.3e-8])
def test_constant_is_no_trend(level):
    assert set(verdicts("trend(up) or trend(down)", window=20, value=[level] * 60)) == {None, False}


def test_smooth_curve_is_a_trend():
    assert verdicts("trend(up)", window=20, value=[(i / 20) ** 2 for i in range(20)])[-1] is True


@pytest.mark.parametrize(
    "condition, window, needed, back",
    [
        ("> 1", 20, 20, 20),
        ("> 1 for 5 steps", 1, 1, 1),
        ("drop(50%)", 10, 20, 10),
        ("spike(3x)", 10, 15, 10),
        ("outlier(5)", 10, 11, 10),
        ("nonfinite", 20, 1, 1),
        ("mean(m, 5) > 2 * baseline(m, 30)", 20, 30, 5),
        ("mean(m, 5) > best(m, 40)", 20, 40, 5),
        ("value > 1 and step > 100 and last(m) < 3", 7, 7, 7),
        ("mean(m, 50) > 1 or mean(m, 5) > 2", 20, 5, 50),
        ("not trend(up)", 12, 12, 12),
        ("delta(m) == 0", 20, 2, 20),
        ("max(abs_m, 3) > config.limit * sqrt(min(m, 4))", 20, 4, 4),
    ],
)
def test_points_needed_and_look_back(condition, window, needed, back):
    test = parse_condition(condition).test
    assert (points_needed(test, window), look_back(test, window)) == (needed, back)
