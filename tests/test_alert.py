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

"""Inline alerts: the documented examples as they stand, and what a malformed alert says, word for word."""

import pytest
from engine_kit import feed
from hypothesis import given
from hypothesis import strategies as st

from trl_diagnostics.engine.alert import parse_alert
from trl_diagnostics.engine.finding import DiagnosticsError, Severity


@pytest.mark.parametrize(
    "text, name, trainers, metric, condition, window",
    [
        (
            "grpo: importance_sampling_ratio < 0.5 -> high: IS collapsed",
            "alert_importance_sampling_ratio_lt_0_5",
            ("grpo",),
            "importance_sampling_ratio",
            "importance_sampling_ratio < 0.5",
            20,
        ),
        (
            "grpo, online_dpo: importance_sampling_ratio < 0.1 for 20 steps -> critical: IS collapsed",
            "alert_importance_sampling_ratio_lt_0_1_for_20_steps",
            ("grpo", "online_dpo"),
            "importance_sampling_ratio",
            "importance_sampling_ratio < 0.1 for 20 steps",
            1,
        ),
        (
            "dpo: loss range(0.68, 0.71)->low:stuck",
            "alert_loss_range_0_68_0_71",
            ("dpo",),
            "loss",
            "loss range(0.68, 0.71)",
            20,
        ),
        ("all: reward drop(50%) -> medium: fell", "alert_reward_drop_50", ("all",), "reward", "reward drop(50%)", 20),
        ("sft: loss spike(3x) -> info: a -> b: c", "alert_loss_spike_3x", ("sft",), "loss", "loss spike(3x)", 20),
        ("sft: `my: loss` > 1 -> low: x", "alert_my_loss_gt_1", ("sft",), "my: loss", "`my: loss` > 1", 20),
        (
            "sft: step > 5 and loss > 1 -> low: x",
            "alert_step_gt_5_and_loss_gt_1",
            ("sft",),
            "loss",
            "step > 5 and loss > 1",
            20,
        ),
        (
            "grpo: rewards/*/std < 1 -> low: x",
            "alert_rewards_std_lt_1",
            ("grpo",),
            "rewards/*/std",
            "rewards/*/std < 1",
            20,
        ),
    ],
)
def test_alert(text, name, trainers, metric, condition, window):
    rule = parse_alert(text)
    assert (rule.name, rule.trainers, rule.metric) == (name, trainers, metric)
    assert (rule.condition.text, rule.window) == (condition, window)
    assert (rule.min_steps, rule.status, rule.enabled) == (30, "stable", True)


def test_severity_and_message():
    rule = parse_alert("grpo: kl > 5 -> critical: {metric} at {value:.1f}, {kl:.2f}: why?")
    assert rule.severity is Severity.CRITICAL
    assert rule.render({"metric": "kl", "value": 7.0, "kl": 7.0}) == "kl at 7.0, 7.00: why?"


def test_alert_fires():
    (finding,) = feed([parse_alert("all: m < 0.5 for 3 steps -> high: M at {value}")], m=[1.0] * 40 + [0.25] * 5)
    assert (finding.rule, finding.step, finding.first_step) == ("alert_m_lt_0_5_for_3_steps", 43, 41)
    assert (finding.severity, finding.message) == ("high", "M at 0.25")


SHAPE = "expected '<trainer>: <condition> -> <severity>: <message>', found"
USE = "use metric, step, trainer, value, window"
BAD = [
    (5, f"alert: {SHAPE} 5", None),
    ("", f"alert: {SHAPE} ''", None),
    ("loss > 1", f"alert: {SHAPE} 'loss > 1'", None),
    ("grpo: loss > 1", f"alert: {SHAPE} 'grpo: loss > 1'", None),
    ("grpo: loss > 1 -> high", f"alert: {SHAPE} 'grpo: loss > 1 -> high'", None),
    ("grpo: loss > 1 => high: x", f"alert: {SHAPE} 'grpo: loss > 1 => high: x'", None),
    (
        "GRPO: loss > 1 -> high: x",
        "alert:1: trainers: 'GRPO' is not a trainer's name such as 'grpo' or 'all'; write 'grpo'",
        0,
    ),
    (
        "grpo dpo: loss > 1 -> high: x",
        "alert:1: trainers: 'grpo dpo' is not a trainer's name such as 'grpo' or 'all'",
        0,
    ),
    (" : loss > 1 -> high: x", "alert:2: trainers: '' is not a trainer's name such as 'grpo' or 'all'", 1),
    (
        "grpo: loss > 1 -> hgih: x",
        "alert:19: severity: 'hgih' is not one of critical, high, medium, low, info; did you mean 'high'?",
        18,
    ),
    ("grpo: loss > 1 -> : x", "alert:19: severity: '' is not one of critical, high, medium, low, info", 18),
    (
        "grpo:  -> high: x",
        "alert:8: condition: expected a number, a metric or '(', found the end",
        7,
    ),
    (
        "grpo: loss dropp(50%) -> high: x",
        "alert:12: condition: unknown function 'dropp'; did you mean 'drop'?",
        11,
    ),
    ("grpo: loss = 1 -> high: x", "alert:12: condition: unexpected character '='; write '=='", 11),
    ("grpo: loss > 1 for 20 -> high: x", "alert:22: condition: expected 'steps', found the end", 21),
    ("grpo: < 0.5 -> high: x", "alert:7: condition: name the metric to look at, for example 'loss > 10'", 6),
    ("grpo: step > 5 -> high: x", "alert:7: condition: name the metric to look at, for example 'loss > 10'", 6),
    (
        "grpo: loss trend(up) for 5 steps -> high: x",
        "alert:7: condition: 'trend' cannot be judged on single points; leave out 'for'",
        6,
    ),
    (
        "grpo: loss > 1 and rewards/*/std < 1 -> high: x",
        "alert:7: condition: 'rewards/*/std' takes the text of its '*' from the rule's own metric 'loss', which has 0",
        6,
    ),
    ("grpo: loss > 1 -> high:  ", "alert:26: message: say in one sentence what is wrong", 25),
    (
        "grpo: loss > 1 -> high: at {kl}",
        f"alert:25: message: unknown placeholder {{kl}}; {USE}, loss",
        24,
    ),
    (
        "grpo: loss > 1 -> high: at {value",
        "alert:25: message: expected '}' before end of string; write '{{' and '}}' for braces",
        24,
    ),
    ("grpo: loss > 1 -> high: at {value:q}", "alert:25: message: format 'q' does not fit {value}", 24),
]


@pytest.mark.parametrize("text, problem, column", BAD, ids=[repr(text) for text, *_ in BAD])
def test_malformed(text, problem, column):
    with pytest.raises(DiagnosticsError) as error:
        parse_alert(text)
    expected = problem if column is None else f"{problem}\n      {text}\n      {' ' * column}^"
    assert str(error.value) == expected


@given(
    st.one_of(
        st.text(),
        st.builds("{}:{}->{}:{}".format, st.text(max_size=9), st.text(max_size=20), st.text(max_size=6), st.text()),
        st.builds("grpo: {} -> high: {}".format, st.text("loss >1/{}()%", max_size=12), st.text("{}value:.2f! ")),
    )
)
def test_random_text_is_an_alert_or_refused(text):
    try:
        parse_alert(text)
    except DiagnosticsError as error:
        assert str(error).startswith("alert:")


def test_the_place_is_named_by_the_caller_and_stays_readable_over_lines():
    with pytest.raises(DiagnosticsError) as error:
        parse_alert("grpo: loss > 1\n or kl >\n -> high: x", "custom_alerts[2]")
    assert str(error.value) == (
        "custom_alerts[2]:24: condition: expected a number, a metric or '(', found the end\n"
        "      grpo: loss > 1  or kl >  -> high: x\n"
        "                             ^"
    )


def test_metrics_are_checked_where_they_stand():
    def check_metric(metric, trainers):
        return f"'{metric}' is not logged by any of [{', '.join(trainers)}]" if metric == "lss" else None

    assert parse_alert("dpo: `lss` > 1 -> high: x", check_metric=check_metric).metric == "lss"
    with pytest.raises(DiagnosticsError) as error:
        parse_alert("dpo: kl > 1 and lss > 1 -> high: x", check_metric=check_metric)
    assert str(error.value).splitlines() == [
        "alert:17: condition: 'lss' is not logged by any of [dpo]",
        "      dpo: kl > 1 and lss > 1 -> high: x",
        "                      ^",
    ]
