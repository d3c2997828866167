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

"""Rule files: what is read from a good one, and what a bad one says, word for word."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trl_diagnostics.engine.finding import DiagnosticsError, Severity
from trl_diagnostics.engine.rule import build_rule, load_rules, merge_rules, select
from trl_diagnostics.engine.when import holds, parse_when
from trl_diagnostics.engine.yaml_file import Document


GOOD = """\
name: b
trainers: [dpo]
metric: loss
severity: high
condition: "> 1"
message: "Loss at {value:.2f}."
"""
FULL = """\
# yaml-language-server: $schema=../rule.schema.json
name: full
description: One line
trainers: [grpo, online_dpo]
metric: rewards/*/std
condition: "< 0.5 * rewards/*/mean for 3 of 5 steps"
window: 4
severity: critical
message: "{metric} at {value:.2f}, {rewards/*/mean:.1f} {step} {window} {trainer} {{braces}}"
reference:
  - https://huggingface.co/papers/2402.03300
min_steps: 7
enabled: false
status: experimental
when: {use_vllm: true, beta: "> 0", loss_type: [grpo, dapo]}
unless: other
why: |
  Because.
fix: Change it.
false_positives: [Never seen, Once]
renamed_from: [old]
tests:
  - series: 1.0x5
    fires: never
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files; rules are loaded by relative path, so that the errors are the same everywhere."""
    monkeypatch.chdir(tmp_path)

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return write


def problems_of(paths, check_metric=None):
    with pytest.raises(DiagnosticsError) as error:
        load_rules(paths, check_metric)
    return str(error.value)


def test_defaults(write):
    write("b.yaml", GOOD)
    (rule,) = load_rules("b.yaml")
    assert (rule.name, rule.trainers, rule.metric, rule.severity) == ("b", ("dpo",), "loss", Severity.HIGH)
    assert (rule.window, rule.min_steps, rule.enabled, rule.status) == (20, 30, True, "stable")
    assert (rule.description, rule.message) == ("Loss at {value:.2f}.", "Loss at {value:.2f}.")
    assert (rule.when, rule.unless, rule.why, rule.fix, rule.reference) == ({}, (), "", "", ())


def test_all_fields(write):
    write("full.yaml", FULL)
    (rule,) = load_rules(["full.yaml"])
    assert rule.condition.text == "< 0.5 * rewards/*/mean for 3 of 5 steps"
    assert (rule.description, rule.window, rule.min_steps, rule.enabled) == ("One line", 4, 7, False)
    assert rule.when == {
        "use_vllm": (("==", True),),
        "beta": ((">", 0.0),),
        "loss_type": (("==", "grpo"), ("==", "dapo")),
    }
    assert (rule.unless, rule.renamed_from, rule.status) == (("other",), ("old",), "experimental")
    assert (rule.why, rule.fix, rule.false_positives) == ("Because.", "Change it.", ("Never seen", "Once"))
    assert rule.reference == ("https://huggingface.co/papers/2402.03300",)
    assert rule.tests == ({"series": "1.0x5", "fires": "never"},)
    values = {
        "metric": "rewards/f/std",
        "value": None,
        "rewards/*/mean": 2.0,
        "step": 3,
        "window": 4,
        "trainer": "grpo",
    }
    assert rule.render(values) == "rewards/f/std at null, 2.0 3 4 grpo {braces}"


def test_window_is_1_if_the_condition_says_for(write):
    write("b.yaml", GOOD.replace('"> 1"', '"> 1 for 3 steps"'))
    assert load_rules("b.yaml")[0].window == 1


def test_the_example_of_a_user_works_as_it_stands(write):
    write(
        "grpo_importance_sampling_ratio_anomaly.yaml",
        """\
name: grpo_importance_sampling_ratio_anomaly
trainers: [grpo, ppo]
metric: importance_sampling_ratio
condition: "< 0.5"
severity: high
message: "IS ratio at {value:.3f} (should be ~1.0)"
""",
    )
    (rule,) = load_rules("grpo_importance_sampling_ratio_anomaly.yaml")
    assert rule.applies_to(["ppo"]) and not rule.applies_to(["dpo"])
    assert rule.render({"value": 0.1}) == "IS ratio at 0.100 (should be ~1.0)"


def test_trainer_names_ignore_underscores(write):
    write("full.yaml", FULL)
    (rule,) = load_rules("full.yaml")
    assert rule.applies_to(["onlinedpo", "trainer"])
    assert not rule.applies_to(["dpo"])


# Errors. Each case replaces a part of GOOD; the expected text starts after "b.yaml:".

CARET = "\n      {}\n      {}^".format
QUOTES = "YAML reads on, off, yes and no as true and false: put it in quotes"
BLOCK = "is empty; YAML reads '>' and '|' as the start of a block of text: put quotes around it"
ANCHOR = "anchors (&) and aliases (*) are not allowed; write the value again, or put quotes around a text"
TAG = "tags (!) are not allowed; put quotes around a text that starts with '!'"
COUNT = "expected a whole number from 1 to 10000, found"
DIGITS = "; write it with digits only, YAML reads forms such as 1e3 as text"
USE = "use metric, step, trainer, value, window"
BAD_PART = [
    # the condition
    ('"> 1"', "> 0.1", "5:14: not valid YAML: expected a comment or a line break, but found '0'; quote the condition: '> 0.1'"),
    ('"> 1"', ">0.1", "5:13: not valid YAML: expected indentation indicator in the range 1-9, but found 0; quote the condition: '>0.1'"),
    ('"> 1"', ">= 1", "5:13: not valid YAML: expected chomping or indentation indicators, but found '='; quote the condition: '>= 1'"),
    ('"> 1"', ">5", f"5:12: condition: {BLOCK}"),
    ('"> 1"', ">", f"5:12: condition: {BLOCK}"),
    ('"> 1"', "!= 3", f"5:12: {TAG}"),
    ('"> 1"', "`my loss` > 1", "5:12: not valid YAML: found character '`' that cannot start any token; quote the condition: '`my loss` > 1'"),
    ('"> 1"', '"dropp(50%)"', f"5:13: condition: unknown function 'dropp'; did you mean 'drop'?{CARET('dropp(50%)', '')}"),
    ('"> 1"', "dropp(50%)", f"5:12: condition: unknown function 'dropp'; did you mean 'drop'?{CARET('dropp(50%)', '')}"),
    ('"> 1"', '" > 1 for 3"', f"5:23: condition: expected 'steps', found the end{CARET(' > 1 for 3', ' ' * 10)}"),
    ('"> 1"', "|\n  loss > 1\n  and dropp(5)", f"5:12: condition: unknown function 'dropp'; did you mean 'drop'?{CARET('loss > 1 and dropp(5)', ' ' * 13)}"),
    ('"> 1"', "1", "5:12: condition: expected text, found 1; put it in quotes"),
    ('"> 1"', "null", "5:12: condition: expected text, found None"),
    ('"> 1"', "2024-02-31", "5:12: condition: day is out of range for month; put it in quotes"),
    ('"> 1"', '""', "5:12: condition: is empty"),
    ('"> 1"', "trend(up) for 3 steps", "5:12: condition: 'trend' cannot be judged on a window of 1; set 'window'"),
    ('"> 1"', "rewards/*/x > 1", "5:12: condition: 'rewards/*/x' takes the text of its '*' from the rule's own metric 'loss', which has 0"),
    # names
    ("[dpo]", "[dpo, on]", f"2:11: trainers: expected text or a list of texts, found True; {QUOTES}"),
    ("[dpo]", "[dpo, 1]", "2:11: trainers: expected text or a list of texts, found 1; put it in quotes"),
    ("[dpo]", "[]", "2:11: trainers: is empty"),
    ("[dpo]", "[DPOTrainer]", "2:11: trainers: 'DPOTrainer' is not a trainer's name such as 'grpo' or 'all'; write 'dpo'"),
    ("[dpo]", "dpo, grpo", "2:11: trainers: 'dpo, grpo' is not a trainer's name such as 'grpo' or 'all'"),
    ("metric: loss", "metric: loss > 1", "3:9: metric: 'loss > 1' is not a metric's name; put backticks around unusual names: '`...`'"),
    ("metric: loss", "metric: */std", "3:10: not valid YAML: expected alphabetic or numeric character, but found '/'; quote the metric: '*/std'"),
    ("name: b", "name: c", "1:7: name: 'c' must be the file's name, 'b'"),
    ("name: b", "name: B", "1:7: name: 'B' must match [a-z][a-z0-9_]*"),
    ("name: b", "name: 5", "1:7: name: expected text, found 5; put it in quotes"),
    ("severity: high", "severity: hihg", "4:11: severity: 'hihg' is not one of critical, high, medium, low, info; did you mean 'high'?"),
    # the message
    ("{value:.2f}", "{value.__class__}", f"6:10: message: unknown placeholder {{value.__class__}}; {USE}"),
    ("{value:.2f}", "{value[0]}", f"6:10: message: unknown placeholder {{value[0]}}; {USE}"),
    ("{value:.2f}", "{value!r}", f"6:10: message: unknown placeholder {{value!r}}; {USE}"),
    ("{value:.2f}", "{}", f"6:10: message: unknown placeholder {{}}; {USE}"),
    ("{value:.2f}", "{value:d}", "6:10: message: format 'd' does not fit {value}"),
    ("{value:.2f}", "{value:999999999}", "6:10: message: format '999999999' does not fit {value}"),
    ("{value:.2f}", "{value:{step}}", "6:10: message: format '{step}' does not fit {value}"),
    ("{value:.2f}", "{metric:.2f}", "6:10: message: format '.2f' does not fit {metric}"),
    ("{value:.2f}", "{value", "6:10: message: expected '}' before end of string; write '{{' and '}}' for braces"),
    ("{value:.2f}", "}", "6:10: message: Single '}' encountered in format string; write '{{' and '}}' for braces"),
    ('"Loss at {value:.2f}."', "{value} is high", "6:18: not valid YAML: expected <block end>, but found '<scalar>'; quote the message: '{value} is high'"),
    ('"Loss at {value:.2f}."', "loss: high", "6:14: not valid YAML: mapping values are not allowed here; put quotes around a text that contains ': '"),
    ('"Loss at {value:.2f}."', "{value}", "6:10: message: expected text, found {'value': None}; put it in quotes"),
]  # fmt: skip


@pytest.mark.parametrize("part, bad, problem", BAD_PART, ids=[bad or "empty" for _, bad, _ in BAD_PART])
def test_bad_part(write, part, bad, problem):
    assert part in GOOD
    write("b.yaml", GOOD.replace(part, bad))
    assert problems_of("b.yaml") == f"b.yaml:{problem}"


BAD_LINE = [
    ("window: 1e3", f"7:9: window: {COUNT} '1e3'{DIGITS}"),
    ('window: "5"', f"7:9: window: {COUNT} '5'{DIGITS}"),
    ("window: 0", f"7:9: window: {COUNT} 0"),
    ("window: 2.5", f"7:9: window: {COUNT} 2.5"),
    ("window: true", f"7:9: window: {COUNT} True"),
    ("window: 10001", f"7:9: window: {COUNT} 10001"),
    ("min_steps: -1", f"7:12: min_steps: {COUNT} -1"),
    ('enabled: "yes"', "7:10: enabled: expected true or false, found 'yes'"),
    ("status: experimentel", "7:9: status: 'experimentel' is not one of stable, experimental, deprecated; did you mean 'experimental'?"),
    ("when: [beta]", "7:7: when: expected a map, found ['beta']"),
    ("when: {beta: 1e-3}", "7:7: when: beta: YAML reads '1e-3' as text; write 0.001"),
    ('when: {beta: "> x"}', "7:7: when: beta: '>' needs a number, found 'x'"),
    ("when: {beta: []}", "7:7: when: beta: an empty list never holds"),
    ("when: {beta: {a: 1}}", "7:7: when: beta: expected a value, a list of values or a comparison, found {'a': 1}"),
    ("when: {on: 1}", "7:7: when: expected names of training arguments, found True; put it in quotes"),
    ("when: {? [beta] : 1}", "7:10: when: found unhashable key"),
    ("when: {beta: 1, beta: 2}", "7:17: 'beta' is given twice"),
    ("unless: b", "7:9: unless: 'b' would silence itself"),
    ("unless: [1]", "7:9: unless: expected text or a list of texts, found 1; put it in quotes"),
    ("tests: {series: 1}", "7:8: tests: expected a list, found {'series': 1}"),
    ("why:", "7:5: why: expected text, found None"),
    ("name: b", "7:1: 'name' is given twice"),
    ("tests: [{series: 0x40}]", "7:18: YAML reads '0x40' as a number that is not decimal; put it in quotes"),
    ("tests: [{series: [1, 010]}]", "7:22: YAML reads '010' as a number that is not decimal; put it in quotes"),
    ("tests: [{series: 0x_}]", "7:8: tests: invalid literal for int() with base 16: ''; put it in quotes\nb.yaml:7:18: YAML reads '0x_' as a number that is not decimal; put it in quotes"),
    ("tests: [{series: 1:30}]", "7:18: YAML reads '1:30' as a number that is not decimal; put it in quotes"),
    ("trainer: dpo", "7:1: unknown field 'trainer'; did you mean 'trainers'?"),
    ("author: me", "7:1: unknown field 'author'"),
    ("on: 1", "7:1: unknown field 'on'"),
    ("? [a, b]\n: 1", "7:3: expected the name of a field"),
    ("<<: {why: x}", "7:1: '<<' is not allowed; write the fields themselves\nb.yaml:7:1: unknown field '<<'"),
    ("why: &reason x", f"7:6: {ANCHOR}"),
    ("why: *reason", f"7:6: {ANCHOR}"),
    ("why: !!python/object/apply:os.system [ls]", f"7:6: {TAG}"),
    ("why: !!str x", f"7:6: {TAG}"),
    ("\twhy: x", "7:1: not valid YAML: found character '\\t' that cannot start any token; use blanks instead of tabs"),
    ("why: " + "[" * 100_000, "7:25: more than 20 levels deep"),
    ("why: @x", "7:6: not valid YAML: found character '@' that cannot start any token; quote the why: '@x'"),
    ("---\nname: c", "7:1: not valid YAML: but found another document"),
]  # fmt: skip


@pytest.mark.parametrize("line, problem", BAD_LINE, ids=[line[:30] for line, _ in BAD_LINE])
def test_bad_line(write, line, problem):
    write("b.yaml", f"{GOOD}{line}\n")
    assert problems_of("b.yaml") == f"b.yaml:{problem}"


FIELDS_EXPECTED = "b.yaml:1:1: expected fields such as 'name: ...'"


@pytest.mark.parametrize(
    "content, problem",
    [
        ("", FIELDS_EXPECTED),
        ("# nothing\n", FIELDS_EXPECTED),
        ("- name: b\n", FIELDS_EXPECTED),
        ("name", FIELDS_EXPECTED),
        ("{}", FIELDS_EXPECTED),
        (b"name: \xff\xfe", "b.yaml:1:1: not UTF-8 text: invalid start byte at byte 6"),
        (GOOD.encode("utf-16"), "b.yaml:1:1: not UTF-8 text: invalid start byte at byte 0"),
        (
            "name: \a",
            "b.yaml:1:1: not valid YAML: unacceptable character #x0007: special characters are not allowed in "
            '"<unicode string>", position 6',
        ),
    ],
    ids=["empty", "comment", "list", "text", "no fields", "bad UTF-8", "UTF-16", "control character"],
)
def test_bad_file(write, content, problem):
    write("b.yaml", content)
    assert problems_of("b.yaml") == problem


def test_numbers_that_are_what_they_look_like(write):
    write("b.yaml", GOOD + "tests: [{series: [0, -1, 1.5, .5, 5., 1.5e+3, .inf, -.inf, .nan]}]\n")
    assert load_rules("b.yaml")[0].tests[0]["series"][:8] == [
        0,
        -1,
        1.5,
        0.5,
        5.0,
        1500.0,
        float("inf"),
        -float("inf"),
    ]


@pytest.mark.parametrize("content", [GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD, f"---\n{GOOD}...\n"])
def test_harmless_variants(write, content):
    write("b.yaml", content)
    assert load_rules("b.yaml")[0].condition.text == "> 1"


PIECES = [
    "- ",
    "? ",
    ": ",
    "{",
    "]",
    "!!",
    "!!int",
    "!!timestamp x",
    "&a",
    "*a",
    "<<",
    "0x_",
    "2024-99-99",
    "1:99",
    "\t",
]
PIECES += [
    "\n",
    "\n  ",
    "---",
    "...",
    "%",
    "null",
    "on",
    ".nan",
    '"',
    "'",
    "|",
    ">",
    "#",
    "\x00",
    "\ufeff",
    "\u2028",
    "é",
]


@settings(max_examples=400)
@given(data=st.data())
def test_a_damaged_file_is_a_rule_or_refused_with_its_place(data):
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 12)))
        text = text[:start] + data.draw(st.sampled_from(PIECES)) + text[end:]
    document = Document(Path("full.yaml"))
    document.read(text)
    built = build_rule(document) if document.keys else None
    assert (built is None) == bool(document.problems)
    assert all(re.match(r"full\.yaml:\d+:\d+: .", problem) for problem in document.sorted_problems())


def test_missing_fields_are_named_at_once(write):
    write("b.yaml", "name: b\n")
    assert problems_of("b.yaml").splitlines() == [
        f"b.yaml:1:1: field '{name}' is missing" for name in ("trainers", "metric", "condition", "severity", "message")
    ]


def test_all_problems_of_a_file_in_its_order(write):
    write(
        "b.yaml",
        """\
name: b
name: b
trainer: [dpo]
metric: loss
condition: "dropp(50%)"
severity: hihg
message: "{valu}"
window: 0
why: yes
""",
    )
    assert problems_of("b.yaml").splitlines() == [
        "b.yaml:1:1: field 'trainers' is missing",
        "b.yaml:2:1: 'name' is given twice",
        "b.yaml:3:1: unknown field 'trainer'; did you mean 'trainers'?",
        "b.yaml:5:13: condition: unknown function 'dropp'; did you mean 'drop'?",
        "      dropp(50%)",
        "      ^",
        "b.yaml:6:11: severity: 'hihg' is not one of critical, high, medium, low, info; did you mean 'high'?",
        "b.yaml:8:9: window: expected a whole number from 1 to 10000, found 0",
        f"b.yaml:9:6: why: expected text, found True; {QUOTES}",
    ]


def check_metric(metric, trainers):
    if metric == "reward/margins":
        return f"'{metric}' is not logged by any of [{', '.join(trainers)}]; did you mean 'rewards/margins' (reward_margin)?"
    return None


def test_errors_of_a_folder_at_once(write):
    """One file for each kind of error that a contributor meets first, in one message."""
    write("rules/a.yaml", GOOD.replace("name: b", "name: a").replace('"> 1"', "> 0.1"))
    write("rules/b.yaml", GOOD.replace("trainers:", "trainer:").replace('"> 1"', '"dropp(50%)"'))
    write("rules/c.yaml", GOOD.replace("name: b", "name: c").replace("{value:.2f}", "{value.__class__}"))
    write("rules/deep/d.yaml", GOOD.replace("name: b", "name: d").replace("metric: loss", "metric: reward/margins"))
    write("rules/good.yaml", GOOD.replace("name: b", "name: good"))
    assert (
        problems_of("rules", check_metric)
        == f"""\
rules/a.yaml:5:14: not valid YAML: expected a comment or a line break, but found '0'; quote the condition: '> 0.1'
rules/b.yaml:1:1: field 'trainers' is missing
rules/b.yaml:2:1: unknown field 'trainer'; did you mean 'trainers'?
rules/b.yaml:5:13: condition: unknown function 'dropp'; did you mean 'drop'?
      dropp(50%)
      ^
rules/c.yaml:6:10: message: unknown placeholder {{value.__class__}}; {USE}
rules/deep/d.yaml:3:9: metric: 'reward/margins' is not logged by any of [dpo]; did you mean 'rewards/margins' \
(reward_margin)?"""
    )


def test_metrics_of_the_condition_are_checked_where_they_stand(write):
    write("b.yaml", GOOD.replace('"> 1"', '"> 2 * reward/margins"'))
    assert problems_of("b.yaml", check_metric).startswith("b.yaml:5:19: condition: 'reward/margins' is not logged")


def test_a_name_in_backticks_is_the_users_own(write):
    write("b.yaml", GOOD.replace("metric: loss", 'metric: "`reward/margins`"').replace("> 1", "> `reward/margins`"))
    assert load_rules("b.yaml", check_metric)[0].metric == "reward/margins"


def test_paths(write, tmp_path):
    write("rules/b.yml", GOOD)
    write("rules/b.yaml", GOOD)
    (tmp_path / "empty").mkdir()
    (tmp_path / "rules" / "c.yaml").mkdir()
    assert problems_of(["rules", "empty", "nowhere", "nowhere.yaml"]).splitlines() == [
        "rules/b.yml: rename it to 'b.yaml', only *.yaml is read",
        "rules/c.yaml:1:1: cannot be read: Is a directory",
        "empty: no rule files (*.yaml) in this folder",
        "nowhere: no such file or folder",
        "nowhere.yaml: no such file or folder",
    ]


def test_same_name_twice(write):
    write("x/b.yaml", GOOD)
    write("y/b.yaml", GOOD)
    assert problems_of(["x", "y"]) == "y/b.yaml:1:7: name: 'b' is also in x/b.yaml"


def test_files_are_sorted(write):
    for name in ("z", "a", "m/b"):
        write(f"rules/{name}.yaml", GOOD.replace("name: b", f"name: {name[-1]}"))
    assert [rule.name for rule in load_rules("rules")] == ["a", "b", "z"]


def test_circle_of_rules_that_silence_each_other(write):
    write("x.yaml", GOOD.replace("name: b", "name: x") + "unless: [y]\n")
    write("y.yaml", GOOD.replace("name: b", "name: y") + "unless: [x]\n")
    write("z.yaml", GOOD.replace("name: b", "name: z") + "unless: [x]\n")
    assert problems_of(["x.yaml", "y.yaml", "z.yaml"]).splitlines() == [
        "x.yaml:7:9: unless: 'x' would silence itself",
        "y.yaml:7:9: unless: 'y' would silence itself",
    ]


def test_nothing_is_constructed_but_plain_data(write, monkeypatch):
    monkeypatch.setattr(yaml, "load", None)  # the loader must not need it
    write("b.yaml", f"{GOOD}why: !!python/name:os.system ''\n")
    assert problems_of("b.yaml") == f"b.yaml:7:6: {TAG}"


# Several rules


def named(write, *names, extra=""):
    for name in names:
        write(f"{name}.yaml", GOOD.replace("name: b", f"name: {name}") + extra)
    return load_rules([f"{name}.yaml" for name in names])


def test_select(write):
    rules = named(write, "kto_stuck", "kto_margin", extra="renamed_from: [kto_old]\n")[:1] + named(write, "loss_nan")
    assert select(rules, ["kto_*"]) == {"kto_stuck"}
    assert select(rules, ["loss_nan", "*"]) == {"kto_stuck", "loss_nan"}
    with pytest.warns(FutureWarning, match="rule 'kto_old' is now 'kto_stuck'"):
        assert select(rules, ["kto_old"]) == {"kto_stuck"}
    with pytest.raises(DiagnosticsError, match="^disable: no rule 'los_nan'; did you mean 'loss_nan'\\?$"):
        select(rules, ["los_nan"])


def test_an_old_name_that_another_rule_has_by_now_is_that_rule(write):
    rules = named(write, "new", extra="renamed_from: [old]\n") + named(write, "old")
    assert select(rules, ["old"]) == {"old"}


def test_merge(write):
    builtin, custom = named(write, "one", "two"), named(write, "two", "three", extra="window: 3\n")
    assert [(rule.name, rule.window) for rule in merge_rules(builtin, custom)] == [
        ("one", 20),
        ("two", 3),
        ("three", 3),
    ]


def test_merge_checks_unless(write):
    builtin = named(write, "cause", extra="renamed_from: [old_cause]\n")
    with pytest.warns(FutureWarning, match="rule 'old_cause' is now 'cause'"):
        merge_rules(builtin, named(write, "symptom", extra="unless: [old_cause]\n"))
    with pytest.raises(DiagnosticsError, match="^symptom.yaml:7:9: unless: no rule 'caus'; did you mean 'cause'\\?$"):
        merge_rules(builtin, named(write, "symptom", extra="unless: [caus]\n"))


# Predicates of `when`


@pytest.mark.parametrize(
    "wanted, actual, expected",
    [
        ("sigmoid", "sigmoid", True),
        ("sigmoid", ["bco", "sigmoid"], True),  # a list matches on any element
        ("sigmoid", ("bco",), False),
        (["sigmoid", "ipo"], "ipo", True),
        (["sigmoid", "ipo"], ["bco", "ipo"], True),
        (["sigmoid", "ipo"], [], False),
        (True, True, True),
        (True, False, False),
        (True, 1, False),  # 1 is not True
        (1, True, False),
        (None, None, True),
        (None, 0, False),
        (0, None, False),
        (0, 0.0, True),
        (0.1, 0.1, True),
        ("> 0", 0.04, True),
        ("> 0", 0, False),
        (">0", 1, True),
        (">= 1e-3", 0.001, True),
        ("< 1", None, False),  # nothing is no number
        ("< 1", "auto", False),
        ("> 0", [0.0, 0.5], True),
        ("== 5", 5, True),
        ("!= sigmoid", "ipo", True),
        ("!= sigmoid", "sigmoid", False),
        ("!= sigmoid", ["ipo", "sigmoid"], False),  # the opposite of ==
        ("!= null", None, False),
        ("!= null", 0.5, True),
        ("!= 0", None, True),
        ("!= true", False, True),
        (["< 0", "> 1"], 2, True),
        (["< 0", "> 1"], 0.5, False),
    ],
)
def test_when(wanted, actual, expected):
    assert holds(parse_when(wanted), actual) is expected
