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

"""Conditions in words: exact sentences for each function and statistic, and none where the condition reads better."""

import pytest

from trl_diagnostics.engine.condition import parse_condition
from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.engine.tree import SHORTEST
from trl_diagnostics.engine.when import parse_when
from trl_diagnostics.wording import MEANINGS, clauses, in_words, meanings, when_in_words


def rule(condition, window=20):
    return Rule("boom", ("grpo",), "reward", parse_condition(condition), Severity.HIGH, "Boom.", window=window)


@pytest.mark.parametrize(
    ("condition", "window", "words"),
    [
        ("< 0.5", 20, "the mean of the last 20 logs of reward is below 0.5"),
        ("< 0.5 for 10 steps", 1, "reward is below 0.5, at 10 logs in a row"),
        ("kl > 1 for 3 of 5 steps", 1, "kl is above 1, at 3 of the last 5 logs"),
        ("> 0 for 1 step", 1, "reward is above 0"),
        ("== 0", 1, "reward is 0"),
        ("kl == reward", 1, "kl equals reward"),
        ("!= 1", 1, "reward is not 1"),
        ("kl <= 10 * config.beta", 1, "kl is at most 10 times beta"),
        ("range(0.68, 0.71)", 5, "the mean of the last 5 logs of reward is between 0.68 and 0.71"),
        ("outside(0.9, 1.1)", 1, "reward is below 0.9 or above 1.1"),
        (
            "drop(50%)",
            20,
            "the mean of the last 20 logs of reward is at least 50% below that of the first 20 past warm-up",
        ),
        ("kl rise(2)", 10, "the mean of the last 10 logs of kl is at least 2 above that of the first 10 past warm-up"),
        ("plateau(5%)", 20, "the halves of the last 20 logs of reward differ by at most 5%"),
        ("spike(3x)", 20, "one of the last 5 logs of reward is above 3 times the mean of the 20 before these"),
        ("outlier(6)", 20, "the last reward is more than 6 median distances above the median of the 20 logs before"),
        ("trend(up)", 20, "the last 20 logs of reward rise beyond their noise"),
        ("trend(down, 50%)", 20, "the last 20 logs of reward fall beyond their noise, by more than 50%"),
        ("nonfinite for 2 steps", 1, "reward is not a finite number, at 2 logs in a row"),
        ("null", 1, "reward is null"),
        ("frozen", 10, "the last 10 logs of reward are one and the same number"),
        ("kl missing", 10, "kl is in none of the last 10 logs"),
        ("kl missing for 3 steps", 1, "kl is not logged, at 3 logs in a row"),
        ("last(kl) > 0.5 and step <= 20", 20, "kl is above 0.5 and step is at most 20"),
        ("abs(last(kl)) > 0.5", 20, "the size of kl is above 0.5"),
        ("delta(kl) == 0", 20, "the change of kl from log to log is 0"),
        ("median(kl, 5) > 1", 20, "the median of the last 5 logs of kl is above 1"),
        ("max(kl, 1) > 1", 20, "kl is above 1"),
        ("best(reward, 1) <= 0", 20, "the best reward so far is at most 0"),
        ("last(kl) > baseline(kl, 3)", 20, "kl is above the mean of the first 3 logs of kl past warm-up"),
        ("count(kl, 5) == 0", 20, "the number of finite values in the last 5 logs of kl is 0"),
    ],
)
def test_in_words(condition, window, words):
    assert in_words(rule(condition, window)) == words


@pytest.mark.parametrize(
    "condition",
    [
        "not > 5",
        "> 1 and (kl < 5 or kl > 9)",
        "reward - kl > 2",
        "exp(kl) > 2",
        "mean(reward, 5) > 1 and mean(kl, 5) > 1 and mean(entropy, 5) > 1 and mean(loss, 5) > 1",
    ],
)
def test_no_words(condition):
    assert in_words(rule(condition)) is None


def test_clauses_are_split_outside_of_parentheses():
    assert clauses(rule("> 1 and (kl < 5 or  kl > 9) or reward < mean(kl, 5) for 3 of 5 steps")) == [
        "> 1",
        "and (kl < 5 or kl > 9)",
        "or reward < mean(kl, 5)",
        "for 3 of 5 steps",
    ]


def test_meanings_are_those_of_what_the_condition_uses():
    assert meanings(rule("value > best(kl, 5) for 2 steps", 10)) == [
        "value, or no name at all: reward",
        "best(x, n): best mean of n logs in a row since the start",
        "a metric without a function: mean of its last 10 logs",
        "for n steps: at n logs in a row",
    ]
    assert meanings(rule("last(kl) > 3 / config.samples_per_log")) == [
        "config.samples_per_log: samples in one log, over all processes"
    ]
    assert meanings(rule("mean(kl, 5) > 1")) == []


def test_each_name_in_the_meanings_exists():
    assert {"frozen", "plateau", "outlier", "trend", "slope", "mad"} <= set(MEANINGS) & set(SHORTEST)


def test_when_in_words():
    when = {
        "beta": parse_when("> 0"),
        "loss_type": parse_when(["grpo", "dapo"]),
        "use_vllm": parse_when(True),
        "ref_model": parse_when("!= null"),
    }
    assert when_in_words(when) == "beta > 0.0, loss_type is grpo or dapo, use_vllm is True, ref_model is not null"
