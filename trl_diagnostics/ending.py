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

"""The files of a run go in; whether it goes on or how it ended, as `postmortem.json` says it, comes out."""

import json
import socket
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from .engine.finding import DiagnosticsError, Finding, Record
from .engine.rule import Rule
from .engine.rulebook import collect_rules
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap
from .options import check_path
from .sinks.console import logger
from .sinks.postmortem import CAUGHT, about_checkpoints, command_line, postmortem
from .sinks.redact import redact_text
from .sinks.run_dir import (
    CRASH_LOG,
    FINDINGS,
    METRICS,
    POSTMORTEM,
    check_is_run_dir,
    last_metadata,
    read_json,
    write_json,
)
from .sinks.watchdog import DOING, LOW_MEMORY, boot_id, is_alive, pid_namespace, read_heartbeat
from .sources.advice import advise, judge_checkpoints
from .sources.checkpoints import Checkpoint, checkpoints, of_one_run, output_dir_of
from .sources.logs import Run, open_run
from .sources.rows import section
from .sources.tables import lines, tail
from .words import duration


LONG_AGO = 60.0  # seconds without a heartbeat
GIVEN_UP = 600.0  # seconds without a heartbeat after which a process that cannot be asked counts as dead
CHECK_SECONDS = 20.0

# What is needed of these files; a damaged one may have less, and one of another release something else.
OF_A_POSTMORTEM = ("exit_reason", "what", "last_step", "traceback", "hangs", "root_finding", "final_metrics")
OF_A_POSTMORTEM += (
    "last_checkpoint",
    "last_verified_finite_checkpoint",
    "checkpoint_note",
    "resume_command",
    "timestamp",
)

VANISHED = (
    "The process vanished without an exception: a signal that nobody handles (SIGKILL, SIGHUP when a terminal closes, "
    "SIGUSR1 ...), os._exit or power loss."
)
OR_CRASHED = (
    "It may have crashed in native code, too: the program used Python's faulthandler itself, so the stack of a crash is "
    "in its own output (stderr) and not here."
)
RESTARTED = "The machine was restarted while the run was going on: power loss or a reboot."
OOM_LIKELY = (
    "Memory was nearly full at the last sign of life ({available} of {total} left, the training process held {rss}), so "
    "most likely the system killed it for lack of memory (OOM killer)."
)
UNREADABLE = "postmortem.json is damaged or of another release, this is told from the other files."


class _Left(NamedTuple):
    """What a run left that tells of its end, read once: a run that goes on writes another story a moment later."""

    postmortem: dict[str, Any] | None
    beat: dict[str, Any] | None
    records: list[Record]

    @classmethod
    def read(cls, run_dir: Path) -> "_Left":
        """Of the records the last ones."""
        metrics = run_dir / METRICS
        records = list(_parsed(tail(metrics), Record)) if metrics.exists() else []
        return cls(_written(run_dir), read_heartbeat(run_dir), records)

    @property
    def last_step(self) -> int:
        """The last optimizer step that is known to be finished."""
        known = [(self.postmortem or {}).get("last_step", 0), (self.beat or {}).get("step", 0)]
        return max(known + [record.step for record in self.records[-1:]])


def how_it_ended(run_dir: Path) -> tuple[str, str]:
    """
    Whether a run goes on or how it ended. Where nothing could be written then, the heartbeat tells. Reads little.

    Args:
        run_dir (`Path`):
            Run directory.

    Returns:
        `tuple[str, str]`: the `exit_reason` and the same in words. A run that still goes on is `"unfinished"`.
    """
    return _how_it_ended(run_dir, _Left.read(run_dir))


def _how_it_ended(run_dir: Path, left: _Left) -> tuple[str, str]:
    written, beat = left.postmortem, left.beat
    if written is not None and (written["exit_reason"] != "hang" or beat is None):
        return written["exit_reason"], written["what"]
    reason, what = _without_end(_caught_up(beat, left.records)) if beat else _without_heartbeat(left.records)
    if reason == "killed" and (trace := _text(run_dir / CRASH_LOG)):
        reason, what = "segfault", f"Crashed in native code: {trace.splitlines()[0]}"
    if written is not None:  # a hang
        return "hang", written["what"] if reason == "unfinished" else f"{written['what']} {what}"
    return reason, f"{UNREADABLE} {what}" if (run_dir / POSTMORTEM).exists() else what


def read_postmortem(
    run_dir: Path, seconds: float = CHECK_SECONDS, judged: list[Checkpoint] | None = None
) -> dict[str, Any]:
    """
    How a run ended, with all that is known of it.

    Args:
        run_dir (`Path`):
            Run directory.
        seconds (`float`, *optional*, defaults to `20.0`):
            Time for looking into checkpoints, the newest first.
        judged (`list[Checkpoint]`, *optional*):
            As given by [`judge_checkpoints`], where that was already done.

    Returns:
        `dict[str, Any]`: as in `postmortem.json`. A run that still goes on is `"unfinished"`.

    Raises:
        [`DiagnosticsError`]: if no run has left anything in the folder.
    """
    check_is_run_dir(run_dir)
    left = _Left.read(run_dir)
    written, beat, records = left
    reason, what = _how_it_ended(run_dir, left)
    metadata, findings = last_metadata(run_dir), _findings(run_dir / FINDINGS)
    # killed soon after its end, or while it hung, a run has had no time to look into its checkpoints
    hurried = written is None or written["last_checkpoint"] and not written["last_verified_finite_checkpoint"]
    if judged is None and hurried:
        judged = _judged(run_dir, left.last_step, metadata, findings, seconds)
    judged, command = judged or [], command_line(metadata)
    if written is not None:
        written |= {"exit_reason": reason, "what": what}
        return written | about_checkpoints(judged, advise(judged).go_on, command, reason, what) if judged else written
    return postmortem(
        reason,
        what,
        last_step=left.last_step,
        at=max([record.time for record in records[-1:]] + [beat["time"] if beat else 0.0]),
        records=records,
        findings=findings,
        found=judged,
        go_on=advise(judged).go_on,
        command=command,
        traceback=_text(run_dir / CRASH_LOG).partition("\nExtension modules:")[0],  # a line of 100 and more names
        hangs=beat["hangs"] if beat else (),
    )


def settle(run_dir: Path, seconds: float) -> None:
    """Write down and say how the run before ended, when another one begins; arguments as for [`read_postmortem`]."""
    before = read_postmortem(run_dir, seconds)
    if before["exit_reason"] in ("completed", "stopped_by_rule"):
        return
    if before["exit_reason"] == "unfinished":
        logger.warning("TRL diagnostics: there is an unfinished run in this folder. %s", before["what"])
        return
    write_json(run_dir / POSTMORTEM, before)
    how = f"ended ({before['exit_reason']}) at step {before['last_step']}. {before['what']}"
    logger.info("TRL diagnostics: the run before in this folder %s", how)


def rewrite_postmortem(
    run_dir: Path, written: dict[str, Any], judged: list[Checkpoint], command: str
) -> dict[str, Any]:
    """Put what all records say about the checkpoints into `postmortem.json`, which was written by the last ones."""
    if not written:  # the writing failed
        return written
    how = written["exit_reason"], written["what"]
    written = written | about_checkpoints(judged, advise(judged).go_on, command, *how)
    write_json(run_dir / POSTMORTEM, written)
    return written


def checkpoints_of_run(run_dir: Path, metadata: dict[str, Any], seconds: float = CHECK_SECONDS) -> list[Checkpoint]:
    """
    The checkpoints in the output folder of a run.

    Args:
        run_dir (`Path`):
            Run directory.
        metadata (`dict[str, Any]`):
            Its `run_metadata_start.json`, or `{}`.
        seconds (`float`, *optional*, defaults to `20.0`):
            Time for reading weights, see [`checkpoints`].

    Returns:
        `list[Checkpoint]`: by step; those of another run are marked, see [`of_one_run`].
    """
    last_step = _Left.read(run_dir).last_step
    return of_one_run(checkpoints(output_dir_of(run_dir, metadata), seconds), last_step, run_dir)


def _judged(
    run_dir: Path, last_step: int, metadata: dict[str, Any], findings: list[Finding], seconds: float
) -> list[Checkpoint]:
    found = of_one_run(checkpoints(output_dir_of(run_dir, metadata), seconds), last_step, run_dir)
    rules = rules_of(metadata, {}) if findings else ()
    return judged_by_run(found, open_run(run_dir), findings, rules) if found else []


def judged_by_run(
    found: list[Checkpoint], run: Run, findings: Iterable[Finding], rules: Iterable[Rule]
) -> list[Checkpoint]:
    """Checkpoints with what their run says about them, see [`judge_checkpoints`]."""
    if not found:
        return []
    metric_map = MetricMap(run.trainer, run.trl_version)
    return judge_checkpoints(found, run.records(), findings, run.config, rules, metric_map)


def rules_of(metadata: dict[str, Any], broken: dict[str, str]) -> list[Rule]:
    """The rules that the user had chosen. A folder of rules may be gone, or its rules may not fit any more."""
    chosen = section(metadata, "diagnostics")
    alerts, folder, muted = (chosen.get(key) for key in ("custom_alerts", "custom_heuristics_dir", "disable"))
    try:
        check_path("custom_heuristics_dir", folder)
        return collect_rules(alerts or (), folder, muted or (), check_metric, check_rule, redact_text)
    except DiagnosticsError as error:
        broken["rules of the run"] = str(error)
        return collect_rules()


def _written(run_dir: Path) -> dict[str, Any] | None:
    """The content of `postmortem.json`; `None` without one that this release understands."""
    data = read_json(run_dir / POSTMORTEM)
    try:
        datetime.fromisoformat(data["timestamp"])
        if data["root_finding"] is not None:
            Finding.from_json(data["root_finding"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return data if all(key in data for key in OF_A_POSTMORTEM) else None


def _without_end(beat: dict[str, Any]) -> tuple[str, str]:
    """Reason and words for a run that left a heartbeat and no end."""
    silent = time.time() - beat["time"]
    ago = f"the last heartbeat was {duration(silent)} ago"
    if beat["left"]:
        return "exception", CAUGHT
    if beat["host"] != socket.gethostname():
        return _elsewhere(beat["host"], silent, ago)
    if beat["boot_id"] != boot_id():
        return "killed", RESTARTED
    if beat.get("pid_namespace", pid_namespace()) != pid_namespace():
        return _elsewhere(f"{beat['host']} in another container", silent, ago)
    if is_alive(beat):
        going = f"is still there ({DOING.get(beat['doing'], beat['doing'])}, last step {beat['step']})"
        if silent < LONG_AGO:
            return "unfinished", f"The run goes on: process {beat['pid']} {going}."
        held = "it was stopped, or something holds Python's interpreter lock"
        return (
            "unfinished",
            f"Process {beat['pid']} {going}, but {ago}: {held}. See `py-spy dump --pid {beat['pid']}`.",
        )
    said = [VANISHED, OR_CRASHED if beat.get("faulthandler_taken") else "", _memory(beat)]
    return "killed", " ".join(filter(None, said))


def still_there(run_dir: Path) -> int | None:
    """The process of a run, if it is on this machine and has not ended; for example one that hangs."""
    beat = read_heartbeat(run_dir)
    if beat is None or beat["host"] != socket.gethostname() or beat["boot_id"] != boot_id():
        return None
    return beat["pid"] if beat.get("pid_namespace", pid_namespace()) == pid_namespace() and is_alive(beat) else None


def _elsewhere(where: str, silent: float, ago: str) -> tuple[str, str]:
    """For a process that cannot be asked: the next start of the run may be in another container, or on another node."""
    if silent < GIVEN_UP:
        return "unfinished", f"The run is or was on {where}, which cannot be asked from here; {ago}."
    return (
        "killed",
        f"The run was on {where}, which cannot be asked from here. That it ended is told from its silence: {ago}.",
    )


def _memory(beat: dict[str, Any]) -> str:
    if beat["available_bytes"] >= LOW_MEMORY * beat["total_bytes"]:
        return ""
    sizes = {"available": beat["available_bytes"], "total": beat["total_bytes"], "rss": beat["rss_bytes"]}
    return OOM_LIKELY.format(**{name: f"{size / 2**30:.1f} GiB" for name, size in sizes.items()})


def _without_heartbeat(records: list[Record]) -> tuple[str, str]:
    if records and records[-1].phase == "summary":
        return "completed", "Training reached its end: the last record is the Trainer's summary."
    return "unfinished", "There is no heartbeat, so whether the run goes on or how it ended is not known."


def _caught_up(beat: dict[str, Any], records: list[Record]) -> dict[str, Any]:
    """The heartbeat, or what the last record says of the step where it is the later one."""
    step = max((record.step for record in records[-1:]), default=0)
    return {**beat, "step": step, "doing": "step"} if step > beat["step"] else beat


def _findings(file: Path) -> list[Finding]:
    return list(_parsed(lines(file), Finding)) if file.exists() else []


def _parsed(texts: Iterable[str], kind: type[Record] | type[Finding]) -> Iterator[Record | Finding]:
    for text in texts:
        try:
            yield kind.from_json(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue  # cut when the process was killed


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
