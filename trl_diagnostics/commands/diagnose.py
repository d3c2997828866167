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

"""Arguments of `diagnose` go in; what is wrong with one run, or with a whole tree of runs, and an exit code come out."""

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from os.path import abspath, commonpath, relpath
from pathlib import Path
from typing import Any

from rich.progress import Progress, SpinnerColumn, TaskID, TimeElapsedColumn
from rich.text import Text

from ..diagnosis import Diagnosis
from ..engine.engine import ACTIVE, NOT_APPLICABLE
from ..engine.finding import DiagnosticsError, Record
from ..explain import wrapped
from ..sinks import report_text
from ..sinks.console import HEALTHY, TOO_SHORT, summary
from ..sources.signal_budget import sentence
from ..words import count
from .arguments import release_named, trainer_named
from .results import UNREADABLE, Result, result_of, runs_in
from .terminal import STYLES, UNLIMITED, columns, cut, facts, print_json, say, show, table, terminal, width


SCHEMA_VERSION = 1
EVERY = 5000  # logs
LEAST = 60  # columns beside the path
# The worst first; to have failed is nearly as bad as to be wasted.
ORDER = (
    *(UNREADABLE, "critical", "high", *dict.fromkeys(report_text.FAILED.values())),
    *("medium", "low", TOO_SHORT, HEALTHY),
)


def run(args: argparse.Namespace) -> int:
    """Diagnose all runs in some paths."""
    trainer, release = trainer_named(args.trainer), release_named(args.trl_version)
    names = _names(runs_in(args.paths))
    results = []
    with _progress() as progress:
        task = progress.add_task("", total=len(names) if len(names) > 1 else None)
        for path, name in names.items():
            result = result_of(path, trainer, release, _shown(progress, task, name))
            if result.diagnosis and (args.report is not None or args.plots):
                folder = _own_folder(path) if not args.report else Path(args.report, name if len(names) > 1 else "")
                result = replace(result, report=_write_report(folder, result.diagnosis, not args.no_plots))
            results.append(result)
            progress.advance(task)
    if args.json:
        print_json(_document(results, args.fail_on))
    elif len(results) == 1:
        _print_one(results[0])
    else:
        _print_many(results, names)
    return max(result.exit_code(args.fail_on) for result in results)


def _names(paths: list[Path]) -> dict[Path, str]:
    """What each of some runs is called beside the others: its path in the folder that holds them all."""
    root = commonpath([Path(abspath(path)).parent for path in paths])
    return {path: relpath(path, root) for path in paths}


def _progress() -> Progress:
    """A spinner or a bar on standard error, and nothing of it where nobody looks on."""
    console = terminal(stderr=True)
    columns = (SpinnerColumn(), *Progress.get_default_columns()[:3], TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _shown(progress: Progress, task: TaskID, name: str) -> Callable[[Record], None]:
    """What shows how many logs were read."""
    progress.update(task, description=name)
    counter = itertools.count(1)

    def on_record(record: Record) -> None:
        n = next(counter)
        if n % EVERY == 0:
            progress.update(task, description=f"{name}: {n:,} logs, step {record.step:,}")

    return on_record


def _own_folder(path: Path) -> Path:
    """Inside a run's folder, beside a log file, beside the database that holds a run."""
    if path.is_dir():
        return path / "reports"
    return path.with_name(f"{path.name}_report") if path.exists() else Path(f"{path.parent}_{path.name}_report")


def _write_report(folder: Path, diagnosis: Diagnosis, plots: bool) -> tuple[Path, ...]:
    from ..sinks.report import write_report

    try:
        return tuple(write_report(folder, diagnosis, plots))
    except OSError as error:
        raise DiagnosticsError(
            f"--report: {folder}: cannot be written ({error.strerror}); name a folder, which is created"
        ) from None


def _print_one(result: Result) -> None:
    if result.diagnosis is None:
        raise DiagnosticsError(result.error)
    diagnosis = result.diagnosis
    findings = list(diagnosis.findings)
    said = summary(
        findings,
        diagnosis.coverage,
        diagnosis.records,
        diagnosis.broken,
        None,
        width(),
        "--json",
        sentence(diagnosis.groups),
    )
    head, _, rest = said.removeprefix("TRL diagnostics: ").partition("\n")
    ended = diagnosis.postmortem or {"exit_reason": "completed"}
    if ended["exit_reason"] not in report_text.CALM:
        head += f"; the run {report_text.ENDED[ended['exit_reason']]} at step {ended['last_step']}"
    say(f"{wrapped(head, '')}\n{rest}\n")
    facts(_facts(result))


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    """What is known beside the findings."""
    diagnosis, run = result.diagnosis, result.diagnosis.run
    yield "Run", f"{run.path} ({run.kind}), {count(diagnosis.records, 'log')} up to step {diagnosis.last_step}"
    version = f", TRL {run.trl_version}" if run.trl_version else ""
    sure = "" if run.confidence >= 0.99 else f", {run.confidence:.0%} sure"
    yield "Trainer", f"{run.trainer}{version} ({run.trainer_how}{sure})"
    yield "Ended", report_text.ended(diagnosis)
    if diagnosis.checkpoints:
        word, reasons = report_text.last_checkpoint(diagnosis)
        yield "Checkpoint", f"Is the last one good? {word}. {reasons}"
    for note in run.notes:
        yield "Note", note
    if result.report:
        yield "Report", str(result.report[1])


def _print_many(results: list[Result], names: dict[Path, str]) -> None:
    many = Counter(result.verdict for result in results)
    said = ", ".join(f"{many[verdict]} {verdict}" for verdict in ORDER if many[verdict])
    say(f"{count(len(results), 'run')}: {said}\n")
    ordered = sorted(results, key=lambda result: ORDER.index(result.verdict))
    rows = [_row(result, names[result.path]) for result in ordered]
    show(table(["run", "trainer", "logs", "verdict", "first finding"], rows, ["logs"]))
    say(f"\nOne of them in full: trl-diagnostics diagnose {ordered[0].path}")


def _row(result: Result, name: str) -> list[str | Text]:
    path = cut(name, max(columns(UNLIMITED) - LEAST, 16))
    verdict = Text(result.verdict, STYLES.get(result.verdict, ""))
    if result.diagnosis is None:
        return [path, "", "", verdict, result.error.removeprefix(f"{result.path}: ")]
    return [path, result.diagnosis.run.trainer, f"{result.diagnosis.records:,}", verdict, _told(result)]


def _told(result: Result) -> str:
    """The first finding, or how many of the rules that apply could judge; and an end that was none."""
    first, rules = result.first, Counter(result.diagnosis.coverage.values())
    apply = len(result.diagnosis.coverage) - rules[NOT_APPLICABLE]
    said = f"{first.rule}, step {first.first_step}" if first else f"none by {rules[ACTIVE]} of {apply} rules"
    if report_text.failure(result.diagnosis):
        failed = report_text.failed_with(result.diagnosis.postmortem)
        return f"{said}; {failed}" if first else failed
    reason = (result.diagnosis.postmortem or {}).get("exit_reason", "completed")
    return said if reason in report_text.CALM else f"{said}; ended: {reason}"


def _document(results: list[Result], fail_on: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "fail_on": fail_on,
        "exit_code": max(result.exit_code(fail_on) for result in results),
        "runs": [_entry(result) for result in results],
    }


def _entry(result: Result) -> dict[str, Any]:
    """One run as JSON."""
    diagnosis = result.diagnosis
    entry = {"path": result.path, "verdict": result.verdict, "error": result.error or None}
    if diagnosis is None:
        return entry
    run = diagnosis.run
    return entry | {
        "kind": run.kind,
        "trainer": run.trainer,
        "trainer_how": run.trainer_how,
        "confidence": run.confidence,
        "trl_version": run.trl_version,
        "notes": run.notes,
        "records": diagnosis.records,
        "last_step": diagnosis.last_step,
        "root": result.first.rule if result.first else None,
        "findings": [finding.to_json() for finding in diagnosis.findings],
        "coverage": diagnosis.coverage,
        "broken": diagnosis.broken,
        "postmortem": diagnosis.postmortem,
        "checkpoints": diagnosis.checkpoints,
        "report": result.report,
    }
