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
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import TextIO

from . import __version__
from .engine.finding import DiagnosticsError
from .engine.rule import SEVERITIES, STATUSES
from .engine.yaml_file import suggest


ACTIONS = ("list", "show", "check", "test")  # of `rules`


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    sys.exit(_run(sys.argv[1:] if argv is None else list(argv)))


def _run(argv: list[str]) -> int:
    try:
        if sys.stdout is None:
            raise DiagnosticsError("there is nowhere to write to: the standard output is closed")
        for stream in filter(None, (sys.stdout, sys.stderr)):  # rules are UTF-8, the terminal may not be
            stream.reconfigure(errors="backslashreplace")
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
    except Exception as error:  # of our own: 1 would mean that there is something to look at
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        return _refuse(f"trl-diagnostics: {type(error).__name__}: {error} ({where}); please report this error")
    except KeyboardInterrupt:
        return 0 if argv[:1] == ["watch"] else 130  # which ends with Ctrl-C; 130 is what a shell says of it


def _command(argv: list[str]) -> int:
    try:
        args = parse(argv)
    except SystemExit as done:  # help, or a wrong option: argparse has written what there is to say
        return done.code
    with warnings.catch_warnings():
        # a renamed rule is the user's business, the line of ours that found it is not
        warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
        # SciPy, the reader of a log and the like are loaded with the command that needs them
        return vars(import_module(f".commands.{args.module}", __package__))[args.function](args)


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
    args, unknown = _parser().parse_known_args(argv)
    if unknown:  # said with the usage of the command, which argparse does not do by itself
        known = re.findall(r"--[\w-]+", args.parser.format_help())
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}{suggest(unknown[0].partition('=')[0], known)}")
    return args


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="trl-diagnostics",
        description="Diagnostics for TRL post-training runs.",
        epilog="The exit code is 0 if all is well, 1 if there is something to look at, 2 if it cannot be told.",
    )
    top.add_argument("--version", action="version", version=f"trl-diagnostics {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_preflight(commands)
    _add_diagnose(commands)
    _add_watch(commands)
    _add_compare(commands)
    _add_after_a_run(commands)
    rules = commands.add_parser("rules", help="list, show, check and test rules")
    _add_actions(rules.add_subparsers(metavar="ACTION", required=True))
    what = commands.add_parser("explain", help="what rules or metrics mean")
    what.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="a rule, a metric as TRL or this package calls it (kl, rewards/margins), a glob such as 'dpo_*', or a "
        "rule file of your own",
    )
    what.add_argument("--trainer", help="trainer whose log has the metric: some keys mean something else in each")
    what.set_defaults(parser=what, module="rules", function="explain_names")
    return top


def _add_preflight(commands: argparse._SubParsersAction) -> None:
    before = commands.add_parser("preflight", help="what is wrong with a training, before it begins")
    _add_json(before)
    _add_fail_on(before)
    before.add_argument("script", metavar="SCRIPT", help="Python script that trains; it is run up to Trainer.train()")
    before.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of the script")
    before.set_defaults(parser=before, module="preflight", function="run")


def _add_diagnose(commands: argparse._SubParsersAction) -> None:
    one = commands.add_parser("diagnose", help="what went wrong in finished runs: one log, or a whole tree of them")
    of = {"action": "extend", "default": [], "metavar": "PATH"}
    one.add_argument("paths", nargs="*", help="run directory, log file, or a folder with many of them", **of)
    one.add_argument("--input", nargs="+", dest="paths", help="the same as PATH", **of)
    _add_reading(one)
    one.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="DIR",
        help="write a report (Markdown, HTML, pictures) there, by default into the folder reports of the run",
    )
    one.add_argument("--plots", "--make-plots", action="store_true", help="the same as --report without DIR")
    one.add_argument("--no-plots", action="store_true", help="leave the pictures out of the report")
    _add_json(one)
    _add_fail_on(one, ", and unless never for a run that crashed, hung, was killed or ran out of memory")
    one.set_defaults(parser=one, module="diagnose", function="run")


def _add_reading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--trainer", help="trainer of the logs, for example dpo; by default told from what they hold")
    command.add_argument(
        "--trl-version", metavar="VERSION", help="TRL release that wrote the logs, for example 0.16.1"
    )


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def _add_fail_on(command: argparse.ArgumentParser, more: str = "") -> None:
    command.add_argument(
        "--fail-on",
        choices=[*SEVERITIES[:-1], "never"],
        default="high",
        help=f"exit code 1 for findings of this severity or above (default: high){more}",
    )


def _add_watch(commands: argparse._SubParsersAction) -> None:
    watch = commands.add_parser("watch", help="follow a run that is being trained, in the terminal")
    watch.add_argument("path", metavar="RUN", help="run directory, or a log file that grows")
    _add_reading(watch)
    watch.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="time between looks (default: 2)"
    )
    watch.add_argument("--once", action="store_true", help="look once and end")
    watch.set_defaults(parser=watch, module="watch", function="run")


def _add_compare(commands: argparse._SubParsersAction) -> None:
    both = commands.add_parser("compare", help="what differs between two runs, and which one is better")
    both.add_argument("a", metavar="A", help="run directory or log file to compare with")
    both.add_argument("b", metavar="B", help="run directory or log file")
    _add_reading(both)
    both.add_argument("--metric", help="the metric that decides which run is better; by default the trainer's goal")
    _add_json(both)
    _add_fail_on(both)
    both.set_defaults(parser=both, module="compare", function="run")


def _add_after_a_run(commands: argparse._SubParsersAction) -> None:
    resume = commands.add_parser("validate-resume", help="would this run go on as the same run with another config?")
    resume.add_argument("path", metavar="RUN", help="run directory or output_dir, or the checkpoint to go on from")
    resume.add_argument(
        "--config",
        required=True,
        metavar="NEW",
        help="YAML or JSON file of training arguments, as for TRL's --config, or the run directory of another run",
    )
    _add_json(resume)
    _add_fail_on(resume, ", and unless never for all that changes or breaks the run")
    resume.set_defaults(parser=resume, module="validate_resume", function="run")
    ended = commands.add_parser("postmortem", help="how a run ended, and where to go on from")
    ended.add_argument("path", metavar="RUN", help="run directory or output_dir")
    _add_json(ended)
    ended.set_defaults(parser=ended, module="postmortem", function="run")
    saved = commands.add_parser("checkpoints", help="which checkpoint to go on from or to ship")
    saved.add_argument("path", metavar="RUN", help="run directory or output_dir")
    _add_json(saved)
    saved.set_defaults(parser=saved, module="checkpoints", function="run")


def _add_actions(actions: argparse._SubParsersAction) -> None:
    some = actions.add_parser("list", help="one rule per entry, the worst first; the default")
    some.add_argument("names", nargs="*", metavar="NAME", help="name or glob such as 'dpo_*'; all rules by default")
    some.add_argument("--trainer", help="only rules for this trainer, for example dpo")
    some.add_argument("--severity", action="append", choices=SEVERITIES, help="may be given twice")
    some.add_argument("--status", action="append", choices=STATUSES, help="may be given twice")
    some.set_defaults(parser=some, module="rules", function="list_rules")
    show = actions.add_parser("show", help="the fields of some rules")
    show.add_argument("names", nargs="+", metavar="NAME", help="name, old name or glob")
    show.set_defaults(parser=show, module="rules", function="show_rules")
    checked = actions.add_parser("check", help="find everything that is wrong in rule files, failing tests too")
    checked.add_argument("paths", nargs="+", metavar="PATH", help="rule file or folder")
    checked.set_defaults(parser=checked, module="rules", function="check_files")
    tested = actions.add_parser("test", help="run the tests inside rule files and list the results")
    tested.add_argument(
        "names", nargs="*", metavar="NAME|PATH", help="built-in rules (names, globs), files or folders"
    )
    tested.set_defaults(parser=tested, module="rules", function="run_tests")
