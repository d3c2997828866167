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

"""The condition language: what parses and to what tree, what does not and where it says so, and random text."""

import pytest
from engine_kit import verdicts
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_diagnostics.engine.condition import MAX_DEPTH, MAX_LENGTH, parse_condition, parse_sum
from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.engine.tree import (
    MAX_POINTS,
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Config,
    Function,
    Math,
    Metric,
    Not,
    Number,
    Statistic,
    walk,
)


VALUE, LOSS, KL = Metric("value"), Metric("loss"), Metric("kl")


def above(metric, bound):
    return Comparison(">", metric, Number(bound))


@pytest.mark.parametrize(
    "text, tree",
    [
        ("> 0.5", above(VALUE, 0.5)),
        ("value > 0.5", above(VALUE, 0.5)),
        ("loss<=1e-3", Comparison("<=", LOSS, Number(0.001))),
        ("0.5 >= loss", Comparison(">=", Number(0.5), LOSS)),
        ("== -.5", Comparison("==", VALUE, Number(-0.5))),
        ("!= 5.", Comparison("!=", VALUE, Number(5.0))),
        ("rewards/*/std < 1", Comparison("<", Metric("rewards/*/std"), Number(1.0))),
        ("clip-ratio.max > 1", above(Metric("clip-ratio.max"), 1.0)),
        ("`my metric` > 1", above(Metric("my metric"), 1.0)),
        ("`and` > 1", above(Metric("and"), 1.0)),
        ("> config.max_grad_norm", Comparison(">", VALUE, Config("max_grad_norm"))),
        ("abs(loss) > 1", above(Math("abs", LOSS), 1.0)),
        ("exp(loss - 1) > 1", above(Math("exp", Arithmetic("-", LOSS, Number(1.0))), 1.0)),
        ("mean(loss) > 1", above(Statistic("mean", "loss", None), 1.0)),
        ("best(value, 5) > 1", above(Statistic("best", "value", 5), 1.0)),
        ("delta(loss) > 1", above(Statistic("delta", "loss", None), 1.0)),
        ("> 1 + 2 * loss", Comparison(">", VALUE, Arithmetic("+", Number(1), Arithmetic("*", Number(2), LOSS)))),
        ("> (1 + 2) * loss", Comparison(">", VALUE, Arithmetic("*", Arithmetic("+", Number(1), Number(2)), LOSS))),
        ("> 1 - 2 - 3", Comparison(">", VALUE, Arithmetic("-", Arithmetic("-", Number(1), Number(2)), Number(3)))),
        ("range(0.68, 0.71)", Function("range", "value", (0.68, 0.71))),
        ("loss outside(-1,1)", Function("outside", "loss", (-1.0, 1.0))),
        ("drop(50%)", Function("drop", "value", (50.0,), True)),
        ("loss rise(2)", Function("rise", "loss", (2.0,))),
        ("plateau(0)", Function("plateau", "value", (0.0,))),
        ("spike(3x)", Function("spike", "value", (3.0,))),
        ("spike(3)", Function("spike", "value", (3.0,))),
        ("outlier(6)", Function("outlier", "value", (6.0,))),
        ("trend(up)", Function("trend", "value", direction="up")),
        ("loss trend(down, 10%)", Function("trend", "loss", (10.0,), True, "down")),
        ("nonfinite", Function("nonfinite", "value")),
        ("`loss` frozen", Function("frozen", "loss")),
        ("loss null or missing", AnyOf((Function("null", "loss"), Function("missing", "value")))),
        ("not loss > 1", Not(above(LOSS, 1.0))),
        ("not not > 1", Not(Not(above(VALUE, 1.0)))),
        (
            "> 1 or > 2 and > 3",
            AnyOf((above(VALUE, 1.0), AllOf((above(VALUE, 2.0), above(VALUE, 3.0))))),
        ),
        (
            "(> 1 or > 2) and not (kl > 3)",
            AllOf((AnyOf((above(VALUE, 1.0), above(VALUE, 2.0))), Not(above(KL, 3.0)))),
        ),
        ("range > 1", above(Metric("range"), 1.0)),  # a function only with its brackets
    ],
)
def test_tree(text, tree):
    assert parse_condition(text).test == tree


@pytest.mark.parametrize(
    "text, streak, of, has_for",
    [
        ("> 1", 1, 1, False),
        ("> 1 for 1 step", 1, 1, True),
        ("> 1 for 20 steps", 20, 20, True),
        ("> 1 or loss > 2 for 3 of 5 steps", 3, 5, True),
        ("> 1 for 5 of 5 steps", 5, 5, True),
        (f"> 1 for {MAX_POINTS} steps", MAX_POINTS, MAX_POINTS, True),
    ],
)
def test_for(text, streak, of, has_for):
    condition = parse_condition(text)
    assert (condition.streak, condition.of, condition.has_for) == (streak, of, has_for)


def test_names_in_order_of_appearance():
    condition = parse_condition(" kl > config.beta * mean(loss, 5) or value > kl + config.alpha or step > 3 ")
    assert condition.metrics == ("kl", "loss", "step")
    assert condition.configs == ("beta", "alpha")
    assert condition.text == "kl > config.beta * mean(loss, 5) or value > kl + config.alpha or step > 3"


def test_walk_visits_every_node_in_the_order_of_the_text():
    names = [
        node.metric
        for node in walk(parse_condition("not (a > b or c drop(1)) and abs(d + mean(e)) < f").test)
        if isinstance(node, Metric | Statistic | Function)
    ]
    assert names == ["a", "b", "c", "d", "e", "f"]


PROBLEMS = [
    ("", 0, "expected a number, a metric or '(', found the end"),
    ("   ", 3, "expected a number, a metric or '(', found the end"),
    ("loss", 4, "expected a comparison such as '> 0.5' or a function such as 'drop(50%)', found the end"),
    (">", 1, "expected a number, a metric or '(', found the end"),
    ("loss > > 1", 7, "expected a number, a metric or '(', found '>'"),
    ("loss = 1", 5, "unexpected character '='; write '=='"),
    ("loss > 1 & kl > 1", 9, "unexpected character '&'; write 'and'"),
    ("loss > 1 | kl > 1", 9, "unexpected character '|'; write 'or'"),
    ("!loss > 1", 0, "unexpected character '!'; write 'not'"),
    ("loss > 1 × 2", 9, "unexpected character '×'; write '*'"),
    ("loss > 1\u00a0+ 2", 8, "unexpected character '\\xa0'"),
    ("__import__('os')", 0, "unexpected character '_'"),
    ("`` > 1", 0, "unexpected character '`'"),
    ("loss > 1 +2", 9, "operators need blanks on both sides: ' + '"),
    ("loss > 1 -2", 9, "operators need blanks on both sides: ' - '"),
    ("loss > 1 *2", 9, "operators need blanks on both sides: ' * '"),
    ("loss -0.5 > 1", 5, "operators need blanks on both sides: ' - '"),
    ("dropp(50%)", 0, "unknown function 'dropp'; did you mean 'drop'?"),
    ("loss dropp(50%)", 5, "unknown function 'dropp'; did you mean 'drop'?"),
    ("loss frozn", 5, "unknown function 'frozn'; did you mean 'frozen'?"),
    ("maen(loss) > 1", 0, "unknown function 'maen'; did you mean 'mean'?"),
    (
        "loss qqq(1)",
        5,
        "unknown function 'qqq'; use range, outside, drop, rise, plateau, spike, outlier, trend, nonfinite, null, "
        "frozen, missing",
    ),
    ("drop(50%", 8, "expected ')', found the end"),
    ("drop()", 5, "expected a number, found ')'"),
    ("drop(x)", 5, "expected a number, found 'x'"),
    ("drop(0)", 5, "drop: expected a positive number"),
    ("spike(-3x)", 6, "spike: expected a positive number"),
    ("outlier(0)", 8, "outlier: expected a positive number"),
    ("plateau(-1%)", 8, "plateau: expected a positive number or 0"),
    ("trend(up, -5)", 10, "trend: expected a positive number or 0"),
    ("trend(sideways)", 6, "trend: expected 'up' or 'down', found 'sideways'"),
    ("range(1)", 7, "expected ',', found ')'"),
    ("range(2, 1)", 6, "range: lower bound 2 is above 1"),
    ("outside(1 2)", 10, "expected ',', found '2'"),
    ("mean(1) > 1", 5, "expected a metric, found '1'"),
    ("mean(for) > 1", 5, "expected a metric, found 'for'"),
    ("mean(config.beta) > 1", 5, "expected a metric, found 'config.beta'"),
    ("mean(loss, 0) > 1", 11, "expected a whole number of points, 1 or more, found '0'"),
    ("mean(loss, 2.5) > 1", 11, "expected a whole number of points, 1 or more, found '2.5'"),
    ("slope(loss, 4) > 1", 12, "expected a whole number of points, 5 or more, found '4'"),
    ("mean(loss, 10001) > 1", 11, "more than 10000 points"),
    ("last(loss, 5) > 1", 9, "expected ')', found ','"),
    ("> config. + 1", 2, "expected the name of a training argument such as 'config.beta', found 'config.'"),
    ("> config.a*b", 2, "expected the name of a training argument such as 'config.beta', found 'config.a*b'"),
    ("> 1e999", 2, "number 1e999 is too large"),
    ("> 1 for steps", 8, "expected a whole number of steps, 1 or more, found 'steps'"),
    ("> 1 for 0 steps", 8, "expected a whole number of steps, 1 or more, found '0'"),
    ("> 1 for -1 steps", 8, "expected a whole number of steps, 1 or more, found '-1'"),
    ("> 1 for 5", 9, "expected 'steps', found the end"),
    ("> 1 for 5 logs", 10, "expected 'steps', found 'logs'"),
    ("> 1 for 5 of 3 steps", 13, "'for 5 of 3 steps' can never be true"),
    ("> 1 for 99999999999999999999 steps", 8, "more than 10000 steps"),
    ("(> 1 for 5 steps)", 5, "expected ')', found 'for'"),
    ("loss or kl > 1", 5, "expected a comparison such as '> 0.5' or a function such as 'drop(50%)', found 'or'"),
    ("kl > 1 and loss", 15, "expected a comparison such as '> 0.5' or a function such as 'drop(50%)', found the end"),
    ("not loss", 8, "expected a comparison such as '> 0.5' or a function such as 'drop(50%)', found the end"),
    ("0 < loss < 1", 9, "one comparison cannot follow another, use 'and' or 'range(low, high)', found '<'"),
    ("(loss > 1) < 2", 11, "expected a number, not a condition, before this point, found '<'"),
    ("(loss > 1) + 2 > 3", 13, "expected a number, not a condition, before this point, found '2'"),
    ("loss > 1 kl > 2", 9, "expected 'and', 'or', 'for' or the end, found 'kl'"),
    ("loss > 1)", 8, "expected 'and', 'or', 'for' or the end, found ')'"),
    ("(loss > 1", 9, "expected ')', found the end"),
]


@pytest.mark.parametrize("text, column, problem", PROBLEMS, ids=[text or "empty" for text, *_ in PROBLEMS])
def test_problem(text, column, problem):
    with pytest.raises(DiagnosticsError) as error:
        parse_condition(text)
    assert (str(error.value), error.value.column) == (problem, column)


def test_length_limit_is_exact():
    assert parse_condition("> 1".ljust(MAX_LENGTH)).test == above(VALUE, 1.0)
    with pytest.raises(DiagnosticsError) as error:
        parse_condition("> 1".ljust(MAX_LENGTH + 1))
    assert (str(error.value), error.value.column) == ("longer than 500 characters; split it into two rules", 500)


@pytest.mark.parametrize("opening, closing", [("(", ")"), ("abs(", ")"), ("not ", "")])
def test_depth_limit_is_exact(opening, closing):
    inner = "> 1" if opening != "abs(" else "loss"
    after = "" if opening != "abs(" else " > 1"
    parse_condition(opening * MAX_DEPTH + inner + closing * MAX_DEPTH + after)
    with pytest.raises(DiagnosticsError) as error:
        parse_condition(opening * (MAX_DEPTH + 1) + inner + closing * (MAX_DEPTH + 1) + after)
    assert str(error.value) == "more than 20 levels of parentheses"
    assert error.value.column == len(opening) * MAX_DEPTH


def test_depth_counts_nesting_and_not_brackets():
    assert len(parse_condition(" or ".join(["(> 1)"] * 40)).test.items) == 40


def test_parse_sum():
    assert parse_sum("exp(loss)") == (Math("exp", LOSS), ("loss",))
    node, metrics = parse_sum("(reward - value) / `a b`")
    assert node == Arithmetic("/", Arithmetic("-", Metric("reward"), VALUE), Metric("a b"))
    assert metrics == ("reward", "a b")


@pytest.mark.parametrize(
    "text, column, problem",
    [
        ("loss > 1", 5, "expected '+', '-', '*', '/' or the end, found '>'"),
        ("(loss > 1)", 10, "expected a number, not a condition, before this point, found the end"),
        ("loss kl", 5, "expected '+', '-', '*', '/' or the end, found 'kl'"),
    ],
)
def test_parse_sum_problem(text, column, problem):
    with pytest.raises(DiagnosticsError) as error:
        parse_sum(text)
    assert (str(error.value), error.value.column) == (problem, column)


# The grammar as strategies. Each draws text, so that what is tested is the language and not the tree.

METRICS = ("value", "loss", "kl", "rewards/acc/mean", "`a b`", "step")
numbers = st.sampled_from(["0", "1", "-1", "0.5", "-.25", "3.", "1e-3", "2e3", "+4"])
metrics = st.sampled_from(METRICS)
counts = st.integers(1, 12).map(str)
statistics = st.one_of(
    st.builds("{}({})".format, st.sampled_from(["last", "delta", "mean", "median", "min", "max", "count"]), metrics),
    st.builds(
        "{}({}, {})".format, st.sampled_from(["mean", "min", "median", "baseline", "best", "worst"]), metrics, counts
    ),
    st.builds("{}({}, {})".format, st.sampled_from(["std", "mad", "slope"]), metrics, st.integers(5, 12).map(str)),
)
operands = st.one_of(numbers, metrics, statistics, st.sampled_from(["config.beta", "config.unset"]))
sums = st.recursive(
    operands,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("{}({})".format, st.sampled_from(["", "abs", "exp", "log"]), inner),
    ),
    max_leaves=4,
)
positive = st.sampled_from(["0.5", "3", "50", "1e2"])
functions = st.one_of(
    st.builds("{}({}, {})".format, st.sampled_from(["range", "outside"]), st.just("-1"), st.just("0.5")),
    st.builds(
        "{}({}{})".format, st.sampled_from(["drop", "rise", "plateau"]), positive, st.sampled_from(["", "%", " %"])
    ),
    st.builds("spike({}{})".format, positive, st.sampled_from(["", "x"])),
    st.builds("outlier({})".format, positive),
    st.builds("trend({}{})".format, st.sampled_from(["up", "down"]), st.sampled_from(["", ", 5", ", 5%", ",0"])),
    st.sampled_from(["nonfinite", "null", "frozen", "missing"]),
)
comparisons = st.builds(
    "{} {} {}".format, st.one_of(st.just(""), sums), st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), sums
)
tests = st.one_of(comparisons, functions, st.builds("{} {}".format, metrics.filter(lambda m: m != "step"), functions))
or_tests = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("not {}".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=5,
)
streaks = st.one_of(
    st.just(""),
    st.builds(" for {} steps".format, counts),
    st.builds(" for {} of {} steps".format, st.integers(1, 5).map(str), st.integers(5, 9).map(str)),
)
conditions = st.builds("{}{}".format, or_tests, streaks).filter(lambda text: len(text) <= MAX_LENGTH)
points = st.one_of(
    st.floats(-10, 10), st.sampled_from([None, float("nan"), float("inf"), float("-inf"), 0.0, 1e300, -1e300, "_"])
)


@settings(max_examples=400)
@given(text=conditions, data=st.data())
def test_every_condition_of_the_grammar_parses_binds_and_judges(text, data):
    condition = parse_condition(text)
    n = data.draw(st.integers(1, 30))
    series = {
        name: data.draw(st.lists(points, min_size=n, max_size=n))
        for name in ("value", "loss", "kl", "rewards/acc/mean")
    }
    series |= {"a b": [1.0] * n, "step": list(range(1, n + 1))}
    window = data.draw(st.integers(5, 8))
    for verdict in verdicts(text, window=window, config={"beta": 0.1}, **series):
        assert verdict is True or verdict is False or verdict is None
    assert parse_condition(condition.text) == condition


@settings(max_examples=200)
@given(text=or_tests, data=st.data())
def test_not_turns_a_verdict_and_leaves_unknown_unknown(text, data):
    n = data.draw(st.integers(1, 20))
    value = data.draw(st.lists(points, min_size=n, max_size=n))
    series = dict.fromkeys(("value", "loss", "kl", "rewards/acc/mean", "a b"), value)
    series["step"] = list(range(1, n + 1))
    plain = verdicts(text, window=5, **series)
    turned = verdicts(f"not ({text})", window=5, **series)
    assert turned == [None if verdict is None else not verdict for verdict in plain]


def fails_in_place(text):
    """Parse; a failure must have a place inside the text. Any other exception is a bug."""
    try:
        parse_condition(text)
    except DiagnosticsError as error:
        assert 0 <= error.column <= len(text)
        assert str(error)


@settings(max_examples=300)
@given(text=st.one_of(st.text(), st.text(alphabet="<>=!()%,x`*/+-. 0159adefnorst", max_size=60)))
def test_random_text_parses_or_says_where_not(text):
    fails_in_place(text)


@settings(max_examples=300)
@given(text=conditions, data=st.data())
def test_mutated_condition_parses_or_says_where_not(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    fails_in_place(text[:start] + data.draw(st.text(alphabet="()<>=%,x`and or0.-é", max_size=4)) + text[end:])
