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

"""Paths of rule files go in, the rules that can be read come out, and everything that is wrong in the files."""

from collections.abc import Iterable
from pathlib import Path

from .engine.finding import DiagnosticsError
from .engine.rule import Rule, load_rules, merge_rules
from .engine.rule_tests import check_entry, run_test
from .engine.rulebook import BUILTIN, located
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap


def read_rules(paths: str | Path | Iterable[str | Path]) -> tuple[list[Rule], list[str]]:
    """
    The rules of files and folders, and the problems of the files that cannot be read.

    Args:
        paths (`str`, `Path` or an iterable of these):
            Files and folders.

    Returns:
        `tuple[list[Rule], list[str]]`: rules, and located problems, which may have several lines each.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    try:
        return load_rules(paths, check_metric), []
    except DiagnosticsError as error:
        return [rule for path in paths for rule in _good(Path(path))], _one_by_one(error)


def _one_by_one(error: DiagnosticsError) -> list[str]:
    """The problems in an error's text; the lines that show a condition are indented."""
    problems: list[str] = []
    for line in str(error).splitlines():
        if line.startswith(" "):
            problems[-1] += f"\n{line}"
        else:
            problems.append(line)
    return problems


def _good(path: Path) -> list[Rule]:
    """The rules of a folder that are right by themselves."""
    rules = []
    for file in sorted(path.rglob("*.yaml")) if path.is_dir() else [path]:
        try:
            rules += load_rules(file, check_metric)
        except DiagnosticsError:  # its problems are told already, with those of all files
            continue
    return rules


def check(paths: list[str]) -> tuple[list[Rule], list[str]]:
    """
    Everything that is wrong in rule files: how they are written, the names in them, their tests.

    Args:
        paths (`list[str]`):
            Files and folders. In the folder of the built-in rules, these must be fit to be built in, too.

    Returns:
        `tuple[list[Rule], list[str]]`: the rules that could be read, and the problems.
    """
    rules, problems = read_rules(paths)
    for rule in rules:
        problems += located(rule, check_rule(rule)) + failures(rule)
        if rule.document.get("tests") == []:
            problems.append(rule.document.at("tests", "is empty"))
        if rule.document.path.resolve().is_relative_to(BUILTIN.resolve()):
            problems += check_entry(rule, MetricMap)
    return rules, list(dict.fromkeys(problems + _beside_the_others(rules)))


def _beside_the_others(rules: list[Rule]) -> list[str]:
    """`unless` may name a built-in rule, or one of the checked ones."""
    try:
        merge_rules(load_rules(BUILTIN), rules)
    except DiagnosticsError as error:
        mine = [f"{rule.document.path}:" for rule in rules]
        return [problem for problem in _one_by_one(error) if problem.startswith(tuple(mine))]
    return []


def failures(rule: Rule) -> list[str]:
    """The tests of a rule that fail: where in the file, and at which points it fires."""
    lines = []
    for i, test in enumerate(rule.tests):
        problem = run_test(rule, test, MetricMap) if isinstance(test, dict) else f"expected a map, found {test!r}"
        if problem:
            mark = rule.document.values["tests"].value[i].start_mark
            name = test.get("name", i + 1) if isinstance(test, dict) else i + 1
            place = f"{rule.document.path}:{mark.line + 1}:{mark.column + 1}"
            lines.append(f"{place}: tests: '{name}': {problem}")
    return lines
