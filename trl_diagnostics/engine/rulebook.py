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

"""What the user chose goes in (alerts, a folder of rules, rules to mute), the rules of a run come out."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from .alert import parse_alert
from .finding import DiagnosticsError, Finding
from .rule import CheckMetric, Rule, load_rules, merge_rules, select
from .yaml_file import pointer


CheckRule = Callable[[Rule], list[tuple[str, str, str]]]

BUILTIN = Path(__file__).parents[1] / "rules"


def collect_rules(
    custom_alerts: Iterable[str] = (),
    custom_heuristics_dir: str | Path | None = None,
    disable: Iterable[str] = (),
    check_metric: CheckMetric | None = None,
    check_rule: CheckRule | None = None,
    hide: Callable[[str], str] | None = None,
) -> list[Rule]:
    """
    Built-in rules, the user's rules and alerts, without the muted ones.

    Args:
        custom_alerts (`Iterable[str]`, *optional*):
            Inline alerts, see [`parse_alert`].
        custom_heuristics_dir (`str` or `Path`, *optional*):
            Folder of rule files. A rule with the name of a built-in one replaces it.
        disable (`Iterable[str]`, *optional*):
            Names or globs of rules to mute.
        check_metric (`Callable`, *optional*):
            As in [`load_rules`].
        check_rule (`Callable`, *optional*):
            Gives what else is wrong with the names in a rule: a field, its problem and the word in it.
        hide (`Callable[[str], str]`, *optional*):
            Takes what is secret out of the texts of the user's rules, which are in every finding.

    Raises:
        `DiagnosticsError`: with all that is wrong, before training starts.
    """
    _check_texts("custom_alerts", custom_alerts)
    _check_texts("disable", disable)
    rules = _builtin()
    custom = load_rules(custom_heuristics_dir, check_metric) if custom_heuristics_dir is not None else []
    problems = [text for rule in custom for text in (located(rule, check_rule(rule)) if check_rule else ())]
    if problems:
        raise DiagnosticsError("\n".join(problems))
    custom = [_hidden(rule, hide) for rule in custom] if hide else custom
    rules = merge_rules(rules, custom + _alerts(custom_alerts, check_metric, check_rule))
    muted = select(rules, disable)
    return [rule for rule in rules if rule.name not in muted]


def causes_first(rules: list[Rule], current: dict[str, str]) -> list[Rule]:
    """Order in which each rule comes after the rules that may silence it, otherwise as given."""
    by_name = {rule.name: rule for rule in rules}
    ordered: dict[str, Rule] = {}

    def visit(rule: Rule, path: tuple[str, ...]) -> None:
        if rule.name in path:
            raise DiagnosticsError(f"rules silence each other in a circle: {' -> '.join([*path, rule.name])}")
        for name in rule.unless:
            cause = by_name.get(current.get(name, name))
            if cause and cause.name not in ordered:
                visit(cause, (*path, rule.name))
        ordered[rule.name] = rule

    for rule in rules:
        if rule.name not in ordered:
            visit(rule, ())
    return list(ordered.values())


def _hidden(rule: Rule, hide: Callable[[str], str]) -> Rule:
    texts = {name: hide(text) for name, text in (("message", rule.message), ("why", rule.why), ("fix", rule.fix))}
    return replace(rule, **texts, reference=tuple(map(hide, rule.reference)))


@cache  # for a tree of runs
def _builtin() -> list[Rule]:
    return load_rules(BUILTIN)


def _check_texts(option: str, value: Iterable[str]) -> None:
    if isinstance(value, str):
        raise DiagnosticsError(f"{option}: expected a list of texts, found {value!r}; put it in brackets")
    if not isinstance(value, list | tuple):
        raise DiagnosticsError(f"{option}: expected a list of texts, found {value!r}")
    for i, text in enumerate(value):
        if not isinstance(text, str):
            raise DiagnosticsError(f"{option}[{i}]: expected a text, found {text!r}")


def located(rule: Rule, problems: list[tuple[str, str, str]]) -> list[str]:
    """Problems of a rule file with their places."""
    condition = rule.condition.text
    return [
        rule.document.at(field, problem, condition.find(word), condition)
        if field == "condition"
        else rule.document.at(field, problem)
        for field, problem, word in problems
    ]


def _alerts(texts: Iterable[str], check_metric: CheckMetric | None, check_rule: CheckRule | None) -> list[Rule]:
    rules: dict[str, Rule] = {}
    problems = []
    for i, text in enumerate(texts):
        where = f"custom_alerts[{i}]"
        try:
            rule = parse_alert(text, where, check_metric)
        except DiagnosticsError as error:
            problems.append(str(error))
            continue
        wrong = check_rule(rule) if check_rule else []
        for field, problem, word in wrong:
            problems.append(f"{where}:{text.find(word) + 1}: {field}: {problem}\n{pointer(text, text.find(word))}")
        names = (f"{rule.name}{suffix}" for suffix in ("", *(f"_{n}" for n in range(2, i + 2))))
        name = next(name for name in names if name not in rules)
        rules[name] = replace(rule, name=name)
    if problems:
        raise DiagnosticsError("\n".join(problems))
    return list(rules.values())


def without_texts(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings for JSON, without the texts that are in their rules."""
    return [{**finding.to_json(), "why": "", "fix": "", "reference": []} for finding in findings]


def with_texts(findings: Iterable[dict[str, Any]], rules: Iterable[Rule]) -> list[Finding]:
    """The inverse of [`without_texts`]; a rule that is gone has none."""
    known = {rule.name: rule for rule in rules}
    whole = []
    for finding in map(Finding.from_json, findings):
        rule = known.get(finding.rule)
        texts = {"why": rule.why, "fix": rule.fix, "reference": list(rule.reference)} if rule else {}
        whole.append(replace(finding, **texts))
    return whole
