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
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from .engine.finding import DiagnosticsError
from .engine.rule import Rule, load_rules, merge_rules, select
from .engine.rule_tests import check_tests
from .engine.rulebook import BUILTIN, collect_rules, located
from .engine.yaml_file import suggest
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap, known_trainers


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
    rules = commands.add_parser("rules", help="list, show and check rules")
    rules.add_argument("--trainer", help="only rules for this trainer, for example dpo")
    rules.set_defaults(run=list_rules)
    actions = rules.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="everything about one rule")
    show.add_argument("name")
    show.set_defaults(run=show_rule)
    check = actions.add_parser("check", help="read rule files, check their metric names and run their tests")
    check.add_argument("paths", nargs="+", metavar="PATH", help="rule file or folder")
    check.set_defaults(run=check_rules)
    return top


def list_rules(args: argparse.Namespace) -> int:
    """Print the built-in rules, the worst first."""
    rules = collect_rules()
    if args.trainer:
        metric_map = _map_of(args.trainer)
        rules = [rule for rule in rules if rule.applies_to((metric_map.trainer, *metric_map.bases))]
    for rule in sorted(rules, key=lambda rule: (-rule.severity, rule.name)):
        marks = "" if rule.status == "stable" else f", {rule.status}"
        print(f"{rule.name}  {rule.severity}{marks}  [{', '.join(rule.trainers)}]")
        print(_wrapped(rule.description, "    "))
    print(f"{len(rules)} rules")
    return 0


def _map_of(trainer: str) -> MetricMap:
    metric_map, known = MetricMap(trainer.lower().removesuffix("trainer")), known_trainers()
    if metric_map.trainer not in known:
        hint = suggest(metric_map.trainer, known) or f"; known are {', '.join(known)}"
        raise DiagnosticsError(f"--trainer: no trainer '{trainer}'{hint}")
    return metric_map


def show_rule(args: argparse.Namespace) -> int:
    """Print one rule."""
    rules = collect_rules()
    names = select(rules, [args.name], "rules show")
    for rule in rules:
        if rule.name in names:
            print(_describe(rule), end="\n\n")
    return 0


def _describe(rule: Rule) -> str:
    when = ", ".join(
        f"{key} {' or '.join(f'{op} {wanted}' for op, wanted in any_of)}" for key, any_of in rule.when.items()
    )
    rows = {
        "severity": f"{rule.severity} ({rule.status})",
        "trainers": ", ".join(rule.trainers),
        "metric": rule.metric,
        "condition": f"{rule.condition.text}   (window {rule.window}, silent before log {rule.min_steps})",
        "when": when,
        "silent while": ", ".join(rule.unless),
        "says": rule.message,
        "why": rule.why,
        "fix": rule.fix,
        "wrong when": " ".join(rule.false_positives),
        "earlier names": ", ".join(rule.renamed_from),
    }
    body = [_wrapped(f"{key}: {value}", "  ", "    ") for key, value in rows.items() if value]
    references = [f"  reference: {reference}" for reference in rule.reference]
    return "\n".join([f"{rule.name}: {rule.description}", *body, *references])


def _wrapped(text: str, first: str, rest: str | None = None) -> str:
    width = min(shutil.get_terminal_size((119, 24)).columns, 119)
    return textwrap.fill(" ".join(text.split()), width, initial_indent=first, subsequent_indent=rest or first)


def check_rules(args: argparse.Namespace) -> int:
    """Read rule files, check names, run tests."""
    missing = [path for path in args.paths if not Path(path).exists()]
    if missing:
        raise DiagnosticsError("\n".join(f"{path}: no such file or folder" for path in missing))
    try:
        rules = load_rules(args.paths, check_metric)
        problems = [text for rule in rules for text in located(rule, check_rule(rule))]
        merge_rules(load_rules(BUILTIN), rules)  # `unless` may name a built-in rule
    except DiagnosticsError as error:
        print(error)
        return 1
    problems += [problem for rule in rules for problem in check_tests(rule, MetricMap)]
    tests = sum(len(rule.tests) for rule in rules)
    counts = {"rule": len(rules), "test": tests, "problem": len(problems)}
    print(*problems, ", ".join(f"{n} {word}{'s' * (n != 1)}" for word, n in counts.items()), sep="\n")
    return 1 if problems else 0


if __name__ == "__main__":
    main()
