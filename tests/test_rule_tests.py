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

"""Tests inside of rule files: the series language, what a failing test says, and the entry conditions."""

import math
import statistics

import pytest
from engine_kit import rule
from hypothesis import given
from hypothesis import strategies as st

from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.engine.rule import load_rules
from trl_diagnostics.engine.rule_tests import check_entry, check_tests, parse_series, run_test


@pytest.mark.parametrize(
    "text, points",
    [
        ("1.0x3", [1.0, 1.0, 1.0]),
        ("-2 .5x2 1e-3", [-2.0, 0.5, 0.5, 0.001]),
        ("0..1x5", [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("0.2..0.8x4", [0.2, 0.4, 0.6, 0.8]),
        ("1..-1x3", [1.0, 0.0, -1.0]),
        ("3..4", [3.0]),
        ("inf -infx2", [math.inf, -math.inf, -math.inf]),
        ("null nullx2", [None, None, None]),
        ("_ 1 _x2", ["_", 1.0, "_", "_"]),
        ("1x0 2", [2.0]),
        ("  1\n 2 ", [1.0, 2.0]),
        (2.5, [2.5]),
        (3, [3]),
        (None, [None]),
        ([1, None, "0.5x2", math.inf], [1, None, 0.5, 0.5, math.inf]),
        ("", []),
    ],
)
def test_series(text, points):
    assert parse_series(text) == pytest.approx(points) if "_" not in points else parse_series(text) == points


def test_nan_in_a_series():
    assert [math.isnan(point) for point in parse_series("nan 1 nan~0.1x2")] == [True, False, True, True]


@pytest.mark.parametrize(
    "text, word",
    [
        ("1.0 abc", "abc"),
        ("1.0x", "1.0x"),
        ("1.0x-3", "1.0x-3"),
        ("nan..1x3", "nan..1x3"),
        ("_..1x3", "_..1x3"),
        ("0.5~x3", "0.5~x3"),
        ("0.5@x3", "0.5@x3"),
        ("0.5@0x3", "0.5@0x3"),
        ("0.5~0.1@8", "0.5~0.1@8"),
        ("1x1000000000", "1x1000000000"),
        ([True], "True"),
    ],
)
def test_unreadable_series(text, word):
    with pytest.raises(DiagnosticsError) as error:
        parse_series(text)
    assert str(error.value) == (
        f"series: cannot read '{word}'; write for example 1.0~0.05x40, 0.2..0.8x9, nan, null or _"
    )


def test_series_is_not_endless():
    with pytest.raises(DiagnosticsError, match="^series: more than 10000 points in '1x10001'$"):
        parse_series("1x10001")


@pytest.mark.parametrize("text", ["1e400", "-1e400x3", "0..1e400x3", "0~1e400"])
def test_numbers_are_finite(text):
    with pytest.raises(DiagnosticsError, match="^series: number -?1e400 is too large$"):
        parse_series(text)


def test_noise_is_gaussian_and_the_same_everywhere():
    points = parse_series("1.0~0.05x2000")
    assert points == parse_series("1.0~0.05x2000")
    assert points[:3] == pytest.approx(FIRST_NOISE, abs=1e-12)
    assert statistics.mean(points) == pytest.approx(1.0, abs=0.005)
    assert statistics.stdev(points) == pytest.approx(0.05, rel=0.05)
    assert points[:5] != parse_series("1.0~0.05x5", seed="other")


def test_shares_are_binomial_and_the_same_everywhere():
    points = parse_series("0.3@64x2000")
    assert points == parse_series("0.3@64x2000")
    assert points[:3] == [26 / 64, 16 / 64, 17 / 64]
    assert statistics.mean(points) == pytest.approx(0.3, abs=0.005)
    assert statistics.stdev(points) == pytest.approx(math.sqrt(0.3 * 0.7 / 64), rel=0.05)
    assert points[:5] != parse_series("0.3@64x5", seed="other")
    assert parse_series("0@8x2 1@8 0..1@4x2") == [0, 0, 1, 0, 1]


def test_share_is_a_probability():
    with pytest.raises(DiagnosticsError, match="^series: a share is between 0 and 1, not as in '0.5..1.5@8x3'$"):
        parse_series("0.5..1.5@8x3")


FIRST_NOISE = [0.8734858706375758, 1.020878030321138, 1.0171548609552434]


@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False)), max_size=20))
def test_list_of_numbers_is_taken_as_it_is(points):
    assert parse_series(points) == points


@given(st.text(alphabet="0123456789.~@x_nainful- e+"))
def test_random_series_is_read_or_refused(text):
    try:
        points = parse_series(text)
    except DiagnosticsError as error:
        assert str(error).startswith("series: ")
    else:
        assert all(point is None or point == "_" or isinstance(point, float) for point in points)


RULE = rule("> 1 for 3 steps", message="{metric} at {value:.1f}")


@pytest.mark.parametrize(
    "test, problem",
    [
        ({"series": "0x5 2x5", "fires": 8}, None),
        ({"series": "0x5 2x5", "fires": [8]}, None),
        ({"series": "0x5 2x5 0 2x3", "fires": [8, 14], "message": "m at 2.0"}, None),
        ({"series": "0x5 2x2 0", "fires": "never"}, None),
        ({"series": {"m": "2x5", "kl": 1}, "fires": 3}, None),
        ({"series": "0x5 2x5", "fires": 7}, "fires at 8, expected 7"),
        ({"series": "0x5 2x5", "fires": "never"}, "fires at 8, expected never"),
        ({"series": "0x9", "fires": 8}, "never fires, expected 8"),
        ({"series": "0x9"}, "fires: expected never, a point or a list of points, found None"),
        ({"series": "0x9", "fires": "always"}, "fires: expected never, a point or a list of points, found 'always'"),
        ({"series": "0x9", "fires": 0}, "fires: expected never, a point or a list of points, found 0"),
        ({"series": "0x9", "fires": True}, "fires: expected never, a point or a list of points, found True"),
        ({"fires": 3}, "series is missing"),
        ({"series": {}, "fires": 3}, "series is missing"),
        ({"series": "", "fires": "never"}, "series: no points of 'm'"),
        ({"series": {"m": "1x5", "kl": []}, "fires": "never"}, "series: no points of 'kl'"),
        ({"series": "2x5", "fires": 3, "trainer": 5}, "trainer: expected a text, found 5"),
        (
            {"series": "2x5", "fires": 3, "config": {"logging_steps": "1"}},
            "config: logging_steps: expected a number, found '1'",
        ),
        (5, "expected a map, found 5"),
        ({"series": "2x5", "fires": 3, "config": "beta"}, "config: expected a map, found 'beta'"),
        ({"series": "2x5", "fire": 3}, "unknown field 'fire'; did you mean 'fires'?"),
        ({"series": "2x5", "fires": 3, "message": "m at 2"}, "says 'm at 2.0', expected 'm at 2'"),
        ({"series": "0x5", "fires": "never", "message": "m"}, "says None, expected 'm'"),
        (
            {"series": "2y5", "fires": 3},
            "series: cannot read '2y5'; write for example 1.0~0.05x40, 0.2..0.8x9, nan, null or _",
        ),
    ],
)
def test_run_test(test, problem):
    assert run_test(RULE, test) == problem


def test_config_decides():
    conditional = rule("> config.limit", window=1, when={"use_vllm": True})
    test = {"series": "0x3 2x3", "fires": 4}
    assert run_test(conditional, {**test, "config": {"use_vllm": True, "limit": 1}}) is None
    assert run_test(conditional, {**test, "config": {"use_vllm": True, "limit": 3}}) == "never fires, expected 4"
    assert run_test(conditional, {**test, "config": {"use_vllm": False, "limit": 1}}) == (
        "never fires, expected 4; the rule does not apply, for use_vllm is False: give the test a config"
    )
    assert run_test(conditional, test).endswith("for use_vllm is None: give the test a config")


def test_logging_steps_set_the_step_of_a_point():
    late = rule("step >= 30", window=1)
    assert run_test(late, {"series": "0x5", "fires": 3, "config": {"logging_steps": 10}}) is None
    assert run_test(late, {"series": "0x40", "fires": 30}) is None


def test_not_logged_is_not_null():
    assert run_test(rule("m missing", window=2), {"series": "1 _x3", "fires": 3}) is None
    assert run_test(rule("null", window=1), {"series": "1 _x3 null", "fires": 5}) is None


class Names:
    """A metric map of a trainer that logs `loss`, and `rewards/margins` under the name `margin`."""

    bases = ()
    defaults = {"beta": 0.1}
    derived = ()
    lower_is_better = frozenset()

    def __init__(self, trainer):
        self.trainer = trainer

    def canonical(self, key):
        return {"rewards/margins": "margin"}.get(key, key)

    def is_logged(self, metric):
        return self.trainer == "dpo" and self.canonical(metric) in ("loss", "margin")


def test_names_and_defaults_are_those_of_the_trainer():
    named = rule("> config.beta", metric="rewards/margins", window=1, trainers=("dpo",))
    assert run_test(named, {"series": "0 1", "fires": 2}, Names) is None
    assert run_test(named, {"series": {"margin": "0 1"}, "fires": 2}, Names) is None


def load(tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    return load_rules(tmp_path / "r.yaml")[0]


HEAD = """\
name: r
trainers: [dpo]
metric: loss
condition: "> 1 for 3 steps"
severity: high
message: "Loss at {value}."
min_steps: 1
"""
COMPLETE = """\
status: stable
reference: https://huggingface.co/papers/2402.03300
when: {beta: "> 0"}
why: Because.
fix: Change it.
tests:
  - name: rises
    series: 0~0.1x20 3~0.1x5
    fires: 23
  - name: healthy
    series: 0~0.1x50
    fires: never
  - name: without a reference
    config: {beta: 0.0}
    series: 3x50
    fires: never
"""


def test_complete_rule_may_enter(tmp_path):
    complete = load(tmp_path, HEAD + COMPLETE)
    assert check_tests(complete, Names) == []
    assert check_entry(complete, Names) == []


def test_failing_tests_are_located(tmp_path):
    failing = load(tmp_path, HEAD + "tests:\n  - {name: a, series: 3x9, fires: 4}\n  - {series: 0}\n  - 5\n")
    assert check_tests(failing) == [
        f"{tmp_path}/r.yaml:9:5: tests: 'a': fires at 3, expected 4",
        f"{tmp_path}/r.yaml:10:5: tests: '2': fires: expected never, a point or a list of points, found None",
        f"{tmp_path}/r.yaml:11:5: tests: '3': expected a map, found 5",
    ]


def test_what_keeps_a_rule_out(tmp_path):
    text = HEAD.replace("metric: loss", "metric: lss").replace("[dpo]", "[dpo, sft, all]")
    bare = load(tmp_path, text + "when: {beta: 1}\nfalse_positives: Unknown\ntests:\n  - {series: 3x9, fires: 3}\n")
    assert [problem.removeprefix(f"{tmp_path}/r.yaml:") for problem in check_entry(bare, Names)] == [
        "11:3: tests: needs a firing test on noisy data",
        "11:3: tests: needs a silent test on noisy data",
        "11:3: tests: needs a silent test in which 'when: beta' does not hold",
        "1:1: reference: needs a URL",
        "1:1: status: say stable or experimental",
        "1:1: status: a stable rule needs 'why' and 'fix'",
        "9:18: false_positives: say when, or leave it out",
        "3:9: metric: 'lss' is not logged by dpo in any release",
        "3:9: metric: 'lss' is not logged by sft in any release",
    ]
