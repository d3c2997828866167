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

"""
Recorded runs, public logs and all rules go in; how often the rules are right comes out, as text, as pages of the
documentation and as the numbers that `trl-diagnostics explain` shows. `--misses` lists where the rules are wrong, on
the tuned half unless told otherwise.
"""

import argparse
import json
import sys
from fnmatch import fnmatchcase
from pathlib import Path

from calibration import pages, roc, tables
from calibration.measures import MAX_DELAY
from calibration.public import Public, judge_folder
from calibration.runs import HELD_OUT, TUNED, Judged, files, judge_all, with_causes
from failure_lab import corpus

from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.engine.rulebook import collect_rules


ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "source"
ACCURACY, ROC = DOCS / "accuracy.md", DOCS / "accuracy_roc.md"
MEASURED = ROOT / "trl_diagnostics" / "rules" / "accuracy.json"  # for `trl-diagnostics explain`
PUBLIC = ROOT.parent / "shared" / "corpus"


def why_listed(run: Judged) -> str | None:
    """What is wrong with how a run was judged, if anything."""
    if not run.fault:
        return "ALARM" if run.warnings else None
    if not run.delay:
        return "MISSED"
    if not run.caught and not run.low_only:
        return "LOW ONLY"
    if run.false:
        return "FALSE"
    if not run.right_first:
        return "NOT FIRST"
    return "LATE" if run.delay[0] > MAX_DELAY else None


def miss(run: Judged) -> str | None:
    """One line about a run that was judged wrongly: what was expected, what fired when."""
    why = why_listed(run)
    if why is None:
        return None
    loud = [one for one in run.findings if one.level > Severity.INFO]
    said = " ".join(f"{one.rule}({one.severity})@{one.step}" for one in loud) or "nothing"
    about = f"onset {run.onset}, expected {' or '.join(run.expected)}; " if run.fault else ""
    return f"{why:9} {run.name}__{run.seed}: {len(run.logs)} logs; {about}fired: {said}"


def misses(runs: list[Judged]) -> str:
    """All such lines, the worst first."""
    order = ["MISSED", "ALARM", "FALSE", "NOT FIRST", "LOW ONLY", "LATE"]
    lines = [line for line in map(miss, runs) if line]
    return "\n".join(sorted(lines, key=lambda line: (order.index(line[:9].strip()), line)))


def summary(runs: list[Judged], rules: list[Rule], logs: list[Public], half: str | None) -> str:
    """Numbers of both halves together, and by name those of one."""
    named = [run for run in runs if half in (None, run.half)]
    missing, hidden = unwritten(runs, rules), [run for run in runs if run.hidden]
    parts = [
        *([("Expected, but no rule has this name", missing)] if missing else []),
        ("All together", tables.headline([run for run in runs if not run.hidden])),
        *([("What the logs hide", tables.headline(hidden))] if hidden else []),
        ("Named within so many logs from the first that can show the fault", tables.by_logs(runs)),
        (f"By kind of fault, {half or 'both halves'}", tables.by_fault(named)),
        (f"By trainer, {half or 'both halves'}", tables.by_fault(named, lambda run: run.trainer, "trainer")),
        (f"Healthy runs, {half or 'both halves'}", tables.by_healthy(named)),
        (f"Rules, {half or 'both halves'}", tables.by_rule(named, rules)),
    ]
    if logs:
        parts += [("Public logs", tables.by_look(logs)), ("By repository", tables.by_repository(logs))]
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts)


def unwritten(runs: list[Judged], rules: list[Rule]) -> str:
    """Right answers of the table that no rule has as its name, so that they can never be given."""
    names = {rule.name for rule in rules}
    asked = {(name, run.kind) for run in runs for name in (*run.expected, *run.symptoms) if name not in names}
    return "\n".join(f"{name}, of {kind}" for name, kind in sorted(asked))


def kept_public(page: Path) -> str:
    """The section about public logs of the page as it is, for where these logs are not at hand."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    return text[text.index(pages.PUBLIC) :] if pages.PUBLIC in text else pages.NO_PUBLIC


def settle(page: Path, text: str, write: bool, but: str = "") -> bool:
    """Write a file, or say whether it is as it would be written; `but` names what of it could not be judged."""
    if write:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page.relative_to(ROOT)}{but}")
        return True
    fresh = page.exists() and page.read_text(encoding="utf-8") == text
    print(f"{page.relative_to(ROOT)} is {f'up to date{but}' if fresh else 'stale: run make calibrate'}")
    return fresh


def settle_accuracy(runs: list[Judged], rules: list[Rule], arguments: argparse.Namespace, logs: list[Public]) -> bool:
    """The same for the page about accuracy and for the numbers of the package."""
    held = [run for run in runs if run.half == HELD_OUT]
    public = pages.public_section(logs) if logs else kept_public(ACCURACY)
    but = "" if logs else f", but not verified is what it says about public logs: none in {arguments.corpus}"
    numbers = json.dumps(tables.measured(held, rules), indent=1) + "\n"
    page = settle(ACCURACY, pages.accuracy_page(runs, rules, public), arguments.write, but)
    return settle(MEASURED, numbers, arguments.write) and page


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=corpus.FOLDER, metavar="DIR", help="recorded runs")
    parser.add_argument("--corpus", type=Path, default=PUBLIC, metavar="DIR", help="public logs; skipped if not there")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of runs, for example 'nan_*' or '*__dpo*'")
    parser.add_argument("--rules", default="*", metavar="GLOB", help="names of the rules whose findings count")
    parser.add_argument("--half", choices=(TUNED, HELD_OUT, "both"), default=TUNED, help="half that is shown by name")
    parser.add_argument("--misses", action="store_true", help="list the runs that are judged wrongly, and stop")
    parser.add_argument("--roc", action="store_true", help="judge tuned rules with other numbers too")
    parser.add_argument("--write", action="store_true", help="write the documentation page and accuracy.json")
    parser.add_argument("--check", action="store_true", help="fail if these are not what would be written")
    arguments = parser.parse_args(argv)
    if (arguments.write or arguments.check) and (arguments.only, arguments.rules) != ("*", "*"):
        parser.error("a page is about all runs and all rules: leave --only and --rules away")
    return arguments


def show_roc(curves: dict, half: str | None) -> None:
    """Print the curves, by default without the numbers of the held-out half."""
    for name, halves in curves.items():
        print(f"{name}\n\n{tables.of_curve(halves if half is None else {half: halves[half]})}\n")


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; 1 if a file is stale or there are no runs."""
    arguments = _arguments(argv)
    half = None if arguments.half == "both" else arguments.half
    if not files(arguments.runs, arguments.only, half if arguments.misses else None):
        named = "" if arguments.only == "*" else f" named {arguments.only}"
        print(f"no runs{named} in {arguments.runs}: record them with `make lab`")
        return 1
    rules = collect_rules()
    chosen = {rule.name for rule in rules if fnmatchcase(rule.name, arguments.rules)}
    mine, needed = [rule for rule in rules if rule.name in chosen], with_causes(rules, chosen)
    if arguments.roc:
        return _roc(arguments, mine, needed, half)
    if arguments.misses:
        print(misses(list(judge_all(arguments.runs, needed, arguments.only, half, chosen))))
        return 0
    runs = list(judge_all(arguments.runs, needed, arguments.only, None, chosen))
    logs = judge_folder(arguments.corpus, needed) if arguments.corpus.is_dir() else []
    if arguments.write or arguments.check:
        return int(not settle_accuracy(runs, mine, arguments, logs))
    print(summary(runs, mine, logs, half))
    return 0


def _roc(arguments: argparse.Namespace, mine: list[Rule], needed: list[Rule], half: str | None) -> int:
    curves = roc.curves(arguments.runs, needed, {rule.name for rule in mine}, arguments.only)
    if arguments.write or arguments.check:
        return int(not settle(ROC, pages.roc_page(curves, mine, roc.GRID), arguments.write))
    show_roc(curves, half)
    return 0


if __name__ == "__main__":
    sys.exit(main())
