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

"""Rule files go in, checked `Rule` objects come out; all problems are reported at once and located."""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from string import Formatter
from typing import Any

from .condition import parse_condition
from .finding import DiagnosticsError, Severity
from .tree import Condition
from .verdict import too_short
from .yaml_file import Document, read_document, suggest


SEVERITIES = tuple(str(severity) for severity in reversed(Severity))
STATUSES = ("stable", "experimental", "deprecated")
ANY_TRAINER = ("all", "common")
PLACEHOLDERS = ("metric", "step", "trainer", "value", "window")
PREDICATE = re.compile(r"(<=|>=|==|!=|<|>)\s*(.+)")
NAME = re.compile(r"[a-z][a-z0-9_]*")

CheckMetric = Callable[[str, tuple[str, ...]], str | None]


@dataclass(frozen=True)
class Rule:
    """
    One diagnostic rule. See `rules/README.md` for the meaning of each field.

    Args:
        name (`str`): Identity; states the problem.
        trainers (`tuple[str, ...]`): Trainer class names in lower case without `Trainer`, or `all`.
        metric (`str`): Canonical name, TRL's own key, or a glob.
        condition (`Condition`): What must be true.
        severity (`Severity`): How bad it is.
        message (`str`): One sentence with placeholders.
        description (`str`, *optional*): One line; the message by default.
        window (`int`, *optional*, defaults to `20`): Logged points the condition looks at; 1 if the condition says `for`.
        min_steps (`int`, *optional*, defaults to `30`): Logged points before the rule may speak.
        enabled (`bool`, *optional*, defaults to `True`): Whether the rule is used.
        status (`str`, *optional*, defaults to `"stable"`): `"stable"`, `"experimental"` or `"deprecated"`.
        when (`dict[str, tuple]`, *optional*): Predicates on training arguments.
        unless (`tuple[str, ...]`, *optional*): Rules that silence this one while they fire.
        why (`str`, *optional*), fix (`str`, *optional*): For people who want to know more.
        reference (`tuple[str, ...]`, *optional*): Where mechanism and threshold come from.
        false_positives (`tuple[str, ...]`, *optional*): Known situations in which the rule is wrong.
        renamed_from (`tuple[str, ...]`, *optional*): Old names.
        tests (`list[dict]`, *optional*): Tests as read from the file.
        document (`Document`, *optional*): Where the rule was read, for located errors.
    """

    name: str
    trainers: tuple[str, ...]
    metric: str
    condition: Condition
    severity: Severity
    message: str
    description: str = ""
    window: int = 20
    min_steps: int = 30
    enabled: bool = True
    status: str = "stable"
    when: dict[str, tuple] = field(default_factory=dict)
    unless: tuple[str, ...] = ()
    why: str = ""
    fix: str = ""
    reference: tuple[str, ...] = ()
    false_positives: tuple[str, ...] = ()
    renamed_from: tuple[str, ...] = ()
    tests: tuple[dict, ...] = ()
    document: Document | None = field(default=None, compare=False, repr=False)

    def applies_to(self, trainers: Iterable[str]) -> bool:
        """Whether the rule is meant for any of these trainers."""
        mine = {trainer.replace("_", "") for trainer in self.trainers}
        return not mine.isdisjoint(ANY_TRAINER) or not mine.isdisjoint(t.replace("_", "") for t in trainers)

    def render(self, values: dict[str, Any]) -> str:
        """The message with its placeholders filled in."""
        parts = []
        for text, name, spec, _ in Formatter().parse(self.message):
            parts.append(text)
            if name is not None:
                value = values[name]
                parts.append("null" if value is None else format(value, spec))
        return "".join(parts)


def holds(predicates: tuple, actual: Any) -> bool:
    """Whether a training argument satisfies any of the predicates of a `when` entry; a list does if an element does."""
    return any(_holds_one(predicate, item) for item in _listed(actual) for predicate in predicates)


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def _holds_one(predicate: tuple[str, Any], actual: Any) -> bool:
    operator, wanted = predicate
    if operator in ("==", "!="):
        same = str(actual) == wanted if isinstance(wanted, str) else type(actual) is not bool and actual == wanted
        if isinstance(wanted, bool) or wanted is None:
            same = actual is wanted
        return same == (operator == "==")
    if not isinstance(actual, int | float):
        return False
    return {"<": actual < wanted, "<=": actual <= wanted, ">": actual > wanted, ">=": actual >= wanted}[operator]


def load_rules(paths: str | Path | Iterable[str | Path], check_metric: CheckMetric | None = None) -> list[Rule]:
    """
    Load rules from files and folders.

    Args:
        paths (`str`, `Path` or an iterable of these):
            Files, and folders that are searched for `*.yaml`.
        check_metric (`Callable`, *optional*):
            Gives the problem with a metric name for some trainers, or `None` if they log it.

    Returns:
        `list[Rule]`: in the order of the paths, files of a folder sorted by path.

    Raises:
        `DiagnosticsError`: with all problems of all files, one per line.
    """
    rules, problems = [], []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for file in _files(Path(path), problems):
            document = read_document(file)
            rule = build_rule(document, check_metric) if document.mapping is not None else None
            problems += document.sorted_problems()
            if rule:
                rules.append(rule)
    problems += _duplicates(rules) + _bad_unless(rules)
    if problems:
        raise DiagnosticsError("\n".join(problems))
    return rules


def _files(path: Path, problems: list[str]) -> list[Path]:
    if path.is_dir():
        files = sorted(path.rglob("*.yaml"))
        problems += [f"{file}: rename it to '{file.stem}.yaml', only *.yaml is read" for file in path.rglob("*.yml")]
        if not files:
            problems.append(f"{path}: no rule files (*.yaml) in this folder")
        return files
    if not path.is_file():
        problems.append(f"{path}: no such file or folder")
        return []
    return [path]


def _duplicates(rules: list[Rule]) -> list[str]:
    first: dict[str, Rule] = {}
    problems = []
    for rule in rules:
        if rule.name in first:
            problems.append(rule.document.at("name", f"'{rule.name}' is also in {first[rule.name].document.path}"))
        first.setdefault(rule.name, rule)
    return problems


def _bad_unless(rules: list[Rule]) -> list[str]:
    """Cycles; names that no rule has are reported when all rules are together (custom rules may name built-in ones)."""
    unless = {rule.name: rule.unless for rule in rules}
    problems = []
    for rule in rules:
        seen, stack = set(), list(rule.unless)
        while stack:
            name = stack.pop()
            if name == rule.name:
                problems.append(rule.document.at("unless", f"'{rule.name}' would silence itself"))
                break
            if name not in seen:
                seen.add(name)
                stack += unless.get(name, ())
    return problems


def select(rules: list[Rule], patterns: Iterable[str], option: str = "disable") -> set[str]:
    """
    Names of the rules that match names, old names or globs.

    Raises:
        `DiagnosticsError`: for a pattern that matches nothing, with the nearest name.
    """
    names = [rule.name for rule in rules]
    old = {old: rule.name for rule in rules for old in rule.renamed_from}
    selected = set()
    for pattern in patterns:
        if pattern in old:
            warnings.warn(f"rule '{pattern}' is now '{old[pattern]}'", FutureWarning, stacklevel=3)
        matches = {name for name in names if fnmatchcase(name, old.get(pattern, pattern))}
        if not matches:
            raise DiagnosticsError(f"{option}: no rule '{pattern}'{suggest(pattern, names)}")
        selected |= matches
    return selected


def merge_rules(rules: list[Rule], custom: list[Rule]) -> list[Rule]:
    """Built-in and custom rules together; a custom rule replaces the built-in one of the same name."""
    names = {rule.name for rule in custom}
    merged = [rule for rule in rules if rule.name not in names] + custom
    known = {rule.name for rule in merged} | {old for rule in merged for old in rule.renamed_from}
    problems = [
        rule.document.at("unless", f"no rule '{name}'{suggest(name, known)}")
        for rule in merged
        for name in rule.unless
        if name not in known
    ]
    if problems:
        raise DiagnosticsError("\n".join(problems))
    return merged


def build_rule(document: Document, check_metric: CheckMetric | None = None) -> Rule | None:
    """Check the fields of one document and build its rule; problems are collected in the document."""
    document.check_fields()
    _check_name(document)
    condition = _condition(document)
    severity = _one_of(document, "severity", SEVERITIES)
    status = _one_of(document, "status", STATUSES)
    when = {key: _predicates(document, key, value) for key, value in document.get("when", {}).items()}
    if check_metric:
        _check_metrics(document, condition, check_metric)
    if condition:
        _check_condition(document, condition)
    if document.problems:
        return None
    message = document.get("message").strip()
    return Rule(
        name=document.get("name"),
        trainers=document.strings("trainers"),
        metric=document.get("metric").strip("`"),
        condition=condition,
        severity=Severity[severity.upper()],
        message=message,
        description=document.get("description", message.splitlines()[0]),
        window=_window(document, condition),
        min_steps=document.get("min_steps", 30),
        enabled=document.get("enabled", True),
        status=status or "stable",
        when=when,
        unless=document.strings("unless"),
        why=document.get("why", "").strip(),
        fix=document.get("fix", "").strip(),
        reference=document.strings("reference"),
        false_positives=document.strings("false_positives"),
        renamed_from=document.strings("renamed_from"),
        tests=tuple(document.get("tests", [])),
        document=document,
    )


def _check_name(document: Document) -> None:
    name, stem = document.get("name"), document.path.stem
    if name is not None and not NAME.fullmatch(name):
        document.problem("name", f"'{name}' must match [a-z][a-z0-9_]*")
    elif name is not None and name != stem:
        document.problem("name", f"'{name}' must be the file's name, '{stem}'")


def _window(document: Document, condition: Condition) -> int:
    return document.get("window", 1 if condition.has_for else 20)


def _condition(document: Document) -> Condition | None:
    text = document.get("condition")
    if text is None:
        return None
    try:
        return parse_condition(text.strip())
    except DiagnosticsError as error:
        document.problem("condition", str(error), error.column, text.strip())
        return None


def _one_of(document: Document, name: str, values: Iterable[str]) -> str | None:
    value = document.get(name)
    if value is not None and value not in values:
        document.problem(name, f"'{value}' is not one of {', '.join(values)}{suggest(value, values)}")
    return value


def _predicates(document: Document, key: str, value: Any) -> tuple:
    """`when` entries as (operator, value) pairs, any of which may hold."""
    return tuple(_predicate(document, key, item) for item in _listed(value))


def _predicate(document: Document, key: str, item: Any) -> tuple[str, Any]:
    if not isinstance(item, str | int | float | bool | None):
        document.problem("when", f"{key}: expected a value, a list of values or a comparison, found {item!r}")
        return ("==", None)
    match = PREDICATE.fullmatch(item) if isinstance(item, str) else None
    operator, wanted = match.groups() if match else ("==", item)
    if isinstance(wanted, str) and (number := _as_number(wanted)) is not None:
        if not match:
            document.problem("when", f"{key}: YAML reads '{wanted}' as text; write {number!r}")
        wanted = number
    if operator not in ("==", "!=") and isinstance(wanted, str):
        document.problem("when", f"{key}: '{operator}' needs a number, found '{wanted}'")
    return operator, wanted


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_condition(document: Document, condition: Condition) -> None:
    """Checks that need the condition and another field."""
    window = _window(document, condition)
    if function := too_short(condition.test, window):
        document.problem("condition", f"'{function}' cannot be judged on a window of {window}; set 'window'")
    if "*" not in document.get("metric", "*") and any("*" in metric for metric in condition.metrics):
        document.problem("condition", "a metric with '*' needs a '*' in the rule's own metric, whose text it takes")
    if problem := message_problem(document.get("message", ""), [*PLACEHOLDERS, *condition.metrics]):
        document.problem("message", problem)


def _check_metrics(document: Document, condition: Condition | None, check_metric: CheckMetric) -> None:
    """Names that none of the rule's trainers logs; backticks mark a name as the user's own."""
    trainers, metric = document.strings("trainers"), document.get("metric", "`")
    if not metric.startswith("`") and (problem := check_metric(metric, trainers)):
        document.problem("metric", problem)
    for name, problem in unknown_metrics(condition, trainers, check_metric) if condition else ():
        document.problem("condition", problem, condition.text.find(name), condition.text)


def unknown_metrics(condition: Condition, trainers: tuple[str, ...], check_metric: CheckMetric):
    """Pairs of a metric in the condition that no trainer logs, and the problem."""
    for name in condition.metrics:
        if name != "step" and f"`{name}`" not in condition.text and (problem := check_metric(name, trainers)):
            yield name, problem


def message_problem(message: str, allowed: list[str]) -> str | None:
    """What is wrong with the placeholders of a message, if anything."""
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(message) if name is not None
        ]
    except ValueError as error:
        return f"{error}; write '{{{{' and '}}}}' for braces"
    for name, spec, conversion in fields:
        if name not in allowed or conversion:
            shown = f"{{{name}{'!' + conversion if conversion else ''}}}"
            return f"unknown placeholder {shown}; use {', '.join(allowed)}"
        try:
            format("" if name in ("metric", "trainer") else 1 if name in ("step", "window") else 1.0, spec)
        except ValueError:
            return f"format '{spec}' does not fit {{{name}}}"
    return None
