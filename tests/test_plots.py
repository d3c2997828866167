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

"""Curves, thresholds and plots: what is drawn of a run, and that drawing leaves everything else alone."""

import json
import math
import random
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from engine_kit import feed, rule
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.metrics.names import MetricMap
from trl_diagnostics.sinks import plots
from trl_diagnostics.sinks.curves import BUCKETS, HEAD, MOST_CURVES, Curve, collect_curves
from trl_diagnostics.sinks.thresholds import thresholds


POINTS = st.lists(st.one_of(st.none(), st.floats(), st.floats(-10, 10)), max_size=3000)


def curve(*values, warmup=0.0, start=1):
    made = Curve(warmup)
    for x, y in enumerate(values, start):
        made.push(x, y)
    return made


# Curves


def test_a_short_curve_is_kept_point_by_point():
    made = curve(3.0, 1.0, 2.0)
    assert list(made.points()) == [(1, 3.0), (2, 1.0), (3, 2.0)]
    assert made.holes() == []
    assert (made.low, made.high, made.mean, made.count) == (1.0, 3.0, 2.0, 3)


def test_a_hole_breaks_the_line_and_has_a_place():
    made = curve(1.0, math.nan, 2.0, None, math.inf)
    points = list(made.points())
    assert [x for x, _ in points] == [1, 2, 3, 4, 5]
    assert [math.isnan(y) for _, y in points] == [False, True, False, True, True]
    assert made.holes() == [2, 4, 5]
    assert (made.nonfinite, made.mean) == (3, 1.5)


def test_a_spike_of_one_point_in_many_stays():
    made = Curve()
    for x in range(200_000):
        made.push(x, 1e6 if x == 177_777 else math.nan if x == 123_456 else x % 7)
    points = list(made.points())
    assert len(made.buckets) <= BUCKETS and len(points) <= 2 * BUCKETS
    assert (177_777, 1e6) in points
    assert 123_456 in made.holes()
    assert points == sorted(points)


@given(POINTS)
def test_a_curve_keeps_extremes_counts_and_order(values):
    made = curve(*values)
    finite = [(x, y) for x, y in enumerate(values, 1) if y is not None and math.isfinite(y)]
    points = [point for point in made.points() if not math.isnan(point[1])]
    assert made.count == len(values) and made.nonfinite == len(values) - len(finite)
    assert len(made.buckets) <= BUCKETS
    assert set(points) <= set(finite)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert made.head == finite[:HEAD]
    assert bool(made.holes()) == (len(finite) < len(values))
    if finite:
        assert made.low == min(y for _, y in finite) and made.high == max(y for _, y in finite)


def test_the_baseline_starts_after_warm_up():
    made = curve(*range(10), warmup=4)
    assert made.head[0] == (5, 4)


def test_collect_streams_and_keeps_only_what_is_wanted():
    def stream(n):
        for step in range(1, n + 1):
            yield Record(step, float(step), "train", {"loss": 1 / step, "noise": 0.0})

    engine = Engine([], "sft")
    collect_curves(stream(1000), engine, lambda metric, phase: metric == "loss")
    tracemalloc.start()
    curves = collect_curves(stream(20_000), engine, lambda metric, phase: metric == "loss")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list(curves) == ["loss"] and curves["loss"].count == 20_000
    assert peak < 500_000


def test_a_run_that_invents_names_has_an_end():
    records = (Record(step, 0.0, "rank", {f"rank_{step}": 1.0}) for step in range(5000))
    assert len(collect_curves(records, Engine([]), lambda metric, phase: phase == "rank")) == MOST_CURVES


def test_a_derived_metric_is_computed():
    metric_map = MetricMap("grpo", "1.16.0")
    rules = [rule("> 0.1 for 1 steps", metric="effective_group_fraction", trainers=("grpo",))]
    records = [Record(s, 0.0, "train", {"loss": 0.0, "frac_reward_zero_std": s / 10}) for s in range(1, 6)]
    curves = collect_curves(records, Engine(rules, "grpo", {}, metric_map), lambda metric, phase: "fraction" in metric)
    assert [y for _, y in curves["effective_group_fraction"].points()] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])


# Thresholds


def levels(condition, metric="m", config=None, **series):
    one = rule(condition, metric=metric, window=1)
    (finding, *_) = feed([one], config=config, **series)
    return thresholds(one, finding)


@pytest.mark.parametrize(
    "condition, m, expected",
    [
        ("> 3", [1, 5], [3]),
        ("3 < value", [1, 5], [3]),
        ("mean(value, 2) >= 4 and value < 100", [1, 5, 5], [4, 100]),
        ("> 3 and value > 4 and max(value, 2) > 2", [1, 5], [4]),  # the hardest
        ("< 3 and value < 2", [5, 1], [2]),
        ("> 3 or value > 100", [1, 5], [3]),  # the other side did not decide
        ("> 100 or value > 3", [1, 5], [3]),
        ("value < 0.5 * best(value, 1)", [8, 8, 1], [4]),
        ("best(value, 1) > 3", [1, 5], [3]),
        ("value > 2 * config.cap", [1, 5], [2]),
        ("value > sqrt(config.cap) + 1 / 2", [1, 5], [1.5]),
        ("value > abs(delta(step)) - 1", [1, 5], [0]),
        ("value > 1 / (config.cap - 1) or value > 2", [1, 5], [2]),
        ("outside(0, 2)", [1, 5], [0, 2]),
        ("range(4, 6)", [1, 5], [4, 6]),
        ("drop(50%)", [8, 8, 1, 1], [4]),
        ("rise(3)", [1, 1, 9, 9], [4]),
        ("== 5", [1, 5], [5]),
        ("not value < 3", [1, 5], []),
        ("nonfinite", [1, math.nan], []),
        ("value > value - 1", [1, 5], []),  # both sides move
        ("step > 1", [1, 5], []),
        ("delta(value) > 2", [1, 5], []),  # not a level of the curve
    ],
)
def test_thresholds_of(condition, m, expected):
    window = {"window": 2} if "drop" in condition or "rise" in condition else {"window": 1}
    one = rule(condition, **window)
    finding = feed([one], config={"cap": 1}, m=[float(value) for value in m])[0]
    assert thresholds(one, finding) == pytest.approx(expected)


def test_a_threshold_may_be_another_metric():
    assert levels("value > other", m=[1.0, 5.0], other=[3.0, 2.0]) == [2.0]


# Plots


def drawn(made, first=3, last=10, step=None, ends=None, title="loss", limits=(), **fields):
    one = rule("> 0", metric="m", window=1)
    finding = feed([one], m=[1.0])[0]
    finding = type(finding)(**{**vars(finding), "first_step": first, "step": step or first, **fields})
    return plots.finding_figure(made, [finding], ends or [last], limits, title, 10)


def labels(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_everything_that_matters_is_in_the_picture():
    made = curve(*[1.0, 1.1, 0.9, 1.0, 1.2, 0.8, 5.0, 6.0, math.nan, 5.0])
    figure = drawn(made, first=7, step=8, limits=[2.0])
    assert labels(figure) == [
        "baseline, first 6 logs",
        "episode",
        "onset, step 7",
        "found, step 8",
        "threshold 2",
        "1 x NaN, infinite or null",
    ]
    (axes,) = figure.axes
    spans = [patch.get_extents().transformed(axes.transData.inverted()) for patch in axes.patches]
    low, high = np.percentile([1.0, 1.1, 0.9, 1.0, 1.2, 0.8], [5, 95])
    assert (spans[0].y0, spans[0].y1) == pytest.approx((low, high))
    assert (spans[1].x0, spans[1].x1) == pytest.approx((7, 10))
    verticals = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert verticals[:2] == [7, 8]


def test_an_episode_of_one_log_can_be_seen():
    made = feed([rule("> 0", metric="m", window=1)], m=[1.0])[0]
    episodes = [replace(made, step=step, first_step=step) for step in (3, 9)]
    figure = plots.finding_figure(curve(*[1.0] * 10), episodes, [5, 9], [], "m", 20)
    verticals = [line.get_xdata()[0] for line in figure.axes[0].lines if len(set(line.get_xdata())) == 1]
    assert set(verticals) == {3, 9}


def test_no_band_of_fewer_than_five_points():
    assert plots.band(curve(1.0, 2.0, 3.0, 4.0, 5.0), before=5, n=20) is None
    assert plots.band(curve(1.0, 2.0, 3.0, 4.0, 5.0), before=6, n=20) == (1.2, 4.8, 5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values, scale",
    [
        ([1.0, 2.0, 1.5] * 5, "linear"),
        ([1.0, 2.0, 1.5] * 5 + [1e6], "log"),
        ([1.0, -2.0, 1.5] * 5 + [1e6], "symlog"),
        ([1e-8, -1e-8, 0.1, -0.1, 1e-8, 1e-8, 0.05, 0.1, -0.2, 1e-8], "linear"),  # of a policy gradient
        ([1.0, 2.0, 1.5] * 5 + [1.7e308], "log"),
        ([-1.7e308, 1.7e308, 1.0, 1.0, 1.0, 1.0], "symlog"),
        ([math.nan] * 5, "linear"),
        ([0.0] * 5, "linear"),
        ([5e-324, 1.0, 1.0], "linear"),
        ([5e-324, 5e-324, 1.7e308], "log"),
        ([0.0, 5e-324, 5e-324, 5e-324, 1e308, math.nan], "symlog"),
        ([1e100, 1e100], "linear"),
    ],
)
def test_any_numbers_can_be_drawn(values, scale, tmp_path):
    figure = drawn(curve(*values))
    assert figure.axes[0].get_yscale() == scale
    (tmp_path / "a.png").write_bytes(plots.png(figure))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] == plots.WIDTH * plots.DPI


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "title", ["$x$ $\\bad{", "<img src=x>", "\u4e2d\u6587 \U0001f600", "a\x00b\nc", "x" * 500, ""]
)
def test_any_name_can_be_a_title(title):
    figure = drawn(curve(1.0, 2.0), title=title)
    assert plots.png(figure)[:4] == b"\x89PNG"
    assert len(figure.axes[0].get_title(loc="left")) <= 56


def test_the_same_run_gives_the_same_picture():
    assert plots.png(drawn(curve(1.0, 2.0))) == plots.png(drawn(curve(1.0, 2.0)))


def test_the_key_metrics_are_in_one_picture():
    figure = plots.key_figure({name: curve(1.0, 2.0) for name in ("loss", "kl", "entropy")}, onset=2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "kl", "entropy"]


ALONE = """
import json, random, sys
import numpy as np, matplotlib
matplotlib.rcParams["lines.linewidth"] = 7
before = matplotlib.rcParams.copy(), random.getstate(), str(np.random.get_state())
from trl_diagnostics.sinks import plots
from trl_diagnostics.sinks.curves import Curve
curve = Curve()
for x in range(100):
    curve.push(x, x)
plots.png(plots.key_figure({"loss": curve}, 3))
after = matplotlib.rcParams.copy(), random.getstate(), str(np.random.get_state())
same = dict.__eq__(before[0], after[0]) and before[1:] == after[1:]
print(json.dumps([same, "matplotlib.pyplot" in sys.modules, "torch" in sys.modules]))
"""


def test_drawing_leaves_everything_else_alone():
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, False, False]


def test_no_number_is_drawn_at_random():
    state = random.getstate()
    plots.png(drawn(curve(1.0, 2.0)))
    assert random.getstate() == state
