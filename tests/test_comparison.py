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

"""Two runs at equal step: how they are paired, how often noise is called a difference, which metric decides."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trl_diagnostics.comparison import (
    MOST_POINTS,
    Series,
    collect_series,
    compare_series,
    corrected,
    goal,
    incomparable,
    paired,
)
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.metrics.names import MetricMap


def series(steps, values):
    made = Series()
    for step, value in zip(steps, values, strict=True):
        made.push(step, value)
    return made


def one(steps, a, b, metric="reward"):
    found = compare_series({metric: series(steps, a)}, {metric: series(steps, b)}, MetricMap("grpo"))
    assert len(found) == 1
    return found[0]


def noise(n, phi, rng):
    """An autoregressive series in its stationary state."""
    x = rng.normal(size=n + 200)
    for i in range(1, n + 200):
        x[i] += phi * x[i - 1]
    return x[200:]


def test_collect_keeps_every_metric_and_leaves_holes_apart():
    records = [
        Record(1, 0.0, "train", {"loss": 2.0, "kl": math.nan}),
        Record(2, 0.0, "train", {"loss": None, "kl": 1}),
    ]
    found = collect_series(iter(records))
    assert list(found) == ["loss", "kl"]
    loss, kl = found["loss"], found["kl"]
    assert (list(loss.steps), list(loss.values), loss.holes, loss.first_hole) == ([1], [2.0], 1, 2)
    assert (list(kl.steps), kl.holes, kl.first_hole) == ([2], 1, 1)


def test_memory_does_not_grow_with_the_run():
    """Neither points nor holes; what is kept has the mean of all, each point that of its stretch."""
    n = 5 * MOST_POINTS + 3
    made = series(range(1, n + 1), range(1, n + 1))
    assert (made.count, made.width, len(made.steps)) == (n, 8, math.ceil(n / 8)) and len(made.steps) <= MOST_POINTS
    assert list(made.steps[:2]) == [8, 16] and list(made.values[:2]) == [4.5, 12.5]
    assert made.steps[-1] == n and made.values[-1] == pytest.approx(np.mean(range(n - n % 8 + 1, n + 1)))
    huge = series(range(9000), [1.7e308, -1.7e308] * 4500)
    assert np.isfinite(huge.values).all()
    gone = series(range(1000), [math.nan] * 1000)
    assert (gone.holes, gone.first_hole, len(gone.steps)) == (1000, 0, 0)


def test_a_long_run_gives_the_answer_of_all_its_logs():
    rng = np.random.default_rng(7)
    n = 3 * MOST_POINTS
    a, b = rng.normal(size=n), rng.normal(0.1, 1, n)
    found = one(range(n), a, b)
    usual = stats.ttest_rel(b[-n // 4 :], a[-n // 4 :])
    assert (found.low, found.high) == pytest.approx(tuple(usual.confidence_interval()), abs=0.01)
    assert (found.winner, found.last_step) == ("B", n - 1)


def test_the_summary_of_a_run_is_no_point_of_a_curve():
    records = [Record(1, 0.0, "train", {"loss": 2.0}), Record(1, 0.0, "summary", {"loss": 9.0, "train_loss": 1.0})]
    assert {name: list(one.values) for name, one in collect_series(records).items()} == {"loss": [2.0]}


def test_equal_steps_are_paired_one_by_one():
    steps, a, b = paired(series([1, 2, 3], [1, 2, 3]), series([2, 3, 4], [20, 30, 40]))
    assert (steps.tolist(), a.tolist(), b.tolist()) == ([2, 3], [2, 3], [20, 30])


def test_the_finer_series_is_averaged_between_two_logs_of_the_coarser():
    steps, a, b = paired(series(range(1, 41), range(1, 41)), series([10, 20, 30, 40], [1, 2, 3, 4]))
    assert steps.tolist() == [10, 20, 30, 40]
    assert a.tolist() == [5.5, 15.5, 25.5, 35.5]
    assert b.tolist() == [1, 2, 3, 4]
    assert [x.tolist() for x in paired(series([10, 20], [1, 2]), series(range(1, 21), range(1, 21)))][2] == [5.5, 15.5]


def test_of_two_points_at_one_step_the_later_counts():
    steps, a, _ = paired(series([1, 2, 2, 3], [1, 9, 2, 3]), series([1, 2, 3], [0, 0, 0]))
    assert (steps.tolist(), a.tolist()) == ([1, 2, 3], [1, 2, 3])


@pytest.mark.parametrize("other", [series([], []), series([7, 8], [1, 1])])
def test_nothing_in_common(other):
    assert [x.tolist() for x in paired(series([1, 2], [1, 2]), other)] == [[], [], []]
    assert compare_series({"loss": series([1, 2], [1, 2])}, {"loss": other}, MetricMap("sft")) == []


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
    st.lists(st.integers(0, 60), min_size=1, max_size=40, unique=True),
)
@settings(max_examples=200)
def test_pairs_lie_on_steps_that_both_runs_have_reached(a, b):
    a, b = sorted(a), sorted(b)
    steps, x, y = paired(series(a, a), series(b, b))
    assert len(steps) == len(x) == len(y)
    assert np.isfinite(x).all() and np.isfinite(y).all()
    assert set(steps) <= set(a) or set(steps) <= set(b)
    assert (np.diff(steps) > 0).all() and (not len(steps) or steps[-1] <= min(a[-1], b[-1]))
    assert (x <= steps).all() and (y <= steps).all()


def test_independent_differences_give_the_usual_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=400), rng.normal(0.8, 1, 400)
    found = one(range(400), a, b)
    usual = stats.ttest_rel(b[-100:], a[-100:])
    assert (found.common, found.points, found.first_step, found.last_step) == (400, 100, 300, 399)
    assert found.effective == pytest.approx(100, rel=0.35)
    assert (found.low, found.high) == pytest.approx(tuple(usual.confidence_interval()), abs=0.1)
    assert found.winner == "B"


@pytest.mark.parametrize(("phi", "most"), [(0.0, 0.07), (0.6, 0.09), (0.9, 0.11)])
def test_noise_is_rarely_called_a_difference(phi, most):
    """A t-test that takes the logs for independent is wrong in 6, 31 and 69 of 100 cases."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(400):
        found = one(range(200), noise(200, phi, rng), noise(200, phi, rng))
        wrong += found.winner is not None
    assert wrong / 400 <= most


def test_a_real_difference_is_seen_through_autocorrelated_noise():
    rng = np.random.default_rng(1)
    seen = [one(range(400), noise(400, 0.6, rng), 3 + noise(400, 0.6, rng)).winner for _ in range(50)]
    assert seen == ["B"] * 50


def test_the_direction_decides_who_wins():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=200), 5 + rng.normal(size=200)
    assert [one(range(200), a, b, metric).winner for metric in ("reward", "loss", "kl")] == ["B", "A", None]
    assert [one(range(200), b, a, metric).winner for metric in ("reward", "loss", "kl")] == ["A", "B", None]


def test_too_few_logs_and_too_much_autocorrelation_give_no_answer():
    few = one(range(19), [0.0] * 19, [1.0] * 19)
    assert (few.p, few.low, few.winner, few.effective) == (None, None, None, None)
    assert (few.common, few.points, few.first_step) == (19, 4, 15)  # the mean of the last ones all the same
    drift = one(range(40), np.zeros(40), np.linspace(0, 1, 40))
    assert (drift.p, drift.winner) == (None, None) and drift.effective < 4


def test_runs_that_are_the_same_and_runs_that_differ_by_a_constant():
    rng = np.random.default_rng(4)
    a = rng.normal(size=100)
    same = one(range(100), a, a)
    assert (same.p, same.low, same.high, same.winner) == (1.0, 0.0, 0.0, None)
    apart = one(range(100), np.ones(100), np.full(100, 3.0))
    assert (apart.p, apart.low, apart.high, apart.winner) == (0.0, 2.0, 2.0, "B")


def test_swapping_the_runs_swaps_the_answer():
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=100), rng.normal(0.4, 1, 100)
    there, back = one(range(100), a, b), one(range(100), b, a)
    assert (there.p, there.low, there.high) == pytest.approx((back.p, -back.high, -back.low))


def test_many_metrics_of_which_none_differs():
    rng = np.random.default_rng(6)
    names = [f"m{i}" for i in range(200)]
    runs = [{name: series(range(100), rng.normal(size=100)) for name in names} for _ in range(2)]
    found = compare_series(*runs, MetricMap("grpo"))
    assert sum(one.p < 0.05 for one in found) > 0
    assert sum(one.p < 0.05 for one in corrected(found)) == 0
    assert corrected([]) == []


def test_the_goal_is_the_evaluation_before_the_training_and_the_loss_comes_last():
    def among(*names):
        steps = range(100)
        runs = [{name: series(steps, np.ones(100)) for name in names} for _ in range(2)]
        return goal(compare_series(*runs, MetricMap("dpo")), {}, {})

    assert among("loss", "win_rate", "reward_margin", "eval_win_rate") == ("eval_win_rate", [])
    assert among("loss", "reward_margin") == ("reward_margin", [])
    assert among("loss", "eval_loss", "token_accuracy") == ("eval_loss", [])
    assert among("kl") == (None, [])


def test_a_goal_with_too_few_logs_for_a_test_leaves_the_word_to_one_with_enough():
    long, short = range(100), range(0, 100, 20)
    runs = [{"eval_loss": series(short, np.ones(5)), "loss": series(long, np.ones(100))} for _ in range(2)]
    assert goal(compare_series(*runs, MetricMap("sft")), {}, {}) == ("loss", [])
    runs = [{"eval_loss": series(short, np.ones(5))} for _ in range(2)]
    assert goal(compare_series(*runs, MetricMap("sft")), {}, {}) == ("eval_loss", [])


def test_a_metric_on_another_scale_is_no_goal():
    runs = [{name: series(range(50), np.ones(50)) for name in ("loss", "reward_margin")} for _ in range(2)]
    found = compare_series(*runs, MetricMap("kto"))
    same, other = {"beta": 0.1, "loss_type": "kto"}, {"beta": 0.5, "loss_type": "kto"}
    assert goal(found, same, dict(same)) == ("reward_margin", [])
    assert goal(found, same, other) == (
        None,
        ["reward_margin has another scale: beta differs", "loss has another scale: beta differs"],
    )
    assert incomparable("eval_loss", same, other | {"loss_type": "apo"}) == ["loss_type", "beta"]
    assert incomparable("reward_margin", same, {}) == []
