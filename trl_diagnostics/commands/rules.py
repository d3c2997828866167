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

"""Arguments of `rules` and `explain` go in, text about rules and metrics and an exit code come out."""

import argparse
import os
from pathlib import Path

from ..engine.finding import DiagnosticsError
from ..engine.rule import SEVERITIES, STATUSES, Rule, merge_rules, read_rules, select
from ..engine.rule_tests import check_tests
from ..engine.rulebook import BUILTIN, collect_rules
from ..explain import explain_all, explain_rule, when_in_words, wrapped
from ..metrics.checks import check_metric
from ..metrics.names import MetricMap
from ..rule_files import check
from ..words import count
from .arguments import map_of, trainer_named


def list_rules(args: argparse.Namespace) -> int:
    """Print the built-in rules, the worst first."""
    rules = collect_rules()
    names = select(rules, args.names, "rules") if args.names else {rule.name for rule in rules}
    rules = [rule for rule in rules if rule.name in names and _is_wanted(rule, args)]
    if args.trainer is not None:
        family = map_of(args.trainer).family
        rules = [rule for rule in rules if rule.applies_to(family)]
    for rule in sorted(rules, key=lambda rule: (-rule.severity, rule.name)):
        marks = "" if rule.status == "stable" else f", {rule.status}"
        print(wrapped(f"{rule.name} ({rule.severity}{marks}): {', '.join(rule.trainers)}", "", "      "))
        print(wrapped(rule.description, "    "))
    print(count(len(rules), "rule"))
    return 0


def _is_wanted(rule: Rule, args: argparse.Namespace) -> bool:
    return str(rule.severity) in (args.severity or SEVERITIES) and rule.status in (args.status or STATUSES)


def show_rules(args: argparse.Namespace) -> int:
    """Print the fields of some rules."""
    rules = collect_rules()
    names = select(rules, args.names, "rules show")
    print("\n\n".join(_described(rule) for rule in rules if rule.name in names))
    return 0


def _described(rule: Rule) -> str:
    rows = {
        "severity": f"{rule.severity} ({rule.status})",
        "trainers": ", ".join(rule.trainers),
        "metric": rule.metric,
        "condition": f"{rule.condition.text} (window {rule.window}, silent before log {rule.min_steps})",
        "when": when_in_words(rule.when),
        "silent while": ", ".join(rule.unless),
        "says": rule.message,
        "why": rule.why,
        "fix": rule.fix,
        "wrong when": " ".join(rule.false_positives),
        "earlier names": ", ".join(rule.renamed_from),
        "file": str(rule.document.path),
    }
    body = [wrapped(f"{key}: {value}", "  ", "    ") for key, value in rows.items() if value]
    references = [f"  reference: {reference}" for reference in rule.reference]
    return "\n".join([f"{rule.name}: {rule.description}", *body, *references])


def explain_names(args: argparse.Namespace) -> int:
    """Print what rules or metrics mean; the rules of the user's own files too."""
    paths = [name for name in args.names if name.endswith((".yaml", ".yml"))]  # metrics have slashes, too
    _must_exist(paths)
    own, problems = read_rules(paths, check_metric)
    if problems:
        raise DiagnosticsError("\n".join(problems))
    rules, names = collect_rules(), [name for name in args.names if name not in paths]
    told = [explain_rule(rule, merge_rules(rules, own)) for rule in own]
    told += [explain_all(names, rules, trainer_named(args.trainer))] if names else []
    print("\n\n\n".join(told))
    return 0


def check_files(args: argparse.Namespace) -> int:
    """Print all problems of all files."""
    _must_exist(args.paths)
    rules, problems = check(args.paths)
    tests = sum(len(rule.tests) for rule in rules)
    counts = (count(len(rules), "rule"), count(tests, "test"), count(len(problems), "problem"))
    print(*problems, ", ".join(counts), sep="\n")
    return 1 if problems else 0


def _must_exist(paths: list[str]) -> None:
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise DiagnosticsError("\n".join(f"{path}: no such file or folder" for path in missing))


def run_tests(args: argparse.Namespace) -> int:
    """Run the tests inside rule files; print a line per rule, and where and how each failure fails."""
    rules, problems = _to_test(args.names)
    failed = 0
    for rule in rules:
        lines = check_tests(rule, MetricMap)
        failed += len(lines)
        verdict = f"{len(lines)} FAILED" if lines else "ok" if rule.tests else "none"
        print(f"{rule.name}: {count(len(rule.tests), 'test')}, {verdict}", *lines, sep="\n    ")
    tests = sum(len(rule.tests) for rule in rules)
    print(*problems, f"{count(len(rules), 'rule')}, {count(tests, 'test')}, {failed} failed", sep="\n")
    return 1 if failed or problems else 0


def _to_test(names: list[str]) -> tuple[list[Rule], list[str]]:
    """Rules of files and folders, then built-in ones by name, and the problems of files that cannot be read."""
    if not names:
        return read_rules(BUILTIN, check_metric)
    paths = [name for name in names if _is_path(name)]
    _must_exist(paths)
    rules, problems = read_rules(paths, check_metric)
    if len(paths) < len(names):
        builtin = collect_rules()
        selected = select(builtin, [name for name in names if name not in paths], "rules test")
        rules += [rule for rule in builtin if rule.name in selected]
    return rules, problems


def _is_path(name: str) -> bool:
    """A folder needs a separator, so that the name of a rule never means a folder of that name."""
    if os.sep in name or name == ".":
        return True
    if name.endswith((".yaml", ".yml")):
        return Path(name).is_file()
    return False
