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
from typing import TextIO

from .engine.finding import DiagnosticsError
from .engine.rule import SEVERITIES, STATUSES, Rule, read_rules, select
from .engine.rule_tests import check_tests
from .engine.rulebook import BUILTIN, collect_rules
from .engine.yaml_file import suggest
from .explain import explain_all, when_in_words, wrapped
from .metrics.checks import check_metric
from .metrics.names import MetricMap, known_trainers
from .rule_files import check


ACTIONS = ("list", "show", "check", "test")  # of `rules`


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(_run(sys.argv[1:] if argv is None else list(argv)))


def _run(argv: list[str]) -> int:
    try:
        if sys.stdout is None:
            raise DiagnosticsError("there is nowhere to write to: the standard output is closed")
        sys.stdout.reconfigure(errors="backslashreplace")  # rules are UTF-8, the terminal may not be
        code = _command(argv)
        sys.stdout.flush()
        return code
    except DiagnosticsError as error:
        return _refuse(error)
    except BrokenPipeError:  # `| head` has seen enough
        _give_up(sys.stdout)
        return 0
    except OSError as error:
        _give_up(sys.stdout)
        return _refuse(f"trl-diagnostics: {error}")


def _command(argv: list[str]) -> int:
    try:
        args = parse(argv)
    except SystemExit as done:  # help, or a wrong option: argparse has written what there is to say
        return done.code
    with warnings.catch_warnings():
        # a renamed rule is the user's business, the line of ours that found it is not
        warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
        return args.run(args)


def _refuse(error: DiagnosticsError | str) -> int:
    try:
        print(error, file=sys.stderr, flush=True)
    except OSError:
        _give_up(sys.stderr)
    return 2


def _give_up(stream: TextIO) -> None:
    """What could not be written is not tried again when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments of one command; `rules` without an action means `rules list`."""
    if argv[:1] == ["rules"] and argv[1:2] not in [[action] for action in (*ACTIONS, "-h", "--help")]:
        argv = ["rules", "list", *argv[1:]]
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="trl-diagnostics", description="Diagnostics for TRL post-training runs.")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    rules = commands.add_parser("rules", help="list, show, check and test rules")
    _add_actions(rules.add_subparsers(metavar="ACTION", required=True))
    what = commands.add_parser("explain", help="what rules or metrics mean")
    what.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a rule, a metric as TRL or this package calls it (kl, rewards/margins), or a glob such as 'dpo_*'",
    )
    what.add_argument("--trainer", help="trainer whose log has the metric: some keys mean something else in each")
    what.set_defaults(run=explain_names)
    return top


def _add_actions(actions: argparse._SubParsersAction) -> None:
    some = actions.add_parser("list", help="one rule per entry, the worst first; the default")
    some.add_argument("names", nargs="*", metavar="NAME", help="name or glob such as 'dpo_*'; all rules by default")
    some.add_argument("--trainer", help="only rules for this trainer, for example dpo")
    some.add_argument("--severity", action="append", choices=SEVERITIES, help="may be given twice")
    some.add_argument("--status", action="append", choices=STATUSES, help="may be given twice")
    some.set_defaults(run=list_rules)
    show = actions.add_parser("show", help="the fields of some rules")
    show.add_argument("names", nargs="+", metavar="NAME", help="name, old name or glob")
    show.set_defaults(run=show_rules)
    checked = actions.add_parser("check", help="find everything that is wrong in rule files, failing tests too")
    checked.add_argument("paths", nargs="+", metavar="PATH", help="rule file or folder")
    checked.set_defaults(run=check_files)
    tested = actions.add_parser("test", help="run the tests inside rule files and list the results")
    tested.add_argument(
        "names", nargs="*", metavar="NAME|PATH", help="built-in rules (names, globs), files or folders"
    )
    tested.set_defaults(run=run_tests)


def list_rules(args: argparse.Namespace) -> int:
    """Print the built-in rules, the worst first."""
    rules = collect_rules()
    names = select(rules, args.names, "rules") if args.names else {rule.name for rule in rules}
    rules = [rule for rule in rules if rule.name in names and _is_wanted(rule, args)]
    if args.trainer is not None:
        family = _map_of(args.trainer).family
        rules = [rule for rule in rules if rule.applies_to(family)]
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


def explain_names(args: argparse.Namespace) -> int:
    """Print what rules or metrics mean."""
    trainer = None if args.trainer is None else _map_of(args.trainer).trainer
    print(explain_all(args.names, collect_rules(), trainer))
    return 0


def check_files(args: argparse.Namespace) -> int:
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


def run_tests(args: argparse.Namespace) -> int:
    """Run the tests inside rule files; print a line per rule, and where and how each failure fails."""
    rules, problems = _to_test(args.names)
    failed = 0
    for rule in rules:
        lines = check_tests(rule, MetricMap)
        failed += len(lines)
        verdict = f"{len(lines)} FAILED" if lines else "ok" if rule.tests else "none"
        print(f"{rule.name}: {_count(len(rule.tests), 'test')}, {verdict}", *lines, sep="\n    ")
    tests = sum(len(rule.tests) for rule in rules)
    print(*problems, f"{_count(len(rules), 'rule')}, {_count(tests, 'test')}, {failed} failed", sep="\n")
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


if __name__ == "__main__":
    main()
