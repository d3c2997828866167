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

import os
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
from .needs import too_short
from .tree import OF_THE_RECORD, Condition
from .when import Predicate, parse_when
from .yaml_file import Document, read_document, suggest


SEVERITIES = tuple(str(severity) for severity in reversed(Severity))
STATUSES = ("stable", "experimental", "deprecated")
ANY_TRAINER = ("all", "common")
PLACEHOLDERS = ("metric", "step", "trainer", "value", "window")
NAME = re.compile(r"[a-z][a-z0-9_]*")
METRIC = re.compile(r"[A-Za-z][\w/.*-]*|`[^`]+`", re.ASCII)

CheckMetric = Callable[[str, tuple[str, ...]], str | None]
Paths = str | Path | Iterable[str | Path]


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
    when: dict[str, tuple[Predicate, ...]] = field(default_factory=dict)
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


def load_rules(paths: Paths, check_metric: CheckMetric | None = None) -> list[Rule]:
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
    rules, problems = read_rules(paths, check_metric)
    if problems:
        raise DiagnosticsError("\n".join(problems))
    return rules


def read_rules(paths: Paths, check_metric: CheckMetric | None = None) -> tuple[list[Rule], list[str]]:
    """As [`load_rules`], but returns the rules that can be read and the problems, each with its lines."""
    rules, problems, seen = [], [], set()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        for file in _files(Path(path), problems):
            if (real := os.path.realpath(file)) in seen:  # named twice, or in a folder that is named too
                continue
            seen.add(real)
            document = read_document(file)
            rule = build_rule(document, check_metric) if document.keys else None
            problems += document.sorted_problems()
            if rule:
                rules.append(rule)
    return rules, problems + _duplicates(rules) + _bad_unless(rules)


def _files(path: Path, problems: list[str]) -> list[Path]:
    if path.is_dir():
        files = sorted(path.rglob("*.yaml"))
        problems += [
            f"{file}: rename it to '{file.stem}.yaml', only *.yaml is read" for file in sorted(path.rglob("*.yml"))
        ]
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


def current_names(rules: Iterable[Rule]) -> dict[str, str]:
    """Old name to present name of each renamed rule, unless another rule has the old name by now."""
    names = {rule.name for rule in rules}
    return {old: rule.name for rule in rules for old in rule.renamed_from if old not in names}


def _warn_renamed(old: str, new: str) -> None:
    warnings.warn(f"rule '{old}' is now '{new}'", FutureWarning, stacklevel=4)


def select(rules: list[Rule], patterns: Iterable[str], option: str = "disable") -> set[str]:
    """
    Names of the rules that match names, old names or globs.

    Raises:
        `DiagnosticsError`: for a pattern that matches nothing, with the nearest name.
    """
    names = [rule.name for rule in rules]
    current = current_names(rules)
    selected = set()
    for pattern in patterns:
        if pattern in current:
            _warn_renamed(pattern, current[pattern])
        matches = {name for name in names if fnmatchcase(name, current.get(pattern, pattern))}
        if not matches:
            raise DiagnosticsError(f"{option}: no rule '{pattern}'{suggest(pattern, names)}")
        selected |= matches
    return selected


def merge_rules(rules: list[Rule], custom: list[Rule]) -> list[Rule]:
    """Built-in and custom rules together; a custom rule replaces the built-in one of the same name."""
    names = {rule.name for rule in custom}
    merged = [rule for rule in rules if rule.name not in names] + custom
    if problems := unknown_causes(merged, merged):
        raise DiagnosticsError("\n".join(problems))
    return merged


def unknown_causes(rules: Iterable[Rule], among: list[Rule]) -> list[str]:
    """The problems with `unless` of some rules: names that none of the others has."""
    current = current_names(among)
    known = {rule.name for rule in among} | set(current)
    problems = []
    for rule in rules:
        for name in rule.unless:
            if name not in known:
                problems.append(rule.document.at("unless", f"no rule '{name}'{suggest(name, known)}"))
            elif name in current:
                _warn_renamed(name, current[name])
    return problems


def build_rule(document: Document, check_metric: CheckMetric | None = None) -> Rule | None:
    """Check the fields of one document and build its rule; problems are collected in the document."""
    document.check_fields()
    _check_names(document)
    condition = _condition(document)
    severity = _one_of(document, "severity", SEVERITIES)
    status = _one_of(document, "status", STATUSES)
    when = {key: _when(document, key, value) for key, value in document.get("when", {}).items()}
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


def _check_names(document: Document) -> None:
    name, stem = document.get("name"), document.path.stem
    if name is not None and not NAME.fullmatch(name):
        document.problem("name", f"'{name}' must match [a-z][a-z0-9_]*")
    elif name is not None and name != stem:
        document.problem("name", f"'{name}' must be the file's name, '{stem}'")
    for trainer in document.strings("trainers"):
        if problem := trainer_problem(trainer):
            document.problem("trainers", problem)
            break
    metric = document.get("metric")
    if metric is not None and not METRIC.fullmatch(metric):
        document.problem("metric", f"{metric!r} is not a metric's name; put backticks around unusual names: '`...`'")


def trainer_problem(trainer: str) -> str | None:
    """Why no trainer has this name, which is that of its class in lower case without `Trainer`."""
    name = re.sub("_?trainer$", "", trainer.strip().lower().replace("-", "_"))
    if name == trainer and NAME.fullmatch(trainer):
        return None
    hint = f"; write '{name}'" if NAME.fullmatch(name) else ""
    return f"'{trainer}' is not a trainer's name such as 'grpo' or 'all'{hint}"


def _window(document: Document, condition: Condition) -> int:
    return document.get("window", 1 if condition.has_for else 20)


def _condition(document: Document) -> Condition | None:
    text = document.get("condition")
    if text is None:
        return None
    try:
        return parse_condition(text)
    except DiagnosticsError as error:
        document.problem("condition", str(error), error.column, text)
        return None


def _one_of(document: Document, name: str, values: Iterable[str]) -> str | None:
    value = document.get(name)
    if value is not None and value not in values:
        document.problem(name, f"'{value}' is not one of {', '.join(values)}{suggest(value, values)}")
    return value


def _when(document: Document, key: Any, value: Any) -> tuple[Predicate, ...]:
    if not isinstance(key, str):
        document.problem("when", f"expected names of training arguments, found {key!r}; put it in quotes")
    try:
        return parse_when(value)
    except DiagnosticsError as error:
        document.problem("when", f"{key}: {error}")
        return ()


def _check_condition(document: Document, condition: Condition) -> None:
    """Checks that need the condition and another field."""
    window = _window(document, condition)
    if function := too_short(condition.test, window):
        document.problem("condition", f"'{function}' cannot be judged on a window of {window}; set 'window'")
    if problem := glob_problem(document.get("metric", "*"), condition):
        document.problem("condition", problem)
    if problem := message_problem(document.get("message", ""), [*PLACEHOLDERS, *condition.metrics]):
        document.problem("message", problem)


def glob_problem(metric: str, condition: Condition) -> str | None:
    """A metric of the condition with more `*` than the rule's own metric, from which they take their text."""
    stars = metric.count("*")
    wild = next((name for name in condition.metrics if name.count("*") > stars), None)
    return wild and f"'{wild}' takes the text of its '*' from the rule's own metric '{metric}', which has {stars}"


def _check_metrics(document: Document, condition: Condition | None, check_metric: CheckMetric) -> None:
    """Names that none of the rule's trainers logs; backticks mark a name as the user's own."""
    trainers, metric = document.strings("trainers"), document.get("metric", "`")
    if not trainers:
        return
    if not metric.startswith("`") and (problem := check_metric(metric, trainers)):
        document.problem("metric", problem)
    for name, problem in unknown_metrics(condition, trainers, check_metric) if condition else ():
        text = document.get("condition")
        document.problem("condition", problem, text.find(name), text)


def unknown_metrics(condition: Condition, trainers: tuple[str, ...], check_metric: CheckMetric):
    """Pairs of a metric in the condition that no trainer logs, and the problem."""
    for name in condition.metrics:
        own = name in OF_THE_RECORD or f"`{name}`" in condition.text
        if not own and (problem := check_metric(name, trainers)):
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
        if not _spec_fits(spec, "" if name in ("metric", "trainer") else 1 if name in ("step", "window") else 1.0):
            return f"format '{spec}' does not fit {{{name}}}"
    return None


def _spec_fits(spec: str, example: Any) -> bool:
    if re.search(r"\d{3}", spec):  # a width of 999999999 would fill the memory
        return False
    try:
        format(example, spec)
    except ValueError:
        return False
    return True
