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

"""Episodes: exactly where findings start and resolve, what they say, what silences them, and state through JSON."""

import json
import math
import random

import pytest
from engine_kit import episodes, feed, records, rule, spans
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import DiagnosticsError, Record
from trl_diagnostics.metrics.names import MetricMap


NAN, INF = math.nan, math.inf


class Names:
    """A metric map: one alias, one derived metric on another, one that needs an argument, one metric to be minimized."""

    bases = ("grpo",)
    defaults = {"beta": 0.1, "use_vllm": False}
    derived = (
        {"name": "gap_share", "formula": "gap / reward"},
        {"name": "gap", "formula": "max_reward - reward"},
        {"name": "perplexity", "formula": "exp(loss)", "when": {"loss_type": ["nll"]}},
    )
    lower_is_better = frozenset({"loss"})

    def canonical(self, key):
        return {"rewards/margins": "margin", "train_loss": "loss"}.get(key, key)

    everywhere = frozenset({"loss"})

    def expects(self, name):
        return name != "kl"

    def is_off(self, name, config):
        return name == "kl" and config["beta"] == 0


# Where an episode starts and ends


@pytest.mark.parametrize(
    "condition, points, fields, expected",
    [
        # single points
        ("> 1", [0, 2, 2, 0, 0], {"window": 1}, [("started", 2), ("resolved", 4)]),
        ("> 1", [2, 2, 2], {"window": 1}, [("started", 1)]),
        ("> 1", [2, 0, 2, 0], {"window": 1}, [("started", 1), ("resolved", 2), ("started", 3), ("resolved", 4)]),
        # it resolves after `window` points without the condition; here the mean of 3 stays high for a while
        ("> 1", [0, 0, 6, 0, 0, 0, 0, 0], {"window": 3}, [("started", 3), ("resolved", 8)]),
        ("last(m) > 1", [2, 0, 0, 2, 0, 0, 0], {"window": 3}, [("started", 1), ("resolved", 7)]),
        # unknown never fires
        ("> 1", [9, 9], {"window": 3}, []),
        ("> 1", [NAN, NAN, None], {"window": 1}, []),
        # min_steps: the rule keeps quiet, the streak counts from the first point
        ("> 1", [2] * 10, {"window": 1, "min_steps": 7}, [("started", 7)]),
        ("> 1 for 5 steps", [2] * 10, {"min_steps": 7}, [("started", 7)]),
        ("> 1 for 5 steps", [0] * 4 + [2] * 6, {"min_steps": 7}, [("started", 9)]),
        ("> 1", [2, 2, 0, 0, 0], {"window": 1, "min_steps": 4}, []),
        # for N
        ("> 1 for 3 steps", [2, 2, 0, 2, 2, 2, 2, 0], {}, [("started", 6), ("resolved", 8)]),
        ("> 1 for 3 steps", [2, 2, NAN, 2, 2, 2], {}, [("started", 6)]),  # unknown breaks a streak
        ("last(m) > 1 for 3 steps", [2, 2, 2, 0, 2, 2, 0], {"window": 9}, [("started", 3)]),
        # for N of M
        ("> 1 for 3 of 5 steps", [2, 0, 2, 0, 2, 0, 0], {}, [("started", 5), ("resolved", 6)]),
        ("> 1 for 3 of 5 steps", [2, 2, 0, 0, 0, 2, 2], {}, []),
        ("> 1 for 3 of 5 steps", [2, 2, NAN, NAN, 2, 0], {}, [("started", 5), ("resolved", 6)]),
        ("> 1 for 2 of 4 steps", [2, 2, 0, 0, 0, 2, 2], {}, [("started", 2), ("resolved", 5), ("started", 7)]),
    ],
)
def test_episode(condition, points, fields, expected):
    assert spans(condition, points, **fields) == expected


def expected_spans(true, n, m, window, min_steps):
    """Starts and resolutions, from the words of the rule format: N of the last M, silent before `min_steps`."""
    found, active, quiet = [], False, 0
    for i in range(len(true)):
        holds = sum(true[max(0, i + 1 - m) : i + 1]) >= n
        quiet = 0 if holds else quiet + 1
        if active and quiet >= window:
            active = False
            found.append(("resolved", i + 1))
        elif not active and holds and i + 1 >= min_steps:
            active = True
            found.append(("started", i + 1))
    return found


@settings(max_examples=300)
@given(
    points=st.lists(st.sampled_from([0.0, 2.0, 2.0, NAN, None]), min_size=1, max_size=40),
    n=st.integers(1, 4),
    more=st.integers(0, 3),
    window=st.integers(1, 5),
    min_steps=st.integers(1, 12),
)
def test_random_episodes(points, n, more, window, min_steps):
    text = f"last(m) > 1 for {n} of {n + more} steps"
    true = [point == 2.0 for point in points]
    assert spans(text, points, window=window, min_steps=min_steps) == expected_spans(
        true, n, n + more, window, min_steps
    )


def first_steps(condition, points, **fields):
    return [(f.state, f.step, f.first_step) for f in feed([rule(condition, **fields)], m=points)]


@pytest.mark.parametrize(
    "condition, points, fields, expected",
    [
        ("> 1 for 3 steps", [0, 2, 2, 2, 0], {}, [("started", 4, 2), ("resolved", 5, 2)]),
        ("> 1 for 2 of 4 steps", [2, 0, 0, 2, 0], {}, [("started", 4, 1), ("resolved", 5, 1)]),
        ("> 1", [2] * 5, {"window": 1, "min_steps": 4}, [("started", 4, 1)]),
        # the second episode's streak begins before the first one is resolved
        (
            "last(m) > 1 for 3 steps",
            [2, 2, 2, 0, 2, 2, 2, 0, 0],
            {"window": 2},
            [("started", 3, 1), ("resolved", 5, 1), ("started", 7, 5), ("resolved", 9, 5)],
        ),
    ],
)
def test_first_step_is_where_the_condition_became_true(condition, points, fields, expected):
    assert first_steps(condition, points, **fields) == expected


def test_episode_goes_on_over_a_short_gap():
    assert spans("last(m) > 1 for 2 steps", [2, 2, 0, 2, 2, 0, 0, 0], window=3) == [("started", 2), ("resolved", 8)]


def test_points_are_logged_values_and_not_steps():
    found = episodes([rule("> 1 for 3 steps")], m=[2, "_", "_", 2, "_", 2], other=[0] * 6)
    assert found == [("r", "started", 6)]


def test_records_of_other_phases_count_for_their_metrics():
    engine = Engine([rule("> 1 for 2 steps", metric="eval_loss")])
    found = []
    for train, evaluation in zip(records(loss=[1.0] * 3), records("eval", first=1, eval_loss=[2.0] * 3), strict=True):
        found += engine.update(train) + engine.update(evaluation)
    assert [(f.state, f.step) for f in found] == [("started", 2)]
    assert engine.records == 3


# What a finding says


def test_finding():
    full = rule(
        "> 2 * kl for 2 steps",
        severity="medium",
        message="{metric} {value:.1f} kl {kl:.1f} step {step} of {trainer}, {window} point",
        why="w",
        fix="f",
        reference=("https://x",),
        status="experimental",
    )
    (finding,) = feed([full], trainer="grpo", m=[0.0, 5.0, 6.0], kl=[1.0, 1.0, 2.0])
    assert finding.to_json() == {
        "rule": "r",
        "severity": "medium",
        "state": "started",
        "step": 3,
        "first_step": 2,
        "metric": "m",
        "value": 6.0,
        "message": "m 6.0 kl 2.0 step 3 of grpo, 1 point",
        "why": "w",
        "fix": "f",
        "reference": ["https://x"],
        "evidence": {"m": 6.0, "kl": 2.0},
        "trainer": "grpo",
        "status": "experimental",
        "cascade_of": None,
    }


@pytest.mark.parametrize(
    "condition, window, points, evidence",
    [
        ("> 1", 2, [1.0, 3.0], {"m": 2.0}),
        ("drop(50%)", 2, [4.0, 4.0, 1.0, 1.0], {"m": 1.0, "baseline(value)": 4.0}),
        ("> config.beta * max(value, 2)", 1, [1.0, 3.0], {"config.beta": 0.1, "max(value, 2)": 3.0, "m": 3.0}),
        ("nonfinite", 3, [1.0, 1.0, 1.0, INF], {"m": INF}),
        ("null", 3, [1.0, 1.0, 1.0, None], {"m": None}),
    ],
)
def test_evidence(condition, window, points, evidence):
    (finding,) = feed([rule(condition, window=window)], config={"beta": 0.1}, m=points)
    assert finding.evidence == evidence
    assert finding.value == evidence["m"]


def test_message_of_a_null():
    (finding,) = feed([rule("null", window=1, message="{metric} is {value:.2f}")], m=[None])
    assert finding.message == "m is null"


# Rules that look at several metrics


def test_other_metrics_are_read_when_the_rules_own_metric_comes():
    found = episodes([rule("> 1 and kl > 1", window=1)], m=[2, 2, "_", 2], kl=["_", 0, 2, "_"])
    assert found == [("r", "started", 4)]


def test_glob_judges_each_metric_on_its_own():
    star = rule("> 1 for 2 steps", metric="rewards/*/std", severity="low")
    found = feed([star], rewards__a__std=[2, 2, 0], rewards__b__std=[0, 2, 2], rewards__a__mean=[9, 9, 9])
    assert [(f.metric, f.state, f.step) for f in found] == [
        ("rewards/a/std", "started", 2),
        ("rewards/a/std", "resolved", 3),
        ("rewards/b/std", "started", 3),
    ]


def test_glob_in_a_condition_takes_the_captured_text():
    star = rule("> rewards/*/mean", metric="rewards/*/std", window=1, message="{rewards/*/mean} of {metric}")
    found = feed(
        [star], rewards__a__std=[1, 3], rewards__a__mean=[2, 2], rewards__b__std=[5, 0], rewards__b__mean=[9, 9]
    )
    assert [(f.metric, f.step, f.message, f.evidence) for f in found] == [
        ("rewards/a/std", 2, "2.0 of rewards/a/std", {"rewards/a/std": 3, "rewards/*/mean": 2})
    ]


def test_two_globs_are_filled_in_order():
    star = rule("> b/*/a/*", metric="a/*/b/*", window=1)
    found = feed([star], **{"a/x/b/y": [2], "b/x/a/y": [1], "b/y/a/x": [9]})
    assert [f.metric for f in found] == ["a/x/b/y"]


def test_star_stands_for_text_without_a_slash():
    assert [
        f.metric for f in feed([rule("> 0", metric="a/*", window=1)], **{"a/b": [1], "a/b/c": [1], "xa/b": [1]})
    ] == ["a/b"]


def test_missing_is_judged_while_others_are_logged():
    found = episodes([rule("missing", window=3)], m=[1, 1, "_", "_", "_", "_", 1], other=[0] * 7)
    assert found == [("r", "started", 5)]
    never = episodes([rule("missing", window=3)], other=[0] * 5)
    assert never == [("r", "started", 3)]
    two = episodes([rule("a missing or b missing", window=2)], m=[1] * 4, a=[1] * 4, b=[1, "_", "_", "_"])
    assert two == [("r", "started", 3)]


def test_an_unknown_trainer_does_not_miss_the_metrics_of_another_one():
    absent = rule("kl missing", window=2, trainers=("grpo",))
    assert episodes([absent], trainer="grpo", m=[1] * 4) == [("r", "started", 2)]
    assert episodes([absent], trainer=None, m=[1] * 4) == []
    assert episodes([absent], trainer=None, m=[1] * 4, kl=[1, "_", "_", "_"]) == [("r", "started", 3)]


def test_step_is_that_of_the_record_in_every_phase():
    engine = Engine([rule("> 0 and step >= 20", window=1), rule("> 0 and step >= 20", "e", "eval_m", window=1)])
    assert engine.update(Record(10, 0.0, "train", {"m": 1.0})) == []
    assert [f.rule for f in engine.update(Record(20, 0.0, "eval", {"eval_m": 1.0}))] == ["e"]
    assert [f.rule for f in engine.update(Record(20, 0.0, "train", {"m": 1.0}))] == ["r"]


def test_warmup_is_no_baseline():
    points = [9, 9, 9, 1, 1, 4, 4]
    rise = rule("rise(100%)", window=2)
    assert spans("rise(100%)", points, window=2) == []
    assert episodes([rise], config={"warmup_steps": 3}, m=points) == [("r", "started", 7)]


# Which rules speak


def test_rules_of_the_trainer_and_its_bases():
    rules = [
        rule("> 0", "everyone", window=1),
        rule("> 0", "family", window=1, trainers=("grpo",)),
        rule("> 0", "own", window=1, trainers=("async_grpo", "dpo")),
        rule("> 0", "other", window=1, trainers=("dpo",)),
        rule("> 0", "off", window=1, enabled=False),
    ]
    assert {f.rule for f in feed(rules, trainer="asyncgrpo", metric_map=Names(), m=[1])} == {
        "everyone",
        "family",
        "own",
    }
    assert {f.rule for f in feed(rules, trainer="dpo", m=[1])} == {"everyone", "own", "other"}
    assert {f.rule for f in feed(rules, trainer=None, m=[1])} == {"everyone", "family", "own", "other"}


@pytest.mark.parametrize(
    "config, fires",
    [
        ({"use_vllm": True}, True),
        ({"use_vllm": False}, False),
        ({}, False),  # TRL's default
        ({"use_vllm": True, "beta": 0}, False),
        ({"use_vllm": True, "loss_type": ["bco", "sigmoid"]}, True),
    ],
)
def test_when(config, fires):
    conditional = rule("> 0", window=1, when={"use_vllm": True, "beta": "> 0"})
    engine = Engine([conditional], "grpo", config, Names())
    assert bool([f for record in records(m=[1]) for f in engine.update(record)]) is fires
    assert engine.coverage() == {"r": "active" if fires else "not applicable"}


def test_unknown_argument_of_an_old_log_is_not_applicable():
    assert Engine([rule("> 0", when={"brand_new": None})]).coverage() == {"r": "not applicable"}


def test_config_numbers():
    points = [0.05, 0.2]
    assert episodes([rule("> config.beta", window=1)], metric_map=Names(), m=points) == [("r", "started", 2)]
    assert episodes([rule("> config.beta", window=1)], config={"beta": "auto"}, m=points) == []
    assert episodes([rule("> config.use_vllm", window=1)], config={"use_vllm": True}, m=[2.0]) == []  # no number


def test_unless():
    symptom = rule("> 1", "symptom", window=1, unless=("old_cause",))
    cause = rule("> 1", "cause", metric="kl", window=1, renamed_from=("old_cause",))
    found = episodes([symptom, cause], m=[0, 2, 2, 2, 0, 2], kl=[0, 2, 2, 0, 0, 0])
    # judged after its cause although it is listed before; it speaks up once the cause is gone
    assert found == [
        ("cause", "started", 2),
        ("cause", "resolved", 4),
        ("symptom", "started", 4),
        ("symptom", "resolved", 5),
        ("symptom", "started", 6),
    ]


def test_unless_does_not_end_what_has_started():
    symptom = rule("> 1", "symptom", window=1, unless=("cause",))
    cause = rule("> 1", "cause", metric="kl", window=1)
    assert episodes([cause, symptom], m=[2, 2, 0], kl=[0, 2, 2]) == [
        ("symptom", "started", 1),
        ("cause", "started", 2),
        ("symptom", "resolved", 3),
    ]


def test_what_a_cause_takes_over_is_not_said_to_be_over():
    early = rule("range(0, 5)", "early", window=1, unless=("late",))
    late = rule("> 2", "late", window=1)
    found = feed([early, late], m=[1, 9, 1, 9, 9, 1, -1, -1])
    assert [(f.rule, f.step, f.message) for f in found if f.state == "resolved"] == [
        ("early", 2, "Taken over by late at step 2."),
        ("late", 3, "Over at step 3."),
        ("early", 4, "Taken over by late at step 4."),
        ("late", 6, "Over at step 6."),
        ("early", 7, "Over at step 7."),
    ]


def test_circle_of_unless():
    rules = [rule("> 1", "a", unless=("b",)), rule("> 1", "b", unless=("c",)), rule("> 1", "c", unless=("a",))]
    with pytest.raises(DiagnosticsError, match="^rules silence each other in a circle: a -> b -> c -> a$"):
        Engine(rules)


def test_cascade():
    rules = [
        rule("> 1", "later", severity="low", window=1),
        rule("nonfinite", "root", metric="loss", severity="critical", window=1),
        rule("nonfinite", "second", metric="grad_norm", severity="critical", window=1),
    ]
    found = feed(rules, m=[0, 0, 2, 0, 2], loss=[1, NAN, NAN, 1, 1], grad_norm=[1, NAN, 1, 1, 1])
    assert [(f.rule, f.state, f.step, f.cascade_of) for f in found] == [
        ("root", "started", 2, None),
        ("second", "started", 2, "root"),
        ("later", "started", 3, "root"),
        ("second", "resolved", 3, None),
        ("later", "resolved", 4, None),
        ("root", "resolved", 4, None),
        ("later", "started", 5, None),
    ]


def test_a_rule_is_no_cascade_of_itself():
    star = rule("> 1", metric="a/*", severity="critical", window=1)
    assert [f.cascade_of for f in feed([star], **{"a/x": [2], "a/y": [2]})] == [None, None]


# Derived metrics


def test_derived_metrics():
    rules = [rule("> 1", "share", metric="gap_share", window=1), rule("> 10", "ppl", metric="perplexity", window=1)]
    series = {"reward": [2.0, 1.0, 0.0, None, "_"], "max_reward": [3.0, 3.0, 3.0, 3.0, 3.0], "loss": [0, 1, 2, 3, 3]}
    found = feed(rules, config={"loss_type": "nll"}, metric_map=Names(), **series)
    # the third record has gap / 0, the fourth null, the fifth lacks an input: no point of gap_share
    assert [(f.rule, f.state, f.step, f.value) for f in found] == [
        ("share", "started", 2, 2.0),
        ("ppl", "started", 4, pytest.approx(math.exp(3))),
    ]


def test_derived_metric_needs_its_when():
    ppl = rule("> 10", metric="perplexity", window=1)
    assert feed([ppl], config={"loss_type": "chunked"}, metric_map=Names(), loss=[3]) == []
    assert feed([ppl], metric_map=Names(), loss=[3]) == []


def test_what_the_trainer_logs_itself_is_not_derived():
    (finding,) = feed([rule("> 1", metric="gap", window=1)], metric_map=Names(), reward=[0], max_reward=[9], gap=[2])
    assert finding.value == 2


def test_names_of_a_rule_are_made_canonical():
    renamed = rule("> train_loss", metric="rewards/margins", window=1)
    (finding,) = feed([renamed], metric_map=Names(), margin=[2], loss=[1])
    assert (finding.metric, finding.evidence) == ("margin", {"margin": 2, "train_loss": 1})


def test_best_of_a_loss_is_its_lowest():
    rules = [rule("value - best(value, 1) > 1", "up", metric="loss", window=1)]
    assert episodes(rules, metric_map=Names(), loss=[3.0, 1.0, 2.5]) == [("up", "started", 3)]
    assert episodes(rules, loss=[3.0, 1.0, 2.5]) == []


# Coverage


def test_a_metric_that_needs_an_option_is_no_reason_to_be_blind():
    rules = [rule("> 1 for 1 step", name, metric=name) for name in ("kl", "loss")]
    engine = Engine(rules, metric_map=Names())
    feed_into = [engine.update(record) for record in records(other=[1.0])]
    assert feed_into == [[]]
    assert engine.coverage() == {"kl": "not applicable", "loss": "blind"}


def test_one_side_of_an_or_is_enough_to_see():
    one_of_two = rule("loss nonfinite or entropy nonfinite for 1 step", "either", metric="loss")
    both = rule("loss > 1 and entropy > 1 for 1 step", "both", metric="loss")
    neither = rule("not (reward > 1 or entropy > 1) for 1 step", "neither", metric="loss")
    engine = Engine([one_of_two, both, neither])
    assert [f.rule for record in records(loss=[1.0, float("nan")]) for f in engine.update(record)] == ["either"]
    assert engine.coverage() == {"either": "active", "both": "blind", "neither": "blind"}


def test_derived_metric_follows_the_first_metric_of_its_formula():
    """As `eval_loss - loss`, whose two sides never come in one record."""
    gap = rule("> 0 for 1 step", metric="gap")
    engine = Engine([gap], metric_map=Names())
    assert [f for record in records(reward=[1.0, 2.0]) for f in engine.update(record)] == []
    (finding,) = [f for record in records("eval", 3, max_reward=[5.0]) for f in engine.update(record)]
    assert (finding.step, finding.value) == (3, 3.0)


@pytest.mark.parametrize(
    ("condition", "config", "status"),
    [
        ("> config.beta", {}, "not applicable"),
        ("> config.beta", {"beta": "a text"}, "not applicable"),
        ("> config.beta", {"beta": 1}, "active"),
        ("> 1 and not value > 2 * config.beta", {}, "not applicable"),
        ("> 1 or value > config.beta", {}, "active"),
    ],
)
def test_a_rule_whose_training_argument_is_unknown_does_not_apply(condition, config, status):
    engine = Engine([rule(condition, window=1)], config=config)
    for record in records(m=[5.0] * 4):
        engine.update(record)
    assert engine.coverage() == {"r": status}


def test_coverage():
    rules = [
        rule("> 1", "active", window=2, min_steps=3),
        rule("> 1", "warming", window=2, min_steps=9),
        rule("> 1", "filling", window=9),
        rule("> 1", "blind", metric="nowhere", window=1),
        rule("> 1", "blind_glob", metric="no/*", window=1),
        rule("> 1 and nowhere > 1", "half_blind", window=1),
        rule("> 1 or nowhere > 1", "sees_enough", window=1),
        rule("nowhere missing", "absence", window=2),
        rule("> 1", "conditional", when={"beta": 1}),
        rule("> 1", "foreign", trainers=("dpo",)),
    ]
    engine = Engine(rules, "grpo", {"beta": 2})
    assert set(engine.coverage().values()) == {"too few logs", "not applicable"}
    for record in records(m=[5.0] * 4):
        engine.update(record)
    assert engine.coverage() == {
        "active": "active",
        "warming": "too few logs",
        "filling": "too few logs",
        "blind": "blind",
        "blind_glob": "blind",
        "half_blind": "blind",
        "sees_enough": "active",
        "absence": "active",
        "conditional": "not applicable",
    }


def test_cannot_fire():
    rules = [
        rule("> 1", "soon", min_steps=3),
        rule("> 1", "late", min_steps=30),
        rule("> 1", "e", "eval_m", min_steps=99),
    ]
    engine = Engine(rules)
    assert engine.cannot_fire(max_steps=300, logging_steps=10) == []
    assert engine.cannot_fire(max_steps=299, logging_steps=10) == ["late"]
    assert engine.cannot_fire(max_steps=20, logging_steps=10) == ["soon", "late"]


# State


STATEFUL = [
    rule("> 1.5 for 3 steps", "streak"),
    rule("> 1.2 for 4 of 9 steps", "some", window=2),
    rule("drop(40%)", "fall", window=5, severity="critical"),
    rule("> 1.3 * best(m, 3) - baseline(kl, 4)", "memory", window=3),
    rule("std(m, 6) > 0.8 and kl trend(up)", "spread", window=8),
    rule("nonfinite or null", "holes", window=2, unless=("streak",)),
    rule("kl missing", "gone", window=4),
    rule("> rewards/*/mean", "each", metric="rewards/*/std", window=2, min_steps=6),
    rule("> 0.5 for 2 of 3 steps", "each_some", metric="rewards/*/std", window=2),
    rule("> 2 * gap and step > 7", "share", metric="gap_share", window=1),
]


def stateful_series(seed, n=70):
    noise = random.Random(seed)

    def points(holes=0.1):
        level, result = 1.0, []
        for _ in range(n):
            level = max(-1.0, level + noise.gauss(0.0, 0.3))
            hole = noise.random() < holes
            result.append(noise.choice([NAN, INF, -INF, None, "_", "_"]) if hole else level)
        return result

    # metrics that appear later, in an order that is not that of the alphabet
    late = {"rewards/z/std": 5, "rewards/z/mean": 9, "rewards/b/std": 20, "rewards/b/mean": 20}
    series = {name: ["_"] * start + points()[start:] for name, start in late.items()}
    return {"m": points(), "kl": points(0.4), "reward": points(), "max_reward": points()} | series


@pytest.mark.parametrize("seed", range(4))
def test_state_through_json_at_every_position_gives_the_same_findings(seed):
    def engine():
        return Engine(STATEFUL, "grpo", {"warmup_steps": 3}, Names())

    recorded = list(records(**stateful_series(seed)))
    whole = engine()
    expected, states = [], []
    for record in recorded:
        expected.append([f.to_json() for f in whole.update(record)])
        states.append(json.dumps(whole.state_dict(), allow_nan=False))
    assert len({f["rule"] for found in expected for f in found}) >= 6  # the series does test something
    for i, state in enumerate(states):
        resumed = engine()
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict(), allow_nan=False) == state
        assert resumed.coverage().keys() == whole.coverage().keys()
        assert [[f.to_json() for f in resumed.update(record)] for record in recorded[i + 1 :]] == expected[i + 1 :]
    assert resumed.coverage() == whole.coverage()


def test_reported_episode_is_not_reported_again_after_a_resume():
    engine = Engine([rule("> 1", window=1)])
    assert [f.state for record in records(m=[2.0]) for f in engine.update(record)] == ["started"]
    resumed = Engine([rule("> 1", window=1)])
    resumed.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    found = [(f.state, f.first_step) for record in records(first=2, m=[2.0, 0.0]) for f in resumed.update(record)]
    assert found == [("resolved", 1)]


def test_rules_may_change_between_save_and_resume():
    engine = Engine([rule("> 1 for 3 steps", "kept"), rule("> 1", "gone", window=1)])
    for record in records(m=[2.0, 2.0]):
        engine.update(record)
    resumed = Engine([rule("> 1 for 3 steps", "kept"), rule("> 1", "new", window=4), rule("> 1", "x", "kl", window=1)])
    resumed.load_state_dict(json.loads(json.dumps(engine.state_dict())))
    found = [(f.rule, f.step) for record in records(first=3, m=[2.0] * 4) for f in resumed.update(record)]
    assert found == [("kept", 3), ("new", 5)]  # "new" finds one remembered point and waits for three more


def test_state_of_another_version():
    with pytest.raises(DiagnosticsError, match="^engine state has version 0, expected 1$"):
        Engine([]).load_state_dict({"version": 0})


def test_memory_does_not_grow_with_the_run():
    engine = Engine(STATEFUL, "grpo", {}, Names())
    sizes = []
    for i in range(3000):
        engine.update(Record(10**6 + i, 0.0, "train", {"m": 1.0 + 0.01 * (i % 7), "kl": 0.5, "rewards/f/std": 0.25}))
        if i % 1000 == 999:
            sizes.append(len(json.dumps(engine.state_dict())))
    assert max(sizes) - min(sizes) < 40


def test_seconds_per_step_comes_from_the_times_of_the_records():
    slow = rule("last(seconds_per_step) > 3", metric="seconds_per_step", window=1, min_steps=1)
    engine = Engine([slow], "sft", {}, MetricMap("sft"))
    times = {10: 100.0, 20: 120.0, 30: 140.0, 40: 180.0}  # the last ten steps took 4 s each
    found = [finding for step, time in times.items() for finding in engine.update(Record(step, time, "train", {}))]
    assert [(finding.step, finding.value) for finding in found] == [(40, 4.0)]


@pytest.mark.parametrize(("iterations", "samples"), [({}, 320), ({"num_iterations": 2}, 160)])
def test_completions_that_are_trained_on_twice_count_once(iterations, samples):
    config = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 10, "world_size": 4}
    assert Engine([], "grpo", config | iterations).config["samples_per_log"] == samples


def test_a_run_of_unknown_length_has_no_part_of_its_length():
    late = rule("last(m) > 0 and step >= 0.5 * config.max_steps")
    assert episodes([late], config={"max_steps": -1}, m=[1.0] * 9) == []
    assert episodes([late], config={"max_steps": 8}, m=[1.0] * 9) == [("r", "started", 4)]


def test_odd_numbers_of_processes_count_as_one():
    config = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "logging_steps": 10}
    for odd in ([], "x", 0, None):
        assert Engine([], "grpo", config | {"world_size": odd}).config["samples_per_log"] == 80
