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

"""The rules' README: each stream it shows is replayed, each word of the language has one, and its example is a rule."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
from engine_kit import records, rule

import trl_diagnostics
from trl_diagnostics.engine.alert import parse_alert
from trl_diagnostics.engine.condition import CALLED, MATH, PLAIN, STATISTICS, parse_sum
from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.engine.history import History
from trl_diagnostics.engine.rule import Rule, load_rules
from trl_diagnostics.engine.rule_tests import check_tests, parse_series
from trl_diagnostics.engine.value import Scope, bind_sum
from trl_diagnostics.engine.verdict import bind_test


README = (Path(trl_diagnostics.__file__).parent / "rules" / "README.md").read_text(encoding="utf-8")
STREAMS = re.findall(r"```stream\n(.*?)\n```", README, re.DOTALL)
EPISODE = {"start", "on", "end", "-"}


def parse(stream):
    """Text, settings, points by metric, and the words of the last line."""
    head, *rows, result = stream.splitlines()
    text, _, settings = head.partition("   ")
    settings = {key: float(number) for key, number in (pair.split() for pair in settings.split(",") if pair.strip())}
    series = {name: parse_series(points) for name, points in (row.split(maxsplit=1) for row in rows)}
    mark, *words = result.split()
    assert mark == "=>"
    return text, settings, series, words


def episode_words(text, settings, series):
    given = {name: int(settings[name]) for name in ("window", "min_steps") if name in settings}
    engine = Engine([rule(text, metric="value", **given)], config=settings)
    words = []
    for record in records(**series):
        states = [finding.state for finding in engine.update(record)]
        on = "on" if engine.judges[0].episode.active else "-"
        words.append({"started": "start", "resolved": "end"}[states[0]] if states else on)
    return words


def bound(text, settings, history, count, step):
    scope = Scope(history, settings.get, int(settings.get("window", 20)), lambda: count[0], lambda: step[0])
    try:
        return bind_test(rule(text).condition.test, scope)
    except DiagnosticsError:
        return bind_sum(parse_sum(text)[0], scope)


def word(result):
    if result is None or isinstance(result, bool):
        return {None: "?", True: "yes", False: "no"}[result]
    return f"{result:.3g}"


def point_words(text, settings, series):
    histories, count, step = {}, [0], [0]
    result = bound(text, settings, lambda name: histories.setdefault(name, History()), count, step)
    words = []
    for record in records(**series):
        count[0] += 1
        step[0] = record.step
        for name, point in {**record.metrics, "step": record.step}.items():
            if name in histories:
                histories[name].push(point, record.step > settings.get("warmup_steps", 0))
                histories[name].last_record = count[0]
        words.append(word(result()))
    return words


def replay(stream):
    text, settings, series, words = parse(stream)
    return words, (episode_words if EPISODE & set(words) else point_words)(text, settings, series)


@pytest.mark.parametrize("stream", STREAMS, ids=[stream.splitlines()[0] for stream in STREAMS])
def test_stream(stream):
    shown, computed = replay(stream)
    assert shown == computed


def test_every_word_of_the_language_has_a_stream():
    heads = " ".join(stream.splitlines()[0] for stream in STREAMS)
    words = set(re.findall(r"[a-z]+", heads))
    assert {*CALLED, *PLAIN, *STATISTICS, *MATH, "and", "or", "not", "for", "of", "config", "step"} - words == set()
    assert {operator for operator in "+-*/" if f" {operator} " not in heads} == {"+"}


def test_every_field_is_described():
    rows = re.findall(r"^\| (`.*?) \|", README.partition("## Fields")[2].partition("##")[0], re.MULTILINE)
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(field.name for field in fields(Rule) if field.name != "document")


def test_example_is_a_rule_that_passes_its_tests(tmp_path):
    example = re.search(r"```yaml\n(# yaml-language-server.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "entropy_gone.yaml").write_text(example, encoding="utf-8")
    (rule_of_example,) = load_rules(tmp_path / "entropy_gone.yaml")
    assert check_tests(rule_of_example) == []


def test_alerts_of_the_page_are_alerts():
    alerts = re.search(r"```\n(grpo: .*?)```", README, re.DOTALL).group(1).splitlines()
    assert [parse_alert(alert).trainers for alert in alerts] == [("grpo",), ("dpo", "kto"), ("all",)]


def test_links_lead_to_headings():
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)", README, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#(.*?)\)", README)) <= headings
