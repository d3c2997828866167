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

"""How a run ended goes in, or only the files that it left; `postmortem.json` comes out."""

import json
import os
import shlex
import socket
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..engine.finding import Finding, Record, Severity, json_numbers
from ..sources.checkpoints import Checkpoint, checkpoints, output_dir_of
from .console import rank
from .redact import redact_text
from .run_dir import (
    CRASH_LOG,
    FINDINGS,
    HEARTBEAT,
    METRICS,
    POSTMORTEM,
    SCHEMA_VERSION,
    check_is_run_dir,
    last_metadata,
    read_json,
)
from .watchdog import DOING, LOW_MEMORY, boot_id, is_alive


RECORDS = 50  # the last ones, kept with the postmortem
LAST_FINDINGS = 10
TAIL = 1 << 20  # bytes at the end of `metrics.jsonl` in which the last records are looked for
LONG_AGO = 60.0  # seconds without a heartbeat
CHECK_SECONDS = 20.0

VANISHED = "The process vanished without an exception: killed (SIGKILL), os._exit or power loss."
RESTARTED = "The machine was restarted while the run was going on: power loss or a reboot."
OOM_LIKELY = (
    "Memory was nearly full at the last sign of life ({available} of {total} left, the training process held {rss}), so "
    "most likely the system killed it for lack of memory (OOM killer)."
)
CAUGHT = (
    "Training was left without its end while the process went on: the program caught an exception, or called sys.exit(). "
    "Used as `with DiagnosticsCallback(...) as diagnostics:` around trainer.train(), the next postmortem has the "
    "traceback."
)
BATCH_SIZE = "auto_find_batch_size started the training again with a smaller batch: this one did not fit into memory."


def postmortem(
    exit_reason: str,
    what: str,
    *,
    last_step: int,
    at: float,
    records: list[Record],
    findings: Iterable[Finding],
    found: list[Checkpoint],
    command: str = "",
    traceback: str = "",
    hangs: Iterable[dict] = (),
) -> dict[str, Any]:
    """
    The content of `postmortem.json`.

    Args:
        exit_reason (`str`):
            `"completed"`, `"stopped_by_rule"`, `"exception"`, `"oom"`, `"interrupted"`, `"sigterm"`, `"killed"`,
            `"segfault"`, `"hang"` or `"unfinished"`.
        what (`str`):
            The same in words.
        last_step (`int`):
            The last optimizer step that was finished.
        at (`float`):
            Unix time in seconds of the end, or of the last sign of life.
        records (`list[Record]`):
            The last ones, in order.
        findings (`Iterable[Finding]`):
            All of them, in order.
        found (`list[Checkpoint]`):
            Checkpoints on disk, by step.
        command (`str`, *optional*):
            The command line of the run.
        traceback (`str`, *optional*):
            Of the exception, or what the training was waiting for in a hang.
        hangs (`Iterable[dict]`, *optional*):
            Times when nothing moved, whether or not the run went on.

    Returns:
        `dict[str, Any]`: strict JSON without secrets.
    """
    findings = list(findings)
    problems = rank(finding for finding in findings if finding.level > Severity.INFO)
    root = problems[0] if problems else None
    return {
        "schema_version": SCHEMA_VERSION,
        "exit_reason": exit_reason,
        "what": redact_text(what),
        "last_step": last_step,
        "timestamp": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        "traceback": redact_text(traceback) or None,
        "hangs": list(hangs),
        "root_finding": root.to_json() if root else None,
        "last_findings": [finding.to_json() for finding in findings[-LAST_FINDINGS:]],
        **_about_checkpoints(found, root, command),
        "final_metrics": final_metrics(records),
        "records": [record.to_json() for record in records[-RECORDS:]],
    }


def _about_checkpoints(found: list[Checkpoint], root: Finding | None, command: str) -> dict[str, Any]:
    good = _to_go_on_from(found, root)
    finite = [checkpoint for checkpoint in found if checkpoint.finite]
    return {
        "last_checkpoint": str(found[-1].path) if found else None,
        "last_verified_finite_checkpoint": str(finite[-1].path) if finite else None,
        "checkpoint_note": found[-1].note if found else "",
        "resume_command": resume_command(command, good.path) if good else None,
    }


def _to_go_on_from(found: list[Checkpoint], root: Finding | None) -> Checkpoint | None:
    """The newest one that may be good: not known to be broken, and from before the weights broke."""
    usable = [c for c in found if c.finite] or [c for c in found if c.usable]
    before = [c for c in usable if root and root.level == Severity.CRITICAL and c.step < root.first_step]
    return (before or usable or [None])[-1]


def command_line(metadata: dict[str, Any]) -> str:
    """The command line in a run's metadata; `""` where there is none."""
    return shlex.join(metadata.get("command", {}).get("argv", ()))


def resume_command(command: str, checkpoint: Path) -> str:
    """
    How to go on, as a line for the shell.

    Args:
        command (`str`):
            Command line that started the run, or `""`.
        checkpoint (`Path`):
            Folder to go on from.

    Returns:
        `str`: the command with `--resume_from_checkpoint` for TRL's own scripts; for others what to put into them.
    """
    is_trl = command.startswith("trl ") or "/bin/trl " in command or "trl/scripts/" in command
    if is_trl and "--resume_from_checkpoint" not in command:
        return f'{command} --resume_from_checkpoint "{checkpoint}"'
    call = f'trainer.train(resume_from_checkpoint="{checkpoint}")'
    return f"{command}  # with {call}" if command else call


def final_metrics(records: list[Record]) -> dict[str, Any]:
    """The metrics of the last train record and of the last evaluation, under their canonical names."""
    metrics: dict[str, float | None] = {}
    for phase in ("train", "eval"):
        last = [record.metrics for record in records if record.phase == phase][-1:]
        metrics |= {name: value for found in last for name, value in found.items()}
    return json_numbers(metrics)


def infer(run_dir: Path, seconds: float = CHECK_SECONDS) -> dict[str, Any]:
    """
    How a run ended. Where nothing could be written when it did, the heartbeat and the last records tell.

    Args:
        run_dir (`Path`):
            Run directory.
        seconds (`float`, *optional*, defaults to `20.0`):
            Time for looking into checkpoints, the newest first.

    Returns:
        `dict[str, Any]`: as in `postmortem.json`. A run that still goes on is `"unfinished"`.

    Raises:
        [`DiagnosticsError`]: if no run has left anything in the folder.
    """
    check_is_run_dir(run_dir)
    written, beat = read_json(run_dir / POSTMORTEM), read_json(run_dir / HEARTBEAT)
    if written is not None:
        written = _looked_into(written, run_dir, seconds)
    if written is not None and (written["exit_reason"] != "hang" or beat is None):
        return written
    records = _last_records(run_dir / METRICS)
    reason, what = _without_end(beat, records) if beat else _without_heartbeat(records)
    if written is not None:  # a hang
        return written if reason == "unfinished" else {**written, "what": f"{written['what']} {what}"}
    trace = _text(run_dir / CRASH_LOG)
    if reason == "killed" and trace:
        reason, what = "segfault", f"Crashed in native code: {trace.splitlines()[0]}"
    metadata = last_metadata(run_dir)
    return postmortem(
        reason,
        what,
        last_step=max([record.step for record in records[-1:]] + [beat["step"] if beat else 0]),
        at=max([record.time for record in records[-1:]] + [beat["time"] if beat else 0.0]),
        records=records,
        findings=_findings(run_dir / FINDINGS),
        found=checkpoints(output_dir_of(run_dir, metadata), seconds),
        command=command_line(metadata),
        traceback=trace,
        hangs=beat["hangs"] if beat else (),
    )


def _looked_into(written: dict[str, Any], run_dir: Path, seconds: float) -> dict[str, Any]:
    """Killed soon after its end, or while it hung, a run has had no time to look into its checkpoints."""
    if written["last_checkpoint"] is None or written["last_verified_finite_checkpoint"] is not None:
        return written
    metadata, root = last_metadata(run_dir), written["root_finding"]
    found = checkpoints(output_dir_of(run_dir, metadata), seconds)
    about = _about_checkpoints(found, root and Finding.from_json(root), command_line(metadata))
    return written | about if found else written


def _without_end(beat: dict[str, Any], records: list[Record]) -> tuple[str, str]:
    """Reason and words for a run that left a heartbeat and no end."""
    silent = time.time() - beat["time"]
    ago = f"the last heartbeat was {_duration(silent)} ago"
    if beat["left"]:
        return "exception", CAUGHT
    if beat["host"] != socket.gethostname():
        return "unfinished", f"The run is or was on {beat['host']}, which cannot be asked from here; {ago}."
    if beat["boot_id"] != boot_id():
        return "killed", RESTARTED
    if is_alive(beat):
        going = f"is still there ({DOING[beat['doing']]}, last step {beat['step']})"
        if silent < LONG_AGO:
            return "unfinished", f"The run goes on: process {beat['pid']} {going}."
        held = "it was stopped, or something holds Python's interpreter lock"
        return (
            "unfinished",
            f"Process {beat['pid']} {going}, but {ago}: {held}. See `py-spy dump --pid {beat['pid']}`.",
        )
    return "killed", f"{VANISHED} {_memory(beat)}".strip()


def _memory(beat: dict[str, Any]) -> str:
    if beat["available_bytes"] >= LOW_MEMORY * beat["total_bytes"]:
        return ""
    sizes = {"available": beat["available_bytes"], "total": beat["total_bytes"], "rss": beat["rss_bytes"]}
    return OOM_LIKELY.format(**{name: f"{size / 2**30:.1f} GiB" for name, size in sizes.items()})


def _without_heartbeat(records: list[Record]) -> tuple[str, str]:
    if records and records[-1].phase == "summary":
        return "completed", "Training reached its end: the last record is the Trainer's summary."
    return "unfinished", "There is no heartbeat, so whether the run goes on or how it ended is not known."


def _duration(seconds: float) -> str:
    for name, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}s"
    return f"{max(seconds, 0):.0f} seconds"


def _last_records(file: Path) -> list[Record]:
    if not file.exists():
        return []
    with file.open("rb") as lines:
        lines.seek(max(0, os.path.getsize(file) - TAIL))
        found = [_record(line) for line in lines.read().splitlines()]
    return [record for record in found if record is not None]


def _record(line: bytes) -> Record | None:
    """`None` for a line that was cut: the first of the tail, or the last when the process was killed."""
    try:
        return Record.from_json(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _findings(file: Path) -> list[Finding]:
    found = []
    for line in _text(file).splitlines():
        try:
            found.append(Finding.from_json(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # cut when the process was killed
    return found


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
