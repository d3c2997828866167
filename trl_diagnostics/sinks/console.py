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

"""Findings and coverage go in, what a person reads in the terminal comes out."""

import logging
import shutil
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..engine.engine import ACTIVE, BLIND, NOT_APPLICABLE, WARMING_UP, Engine
from ..engine.finding import Finding, Severity


logger = logging.getLogger(__name__)

HEALTHY, TOO_SHORT = "healthy", "too short"
MOST_TOLD = 3  # episodes of one rule on one metric that are shown and kept in memory
WIDTH, NARROWEST = 119, 40
UNLIMITED = 1_000_000  # columns: a file has no edge
INDENT = " " * 7

LOST_ON_FINDING = (
    "TRL diagnostics: restore_callback_states_from_checkpoint=True replaces callbacks by copies, and a function such as "
    "on_finding cannot be copied. Leave that option out: the diagnostics take over their state from a checkpoint anyway."
)
NOT_STOPPED = (
    "TRL diagnostics: this trainer does not look at control.should_training_stop (PPO does not), so stop_on_critical "
    "cannot end it. Interrupt the run."
)


class BarHandler(logging.Handler):
    """Writes to standard error without tearing the Trainer's progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        try:
            if tqdm._instances:  # takes a lock that all forks share, for ever where one of them died with it
                tqdm.write(self.format(record), file=sys.stderr)
            else:
                sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # nobody reads any more, or a signal came while this very thread writes
            self.handleError(record)


def set_up_logger() -> None:
    """Make the messages visible unless the user has set up logging, as transformers does for its own."""
    if logger.getEffectiveLevel() == logging.WARNING:  # Python's default, nobody has chosen another one
        logger.setLevel(logging.INFO)
    if not logger.hasHandlers():
        logger.addHandler(BarHandler())


def warn_aside(message: str) -> None:
    """Warn from another thread, and wait for it a second at most: standard error may be a pipe that nobody reads."""
    thread = threading.Thread(target=logger.warning, args=(message,), daemon=True)
    thread.start()
    thread.join(1.0)


def banner(trainer: str, trl_version: str | None, coverage: dict[str, str], run_dir: str) -> str:
    """The one line at train begin."""
    count = Counter(coverage.values())
    there = f" (TRL {trl_version})" if trl_version else ""
    watching = len(coverage) - count[NOT_APPLICABLE]
    return _line(
        f"TRL diagnostics: {trainer}{there}, {watching} rule{'s apply' if watching != 1 else ' applies'}, "
        f"files in {run_dir}"
    )


def greet(engine: Engine, trl_version: str | None, run_dir: Path, args: Any, state: Any) -> None:
    """What there is to say at train begin; `args` and `state` are those of the Trainer."""
    logger.info(banner(engine.trainer, trl_version, engine.coverage(), str(run_dir)))
    silent = engine.cannot_fire(state.max_steps, state.logging_steps)
    if silent and args.logging_strategy == "steps":
        logger.warning(too_few_logs(silent, state.max_steps, state.logging_steps))
    if state.global_step > 0:
        logger.info(resumed(state.global_step, engine.open_episodes()))


def looked_before(seconds: dict[str, float], unseen: dict[str, str] | None = None) -> str:
    """One line on what was looked at before the first step."""
    blind = f"; not seen: {_some(list(unseen))} (why: preflight.json)" if unseen else ""
    return f"TRL diagnostics: preflight, {len(seconds)} checks in {sum(seconds.values()):.1f} s{blind}"


def not_seen(check: str, why: str) -> str:
    """What a check before the first step could not look at."""
    return _line(f"TRL diagnostics: not seen: {check} ({why})")


def too_few_logs(names: list[str], max_steps: int, logging_steps: int) -> str:
    """Warning about rules whose warm-up is longer than the run."""
    points = max_steps // max(logging_steps, 1)
    need = "rule needs" if len(names) == 1 else "rules need"
    hint = " A lower logging_steps lets them speak." if logging_steps > 1 else ""
    said = (
        f"TRL diagnostics: {len(names)} {need} more than the {points} logs of this run (max_steps {max_steps}, "
        f"logging_steps {logging_steps}) and will stay silent: {_some(names)}.{hint}"
    )
    return textwrap.fill(said, columns(), subsequent_indent="  ", break_on_hyphens=False)


def warning(finding: Finding) -> str:
    """A finding that started, as a block of lines."""
    since = f" (since {finding.first_step})" if finding.first_step != finding.step else ""
    marks = f"  {finding.status}" if finding.status != "stable" else ""
    lines = [
        f"[{finding.severity.upper()}] {finding.rule}  step {finding.step}{since}{marks}",
        *_block(finding.message),
    ]
    if finding.cascade_of:  # the cause has said what to do
        return "\n".join([*lines, *_block(f"Follows {finding.cascade_of}.")])
    if finding.level <= Severity.LOW:  # what to do can wait for the summary
        return "\n".join(lines)
    if finding.fix:
        lines += _block(f"Fix: {finding.fix}")
    return "\n".join([*lines, *(f"{INDENT}Ref: {reference}" for reference in finding.reference)])


def resolved(finding: Finding) -> str:
    """A finding that resolved, as one line."""
    return _line(f"[RESOLVED] {finding.rule}  {finding.message}")


def not_again(finding: Finding, times: int) -> str:
    """Said with the last episode that is shown."""
    return f"{INDENT}{finding.rule} has come {times} times; from now on it is only written to findings.jsonl."


def show(finding: Finding, last: bool) -> None:
    """Say a finding; `last` for the last episode of its rule that is shown."""
    if finding.state == "resolved":
        logger.info(resolved(finding))
    else:
        logger.warning(warning(finding))
    if last and finding.state == "started":
        logger.warning(not_again(finding, MOST_TOLD))


def resumed(step: int, open_episodes: dict[tuple[str, str], int]) -> str:
    """What goes on from before a resume."""
    names = [f"{rule} (since {first_step})" for (rule, _), first_step in open_episodes.items()]
    return _line(f"TRL diagnostics: resumed at step {step}" + (f", still going on: {_some(names)}" if names else ""))


def stopped(finding: Finding, step: int, checkpoint: Path | None) -> str:
    """Why training ends here and where to go on from."""
    go_on = f"Resume from {checkpoint}." if checkpoint else "No checkpoint on disk is known to be from before it."
    return _line(f"[STOP] Training stops because of {finding.rule}, found at step {step}. {go_on}")


def summary(
    findings: Iterable[Finding],
    coverage: dict[str, str],
    records: int,
    broken: dict[str, str],
    episodes: dict[str, int] | None = None,
    width: int | None = None,
    names_in: str = "coverage.json",
    also: str | None = None,
) -> str:
    """
    The block at train end: findings ranked by cause and severity, what to do, coverage.

    Args:
        findings (`Iterable[Finding]`):
            All findings in the order they were made.
        coverage (`dict[str, str]`):
            As given by [`Engine.coverage`].
        records (`int`):
            Number of train records.
        broken (`dict[str, str]`):
            Parts of the diagnostics that failed, and their errors.
        episodes (`dict[str, int]`, *optional*):
            How many episodes there were by `rule|metric`, where `findings` has the first ones only.
        width (`int`, *optional*):
            Columns of a line. Defaults to those of the terminal, 119 at most.
        names_in (`str`, *optional*, defaults to `"coverage.json"`):
            Where the reader finds which rule was active.
        also (`str`, *optional*):
            What else there is to say of the run.
    """
    findings, width = list(findings), width or columns()
    ended = {(f.rule, f.metric, f.first_step): f.step for f in findings if f.state == "resolved"}
    found = problems(findings)
    lines = [f"TRL diagnostics: {_headline([same[0] for same in found])} in {records} log{'s' * (records != 1)}"]
    for i, same in enumerate(found, 1):
        more = (episodes or {}).get(f"{same[0].rule}|{same[0].metric}", len(same)) - len(same)
        steps = [_span(finding, ended) for finding in sorted(same, key=lambda finding: finding.first_step)]
        steps += [f"and {more} more times"] if more > 0 else []
        said = f"  {i}. [{same[0].severity.upper()}] {same[0].rule}  step {', '.join(steps)}"
        lines += textwrap.wrap(said, width, subsequent_indent=INDENT, break_on_hyphens=False)
        lines += _advice(same[0], i == 1, width)
    lines += _normal_lines((f for f in findings if f.level == Severity.INFO and f.state == "started"), width)
    lines += textwrap.wrap(also, width, initial_indent="  ", subsequent_indent=INDENT) if also else []
    lines += _coverage_lines(coverage, width, names_in)
    lines += [f"  Error of the diagnostics themselves: {part} ({error})" for part, error in broken.items()]
    return "\n".join(lines)


def _span(finding: Finding, ended: dict[tuple[str, str, int], int]) -> str:
    return f"{finding.first_step} to {ended.get((finding.rule, finding.metric, finding.first_step), 'the end')}"


def _normal_lines(findings: Iterable[Finding], width: int) -> list[str]:
    """One sentence for each thing that looks odd and is not."""
    first: dict[str, Finding] = {}
    for finding in findings:
        first.setdefault(finding.rule, finding)
    lines = ["  Normal here, though it may look odd:"] if first else []
    for finding in first.values():
        said = f"{finding.rule} (step {finding.first_step}): {finding.message}"
        lines += textwrap.wrap(" ".join(said.split()), width, initial_indent="    ", subsequent_indent=INDENT)
    return lines


def _advice(finding: Finding, why: bool, width: int) -> list[str]:
    lines = _block(finding.message, width)
    if finding.cascade_of:
        return lines + _block(f"Follows {finding.cascade_of}.", width)
    lines += _block(f"Why: {finding.why}", width) if why and finding.why else []
    return lines + (_block(f"Fix: {finding.fix}", width) if finding.fix else [])


def rank(findings: Iterable[Finding]) -> list[Finding]:
    """
    Findings that started, causes before symptoms: what follows from a critical one comes last. Of the others high and
    critical come before the rest, what goes on before what is over, and then the earlier one: the first thing to break
    is more often the cause than the loudest.
    """
    findings = list(findings)
    over = {(f.rule, f.metric, f.first_step) for f in findings if f.state == "resolved"}

    def key(finding: Finding) -> tuple:
        minor = 0 if finding.level >= Severity.HIGH else 1 + Severity.HIGH - finding.level
        is_over = (finding.rule, finding.metric, finding.first_step) in over
        return (finding.cascade_of is not None, minor, is_over, finding.first_step, -finding.level)

    return sorted((finding for finding in findings if finding.state == "started"), key=key)


def problems(findings: Iterable[Finding]) -> list[list[Finding]]:
    """What is wrong: the episodes of one rule on one metric together, the one that matters most first; as [`rank`]."""
    found: dict[tuple[str, str], list[Finding]] = {}
    for finding in rank(findings):
        if finding.level > Severity.INFO:
            found.setdefault((finding.rule, finding.metric), []).append(finding)
    return list(found.values())


def health(findings: Iterable[Finding], coverage: dict[str, str]) -> str:
    """
    One word about a run: the severity of the worst finding, `"healthy"`, or `"too short"` without a finding as long as
    more than a quarter of the rules that wait for nothing but logs could not speak.
    """
    worst = max((finding.level for finding in findings), default=Severity.INFO)
    if worst > Severity.INFO:
        return str(worst)
    count = Counter(coverage.values())
    return HEALTHY if count[ACTIVE] > 3 * count[WARMING_UP] else TOO_SHORT


def _headline(found: list[Finding]) -> str:
    count = Counter(finding.severity for finding in found)
    said = [f"{count[str(severity)]} {severity}" for severity in reversed(Severity) if count[str(severity)]]
    return f"{', '.join(said)} finding{'s' * (len(found) > 1)}" if said else "no findings"


def _coverage_lines(coverage: dict[str, str], width: int, names_in: str) -> list[str]:
    names = {status: [name for name, s in coverage.items() if s == status] for status in set(coverage.values())}
    counts = ", ".join(f"{len(names.get(s, []))} {s}" for s in (ACTIVE, WARMING_UP, NOT_APPLICABLE, BLIND))
    lines = textwrap.wrap(f"  Rules: {counts} (by name in {names_in})", width, subsequent_indent="    ")
    for status, text in ((BLIND, "Blind, a metric never came"), (WARMING_UP, "Too few logs")):
        if status in names:
            said = f"{text}: {_some(names[status], 8)}"
            lines += textwrap.wrap(said, width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _block(text: str, width: int | None = None) -> list[str]:
    return textwrap.wrap(" ".join(text.split()), width or columns(), initial_indent=INDENT, subsequent_indent=INDENT)


def _line(text: str) -> str:
    """One line; in a terminal that is too narrow for it, several that end after words."""
    width = max(NARROWEST, shutil.get_terminal_size((UNLIMITED, 24)).columns)
    return textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def columns() -> int:
    """Columns of the terminal, 119 at most and where there is none."""
    return max(NARROWEST, min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH))
