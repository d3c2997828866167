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

"""What `explain` says about rules and metrics, word for word, and that it knows every rule and every name."""

import pytest

from trl_diagnostics.engine.condition import CALLED, PLAIN, STATISTICS, parse_condition
from trl_diagnostics.engine.finding import DiagnosticsError, Severity
from trl_diagnostics.engine.rule import Rule, load_rules
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.engine.when import parse_when
from trl_diagnostics.explain import MEANINGS, clauses, explain, meanings, when_in_words
from trl_diagnostics.metrics.catalogue import names, typical


CAUSE = """\
name: lr_gone
trainers: [all]
metric: learning_rate
condition: "== 0 for 2 steps"
severity: high
message: "Learning rate 0."
min_steps: 2
"""
SYMPTOM = """\
name: margin_lost
description: The margin fell back from its best
trainers: [dpo, kto]
metric: rewards/margins
condition: "value < 0.3 * best(reward_margin, 10) and reward_margin < 1 - 2 * std(reward_margin, 20) for 2 steps"
window: 10
severity: medium
message: "The margin fell to {value:.3f}."
reference: [https://huggingface.co/papers/2305.18290, https://github.com/huggingface/trl/issues/1356]
min_steps: 20
status: experimental
when: {beta: "> 0", loss_type: [sigmoid, ipo]}
unless: [lr_gone]
why: A margin that was there and is lost is a fault.
fix: |
  Go back to the checkpoint with the best margin. Lower `learning_rate`, keep `max_grad_norm` at 1.0, and look at the data.
false_positives: [Another data set from here on.]
renamed_from: [margin_fell]
"""


@pytest.fixture
def rules(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "lr_gone.yaml").write_text(CAUSE)
    (tmp_path / "margin_lost.yaml").write_text(SYMPTOM)
    return load_rules(tmp_path)


def test_a_rule(rules):
    assert (
        explain("margin_lost", rules)
        == """\
margin_lost: The margin fell back from its best
  medium, experimental; trainers: dpo, kto

Speaks when
  value < 0.3 * best(reward_margin, 10)
  and reward_margin < 1 - 2 * std(reward_margin, 20)
  for 2 steps
  - value, or no name at all: rewards/margins
  - best(x, n): best mean of n logs in a row since the start
  - a metric without a function: its mean over the window
  - window: the last 10 logs
  - for 2 steps: at 2 logs in a row
  Not before log 20. A log is `logging_steps` optimizer steps.

Only where
  beta > 0, loss_type is sigmoid or ipo

Says
  The margin fell to {value:.3f}.

Why
  A margin that was there and is lost is a fault.

What to do
  Go back to the checkpoint with the best margin. Lower `learning_rate`, keep
  `max_grad_norm` at 1.0, and look at the data.

Wrong when
  Another data set from here on.

Silent while one of these explains it
  lr_gone: Learning rate 0.

Earlier names
  margin_fell

References
  https://huggingface.co/papers/2305.18290
  https://github.com/huggingface/trl/issues/1356"""
    )


def test_a_rule_without_much(rules):
    assert (
        explain("lr_gone", rules)
        == """\
lr_gone: Learning rate 0.
  high, stable; trainers: all

Speaks when
  == 0
  for 2 steps
  - value, or no name at all: learning_rate
  - for 2 steps: at 2 logs in a row
  Not before log 2. A log is `logging_steps` optimizer steps.

Says
  Learning rate 0.

While it speaks, these are silent
  margin_lost: The margin fell back from its best"""
    )


def test_a_rule_by_its_old_name(rules):
    with pytest.warns(FutureWarning, match="rule 'margin_fell' is now 'margin_lost'"):
        assert explain("margin_fell", rules) == explain("margin_lost", rules)


@pytest.mark.parametrize("spelling", ["sampling_logp_difference", "sampling/sampling_logp_difference/mean"])
def test_a_metric(spelling, rules, monkeypatch):
    monkeypatch.setitem(typical(), "sampling_logp_difference", {"grpo": [0.01, 0.02], "dppo": [0, 0]})
    assert (
        explain(spelling, rules)
        == """\
sampling_logp_difference (nats per token; lower is better)
  Mean absolute difference of the log-probabilities of the training and the
  sampling engine

Where it comes from
  sampling/sampling_logp_difference/mean (if use_vllm and
      vllm_importance_sampling_correction): gfpo 0.24.0 to 1.7.1; gmpo since
      1.7.0; grpo since 0.23.0; grpowithreplaybuffer 0.24.0 to 1.13.0; minillm
      0.26.0 to 1.14.2; papo 0.25.0 to 1.7.1

Rules may also call it
  sampling_logp_difference_mean

Typical values
  5th to 95th percentile of all logs of recorded healthy runs: small models
      really trained, none replayed, even seeds, default loss.
  grpo: 0.01 to 0.02
  dppo: 0

Computed from it
  sampling_mismatch_sequence = sampling_logp_difference * completion_length"""
    )


def test_a_key_that_means_several_things(rules):
    out = explain("rewards/margins", rules)
    assert out.startswith("reward_margin (beta x nats; higher is better)\n  Implicit reward of the chosen answer")
    assert "\n  rewards/margins: bco 0.10.1 to 1.13.0; cpo, orpo since 0.8.2; dpo since 0.7.0;" in out
    assert "\nRules that look at it\n  margin_lost (medium): The margin fell back from its best\n" in out
    assert "\nAlso called rewards/margins\n  policy_ref_logp_gap (nashmd): Log-probability of the policy's" in out


def test_a_key_of_one_trainer(rules):
    assert explain("kl", rules).startswith("kl (nats per token)\n")
    out = explain("kl", rules, "kto")
    assert out.startswith("kl_reference_point (nats per sequence)\n") and "Also called" not in out


def test_a_metric_of_evaluation(rules):
    out = explain("eval_rewards/margins", rules)
    assert out.startswith("reward_margin (")
    assert "\nIn evaluation\n  'eval_rewards/margins' is the same quantity on the evaluation data.\n" in out


def test_a_derived_metric(rules):
    assert (
        explain("kl_penalty", rules)
        == """\
kl_penalty (reward)
  What the KL takes off the reward

Computed from other metrics
  config.beta * kl * completion_length for rloo, with beta != 0"""
    )


def test_a_metric_that_the_callback_measures(rules):
    out = explain("nonfinite_parameters", rules)
    assert "\n  DiagnosticsCallback measures it; TRL does not log it." in out


def test_a_pattern(rules):
    assert explain("rewards/accuracy_reward/std", rules).startswith("rewards/{name}/std (reward)\n")


def test_a_key_without_a_name_of_ours(rules):
    assert explain("perf/mfu", rules) == "perf/mfu\n  TRL may log it under this name; rules may use it as it is."


def test_what_is_no_metric(rules):
    assert explain("step", rules) == ("step\n  The optimizer step of a log. Conditions may use it; it is no metric.")


def test_names_of_the_language(rules, tmp_path):
    text = CAUSE.replace("lr_gone", "noisy").replace('"== 0', '"> 3 / config.samples_per_log')
    (tmp_path / "noisy.yaml").write_text(text)
    out = explain("samples_per_log", load_rules(tmp_path))
    assert out == explain("config.samples_per_log", load_rules(tmp_path))
    assert out.startswith("config.samples_per_log\n  How many samples one log is the mean of, ")
    assert out.endswith("\n\nRules that look at it\n  noisy (high): Learning rate 0.")
    assert explain("time", rules).startswith("time\n  When a log was written, in seconds.")
    assert explain("seconds_per_step", rules).startswith("seconds_per_step (seconds per step; lower is better)\n")


@pytest.mark.parametrize("name", ["{name}", "rewards/{x}/mean", "perf/{x}"])
def test_a_name_with_braces(name, rules):
    with pytest.raises(DiagnosticsError) as error:
        explain(name, rules)
    assert str(error.value) == f"explain: '{name}' is no name; write it as it is logged, without braces"


def test_a_pattern_of_ours_may_have_braces(rules):
    assert explain("rewards/{name}/mean", rules).startswith("rewards/{name}/mean (reward")


def test_releases_of_a_trainer_do_not_overlap(rules):
    out = explain("objective/kl", rules)
    assert "; ppo 0.7.0 to 1.12.0; " in out and out.count("ppo 0.") == 1


def condition(text, window=20):
    return Rule("boom", ("grpo",), "reward", parse_condition(text), Severity.HIGH, "Boom.", window=window)


def test_clauses_are_split_outside_of_parentheses():
    assert clauses(condition("> 1 and (kl < 5 or  kl > 9) or reward < mean(kl, 5) for 3 of 5 steps")) == [
        "> 1",
        "and (kl < 5 or kl > 9)",
        "or reward < mean(kl, 5)",
        "for 3 of 5 steps",
    ]


@pytest.mark.parametrize(
    ("text", "window", "lines"),
    [
        (
            "value > best(kl, 5) for 2 steps",
            10,
            [
                "value, or no name at all: reward",
                "best(x, n): best mean of n logs in a row since the start",
                "a metric without a function: its mean over the window",
                "window: the last 10 logs",
                "for 2 steps: at 2 logs in a row",
            ],
        ),
        (
            "last(kl) > 3 / config.samples_per_log",
            20,
            ["last(x): the last log alone", "config.samples_per_log: samples in one log, over all processes"],
        ),
        ("mean(kl, 5) > 1", 20, []),
        ("mean(kl) > 1", 20, ["window: the last 20 logs"]),
        ("kl > 1 and step > 5 for 1 step", 1, []),
        (
            "kl missing for 3 of 5 steps",
            1,
            [
                "missing: in none of the logs of the window",
                "window: the last log",
                "for 3 of 5 steps: at 3 of the last 5 logs",
            ],
        ),
        ("nonfinite", 20, ["value, or no name at all: reward", "nonfinite: the last log is NaN or infinite"]),
    ],
)
def test_meanings_are_those_of_what_the_condition_uses(text, window, lines):
    assert meanings(condition(text, window)) == lines


def test_each_function_has_a_meaning():
    assert {*CALLED, *PLAIN, *STATISTICS} - set(MEANINGS) == {"mean", "median", "min", "max", "std"}
    assert all(text.startswith(name) for name, text in MEANINGS.items())


def test_when_in_words():
    when = {
        "beta": parse_when("> 0"),
        "loss_type": parse_when(["grpo", "dapo"]),
        "use_vllm": parse_when(True),
        "ref_model": parse_when("!= null"),
    }
    assert when_in_words(when) == "beta > 0, loss_type is grpo or dapo, use_vllm is True, ref_model is not null"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("margin_lst", "; did you mean 'margin_lost'?"),
        ("reward/margins", "; did you mean 'rewards/margins'?"),
        ("qqq", ""),
    ],
)
def test_an_unknown_name(name, hint, rules):
    with pytest.raises(DiagnosticsError) as error:
        explain(name, rules)
    assert str(error.value) == f"explain: no rule or metric '{name}'{hint}"


@pytest.mark.parametrize("width", ["80", "119", "200"])
def test_no_line_is_wider_than_the_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", width)
    rules = collect_rules()
    for name in [*(rule.name for rule in rules), *names().names]:
        lines = explain(name, rules).splitlines()
        wide = [line for line in lines if len(line) > min(int(width), 119) and " " in line.strip()]
        assert wide == [], name
        assert "\x1b" not in "".join(lines)


def test_no_rule_has_the_name_of_a_metric():
    derived = {item["name"] for item in names().derived}
    assert {rule.name for rule in collect_rules()} & (
        {*names().names, *names().keys, *names().aliases} | derived
    ) == set()
