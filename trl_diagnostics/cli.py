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

"""The command line `trl-diagnostics`: arguments go in, text and an exit code come out (0 good, 1 problems, 2 usage)."""

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from .engine.finding import DiagnosticsError
from .engine.rule import SEVERITIES, STATUSES, Rule, select
from .engine.rulebook import BUILTIN, collect_rules
from .engine.yaml_file import suggest
from .explain import explain, wrapped
from .metrics.names import MetricMap, known_trainers
from .rule_files import check, failures, read_rules
from .wording import when_in_words


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    args = parser().parse_args(argv)
    with warnings.catch_warnings():
        # a renamed rule is the user's business, the line of ours that found it is not
        warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
        sys.exit(_run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        code = args.run(args)
        sys.stdout.flush()
        return code
    except DiagnosticsError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    top = argparse.ArgumentParser(prog="trl-diagnostics", description="Diagnostics for TRL post-training runs.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    rules = commands.add_parser("rules", help="list, show, check and test rules")
    rules.set_defaults(run=list_rules, names=[])
    _add_filters(rules, None)
    _add_actions(rules.add_subparsers(metavar="ACTION"))
    what = commands.add_parser("explain", help="what a rule or a metric means")
    what.add_argument("name", help="a rule, or a metric as TRL or this package calls it: kl, rewards/margins")
    what.add_argument("--trainer", help="trainer whose log has the metric: some keys mean something else in each")
    what.set_defaults(run=explain_name)
    return top


def _add_actions(actions: argparse._SubParsersAction) -> None:
    some = actions.add_parser("list", help="one rule per entry, the worst first (the default)")
    some.add_argument("names", nargs="*", metavar="NAME", help="name or glob such as 'dpo_*'; all rules by default")
    _add_filters(some, argparse.SUPPRESS)  # without it, options before `list` would be forgotten
    show = actions.add_parser("show", help="the fields of some rules")
    show.add_argument("names", nargs="+", metavar="NAME", help="name, old name or glob")
    show.set_defaults(run=show_rules)
    check = actions.add_parser("check", help="find everything that is wrong in rule files, failing tests too")
    check.add_argument("paths", nargs="+", metavar="PATH", help="rule file or folder")
    check.set_defaults(run=check_rules)
    test = actions.add_parser("test", help="run the tests inside rule files and list the results")
    test.add_argument("names", nargs="*", metavar="NAME|PATH", help="built-in rules (names, globs), files or folders")
    test.set_defaults(run=test_rules)


def _add_filters(command: argparse.ArgumentParser, default: str | None) -> None:
    command.add_argument("--trainer", default=default, help="only rules for this trainer, for example dpo")
    command.add_argument("--severity", default=default, action="append", choices=SEVERITIES, help="may be given twice")
    command.add_argument("--status", default=default, action="append", choices=STATUSES, help="may be given twice")


def list_rules(args: argparse.Namespace) -> int:
    """Print the built-in rules, the worst first."""
    rules = collect_rules()
    names = select(rules, args.names, "rules list") if args.names else {rule.name for rule in rules}
    rules = [rule for rule in rules if rule.name in names and _is_wanted(rule, args)]
    if args.trainer:
        metric_map = _map_of(args.trainer)
        rules = [rule for rule in rules if rule.applies_to((metric_map.trainer, *metric_map.bases))]
    for rule in sorted(rules, key=lambda rule: (-rule.severity, rule.name)):
        marks = "" if rule.status == "stable" else f", {rule.status}"
        print(wrapped(f"{rule.name} ({rule.severity}{marks}): {', '.join(rule.trainers)}", "", "      "))
        print(wrapped(rule.description, "    "))
    print(_count(len(rules), "rule"))
    return 0


def _is_wanted(rule: Rule, args: argparse.Namespace) -> bool:
    return str(rule.severity) in (args.severity or SEVERITIES) and rule.status in (args.status or STATUSES)


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _map_of(trainer: str) -> MetricMap:
    metric_map, known = MetricMap(trainer.lower().removesuffix("trainer")), known_trainers()
    if metric_map.trainer not in known:
        hint = suggest(metric_map.trainer, known) or f"; known are {', '.join(known)}"
        raise DiagnosticsError(f"--trainer: no trainer '{trainer}'{hint}")
    return metric_map


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


def explain_name(args: argparse.Namespace) -> int:
    """Print what a rule or a metric means."""
    trainer = _map_of(args.trainer).trainer if args.trainer else None
    print(explain(args.name, collect_rules(), trainer))
    return 0


def check_rules(args: argparse.Namespace) -> int:
    """Print all problems of all files."""
    _must_exist(args.paths)
    rules, problems = check(args.paths)
    tests = sum(len(rule.tests) for rule in rules)
    counts = (_count(len(rules), "rule"), _count(tests, "test"), _count(len(problems), "problem"))
    print(*problems, ", ".join(counts), sep="\n")
    return 1 if problems else 0


def _must_exist(paths: list[str]) -> None:
    missing = [path for path in paths if not Path(path).exists()]
    if missing:
        raise DiagnosticsError("\n".join(f"{path}: no such file or folder" for path in missing))


def test_rules(args: argparse.Namespace) -> int:
    """Run the tests inside rule files; print a line per rule, and where and how each failure fails."""
    paths = [name for name in args.names if _is_path(name)]
    _must_exist(paths)
    rules, problems = read_rules(paths or BUILTIN if not args.names or paths else [])
    names = [name for name in args.names if name not in paths]
    if names:
        builtin = collect_rules()
        selected = select(builtin, names, "rules test")
        rules += [rule for rule in builtin if rule.name in selected]
    failed = 0
    for rule in rules:
        lines = failures(rule)
        failed += len(lines)
        verdict = f"{len(lines)} FAILED" if lines else "ok" if rule.tests else "none"
        print(f"{rule.name}: {_count(len(rule.tests), 'test')}, {verdict}", *lines, sep="\n    ")
    tests = sum(len(rule.tests) for rule in rules)
    print(*problems, f"{_count(len(rules), 'rule')}, {_count(tests, 'test')}, {failed} failed", sep="\n")
    return 1 if failed or problems else 0


def _is_path(name: str) -> bool:
    return os.sep in name or name.endswith((".yaml", ".yml")) or Path(name).exists()


if __name__ == "__main__":
    main()
