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

"""A training goes in; what tells how it went and how it ended comes out in its run directory, however it ends."""

import os
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerState, TrainingArguments

from .diagnosis import Diagnosis
from .ending import judged_by_run, rewrite_postmortem, settle
from .engine.engine import Engine
from .engine.finding import Finding, Record
from .engine.rule import Rule
from .guard import Guard
from .metadata import provenance, resumed_from, trl_version
from .sinks import console
from .sinks.exits import INTERRUPTED, SIGINT, ExitHooks, Sigterm, reason_of, shortened, words_of
from .sinks.postmortem import BATCH_SIZE, CAUGHT, RECORDS, SIGTERM, command_line, final_metrics, in_words, postmortem
from .sinks.report import write_report
from .sinks.run_dir import (
    CRASH_LOG,
    FINAL,
    HANG_LOG,
    HEARTBEAT,
    MEMORY,
    METRICS,
    POSTMORTEM,
    REPORTS,
    RESUME,
    START,
    RunDir,
    last_metadata,
    write_json,
)
from .sinks.training_loop import TrainingLoop
from .sinks.watchdog import DOING, Watchdog, write_stacks
from .sources.advice import advise, judge_checkpoints
from .sources.checkpoints import Checkpoint, checkpoints, of_one_run
from .sources.logs import open_run
from .sources.resume import HARMLESS, NOTHING_KNOWN, differences, mismatch, resume_record


CHECK_SECONDS = 5.0  # for looking into checkpoints while a process ends
NOT_ALL_HERE = "TRL diagnostics: %d of %d records before this resume are in %s. What else was in the folder is in %s."
NOT_IN_CHECKPOINTS = ("diagnostics", "command", "environment", "seeds")

OPEN: list["RunRecord"] = []  # trainings of this process that have not ended
if os.name == "posix":
    os.register_at_fork(after_in_child=OPEN.clear)  # a forked process does not train on


class RunRecord:
    """
    The files about one training beside its metrics and findings, written by the main process.

    Args:
        files ([`RunDir`]):
            The run directory.
        args (`TrainingArguments`), state (`TrainerState`):
            Of the training.
        engine ([`Engine`]), rules (`list[Rule]`):
            What judges it.
        findings (`list[Finding]`), groups (`Counter[str]`):
            Kept up to date by the callback.
        guard ([`Guard`]):
            Calls a part of the diagnostics so that its errors go no further.
        hang_timeout (`float`):
            Seconds, see [`Watchdog`].
        postpone (`bool`):
            Whether training ends at a step after SIGTERM, and not at once.
    """

    def __init__(
        self,
        files: RunDir,
        args: TrainingArguments,
        state: TrainerState,
        engine: Engine,
        rules: list[Rule],
        findings: list[Finding],
        groups: Counter[str],
        guard: Guard,
        hang_timeout: float,
        postpone: bool,
    ):
        self.files, self.args, self.state, self.engine, self.rules = files, args, state, engine, rules
        self.findings, self.groups, self.guard = findings, groups, guard
        self.loop = TrainingLoop(state)
        self.exits = ExitHooks(self._on_exit, self.report, files.path / CRASH_LOG)
        self.sigterm = Sigterm(self._on_sigterm, self.loop, postpone)
        watched = self.sigterm.is_training, self._on_hang, self._on_recovery
        self.watchdog = Watchdog(files.path, guard, hang_timeout, *watched)
        self.sigterm_step: int | None = None  # in which it came, until a later one begins
        self.outlived_sigterm = False
        self.records: deque[Record] = deque(maxlen=RECORDS)
        self.command = ""
        self.checkpoints: list[Checkpoint] = []
        self.postmortem: dict[str, Any] = {}  # as it was last written
        self.saved_by, self.saved_in, self.before = None, None, {}  # what the checkpoint says of its run
        self.with_state = False  # whether it has a state of the rules
        self.start: dict[str, Any] = {}  # of this run, for its checkpoints
        self.began, self.step_began = time.time(), time.monotonic()
        self.ending: tuple[str, str, str] | None = None  # while it is being written down
        self.ended = False
        self.lock = threading.RLock()  # the watchdog writes too, and so does a signal handler in the middle of a write

    def begin(self, memory: dict[str, Any] | None) -> None:
        """
        Start watching, after the end of what was here before has been written down.

        Args:
            memory (`dict[str, Any]`, *optional*):
                What a checkpoint has of this callback: `lines` as in [`RunDir.begin`], `start_id` of what saved it,
                `resumes` there had been.
        """
        if (self.files.path / HEARTBEAT).exists():
            self.guard("end of the run before", settle, self.files.path, CHECK_SECONDS)
        if memory is not None:
            self.with_state, self.saved_by = True, memory.get("start_id")
            self.saved_in, self.before = memory.get("resumes"), memory.get("start", {})
        self.files.begin(self.state.global_step, memory and memory["lines"], self.saved_by)
        here, path = self.files.lines[METRICS], self.files.path
        if memory is not None and here != (saved := memory["lines"].get(METRICS, 0)):
            self.guard("memory.json", self.files.write_metadata, MEMORY, {"engine": memory["engine"]})
            console.logger.info(NOT_ALL_HERE, here, saved, path / METRICS, path / "attempts")
        self.watchdog.step = self.state.global_step
        self.watchdog.start()
        OPEN.append(self)
        self.guard("crash.log", self.exits.install)
        self.sigterm.install()

    def write_start(
        self, trainer: str, diagnostics: dict[str, Any], parts: dict[str, Any], git_diff: bool
    ) -> tuple[Record | None, str | None]:
        """
        Write `run_metadata_start.json`, and on a resume compare it with that of the run that saved the checkpoint.

        Args:
            trainer (`str`):
                Trainer type.
            diagnostics (`dict[str, Any]`):
                As given by [`about_diagnostics`].
            parts (`dict[str, Any]`):
                What the Trainer hands to its callbacks: model, processing class, data loaders.
            git_diff (`bool`):
                Whether to write what is not committed, too.

        Returns:
            `tuple[Record | None, str | None]`: on a resume what differs, to judge, and what is not harmless, in words.
        """
        metadata = {"trainer": trainer, "trl_version": trl_version(), "diagnostics": diagnostics}
        metadata |= provenance(self.args, parts, git_diff)
        self.start = {key: value for key, value in metadata.items() if key not in NOT_IN_CHECKPOINTS}
        if git_diff and metadata["git"]:
            self.start["git"] = {**metadata["git"], "diff": None}  # each checkpoint would have it
        self.command = command_line(metadata)
        step = self.state.global_step
        if step == 0:
            self.files.write_metadata(START, metadata)
            return None, None
        before = self.before or last_metadata(self.files.path, self.saved_in)
        if not before:
            console.logger.warning("TRL diagnostics: %s", NOTHING_KNOWN)
        resumed = {"number": self.files.resumes, "step": step, "saved_by": self.saved_by, **self.files.kept()}
        self.files.write_metadata(START, {**metadata, "resumed": {**resumed, "with_state": self.with_state}})
        checkpoint = resumed_from(self.args, step)
        different = differences(before, metadata, checkpoint)
        self.files.write_metadata(RESUME, {"step": step, "differences": [one.to_json() for one in different]})
        if harmless := [str(one) for one in different if one.effect == HARMLESS]:
            console.logger.info("TRL diagnostics: other than before the resume, harmless: %s", "; ".join(harmless))
        return resume_record(before, metadata, checkpoint, step), mismatch(different, self.files.path)

    def beat(self, doing: str) -> None:
        """A sign of life, and what is done from now on (a key of `DOING`)."""
        step = self.state.global_step
        self.watchdog.beat(step, doing)
        if doing == "step":
            self.step_began = time.monotonic()
            if self.sigterm_step is not None and step > self.sigterm_step:
                self.guard("postmortem", self._outlive_sigterm)

    def finish(self, because: Finding | None) -> None:
        """
        The training came to its own end.

        Args:
            because ([`Finding`], *optional*):
                What training was asked to stop for.
        """
        at = f"step {self.state.global_step} of {self.state.max_steps}"
        before = " SIGTERM had come before." if self.sigterm.received else ""
        if self.state.global_step >= self.state.max_steps:
            self.end("completed", f"Training reached its end, step {self.state.global_step}.{before}")
        elif because is not None and self.sigterm_step is None:
            self.end("stopped_by_rule", f"{because.rule} ended training at {at}: {because.message}{before}")
        elif self.sigterm.received:  # a handler of the user may have it stop some steps later
            self.end("sigterm", f"{SIGTERM} Training ended at {at}.")
        else:
            self.end("completed", f"Training ended at {at}, as a callback asked for or for lack of data.")
        self.guard("report", self._report)
        if self.postmortem.get("exit_reason") == "sigterm":
            self.guard("postmortem", self._say, console.logger.warning)

    def end(self, reason: str, what: str, trace: str = "") -> None:
        """
        Write how the training ended and stop watching. A later end replaces an earlier one that was a mistake.

        Args:
            reason (`str`):
                The `exit_reason`.
            what (`str`):
                The same in words.
            trace (`str`, *optional*):
                Traceback of the exception.
        """
        with self.lock:
            self.watchdog.stop()
            if self in OPEN:
                OPEN.remove(self)
            self.ending = reason, what, trace
            self.guard("postmortem", self._write_postmortem, *self.ending)
            self.ending, self.ended = None, True
            self.guard("run metadata", self.files.write_metadata, FINAL, self._final(reason))
            self.guard("coverage.json", self.files.write_coverage, self.engine.coverage())
            self.exits.release()
            self.files.close()

    def _write_postmortem(self, reason: str, what: str, trace: str) -> None:
        trace = shortened(trace)
        for seconds in (0.0, CHECK_SECONDS):  # at first without looking into checkpoints, there may be no time for it
            self.checkpoints = self.guard("checkpoint search", self._checkpoints, seconds) or []
            judged = judge_checkpoints(self.checkpoints, list(self.records), self.findings, rules=self.rules)
            self.postmortem = postmortem(
                reason,
                what,
                last_step=self.state.global_step,
                at=time.time(),
                records=list(self.records),
                findings=self.findings,
                found=judged,
                go_on=advise(judged).go_on,
                command=self.command,
                traceback=trace,
                hangs=self.watchdog.hangs,
            )
            write_json(self.files.path / POSTMORTEM, self.postmortem)

    def _checkpoints(self, seconds: float) -> list[Checkpoint]:
        found = checkpoints(Path(self.args.output_dir), seconds)
        return of_one_run(found, self.state.global_step, self.files.path if seconds else None)

    def _final(self, reason: str) -> dict[str, Any]:
        return {
            "exit_reason": reason,
            "last_step": self.state.global_step,
            "seconds": round(time.time() - self.began, 3),
            "final_metrics": final_metrics(list(self.records)),
            "coverage": dict(Counter(self.engine.coverage().values())),
            "broken": self.guard.broken,
        }

    def _report(self) -> None:
        run = open_run(self.files.path)
        # There may be no time between SIGTERM and the SIGKILL that follows, and who presses Ctrl-C does not want to wait;
        # matplotlib, when it is imported in an exception hook, makes Python forget to exit as interrupted, too.
        in_haste = self.sigterm_step is not None or self.postmortem.get("exit_reason") in ("interrupted", "sigterm")
        if in_haste:  # to read all records takes seconds in a long run
            judged = judge_checkpoints(self.checkpoints, list(self.records), self.findings, rules=self.rules)
        else:
            judged = judged_by_run(self.checkpoints, run, self.findings, self.rules)
            self.postmortem = rewrite_postmortem(self.files.path, self.postmortem, judged, self.command)
        diagnosis = Diagnosis(
            run=run,
            findings=tuple(self.findings),
            coverage=self.engine.coverage(),
            records=self.engine.records,
            last_step=self.state.global_step,
            broken=self.guard.broken,
            postmortem=self.postmortem,
            checkpoints=tuple(judged),
            advice=advise(judged) if judged and not in_haste else None,
            rules=tuple(self.rules),
            groups=self.groups,
        )
        write_report(self.files.path / REPORTS, diagnosis, not in_haste)

    def close(self, reason: str | None, what: str, error: BaseException | None = None) -> None:
        """
        The training will not come to its own end.

        Args:
            reason (`str` or `None`):
                The `exit_reason`; `None` takes it from the exception.
            what (`str`):
                In words, where no exception says it.
            error (`BaseException`, *optional*):
                Exception that ended the training. Without it the one that is being handled counts, if any.
        """
        if not self.ended:
            self.guard("end of the run", self._close, reason, what, error or sys.exception())

    def _close(self, reason: str | None, what: str, error: BaseException | None) -> None:
        trace = "".join(traceback.format_exception(error)) if error else ""
        if error is not None and reason is None:
            reason, what = reason_of(error), words_of(error)
        elif reason is None and SIGINT.last > self.step_began:
            reason, what = "interrupted", f"{INTERRUPTED} The program caught that and went on."
        if self.sigterm.received and not self.outlived_sigterm:
            reason, what = "sigterm", SIGTERM
        self.end(reason or "exception", what, trace)

    def report(self, warn: Callable[[str], None] = console.logger.warning) -> None:
        """
        After [`RunRecord.close`], and after the user has been shown the exception: the report, where it is, and a SIGTERM
        that had to wait.
        """
        self.guard("report", self._report)
        self.guard("postmortem", self._say, warn)
        self.files.release()
        self.sigterm.release()

    def _say(self, warn: Callable[[str], None]) -> None:
        said, file = in_words(self.postmortem), self.files.path / POSTMORTEM
        warn(f"{said} See {file}." if file.exists() else f"{said} {file} could not be written.")

    def _outlive_sigterm(self) -> None:
        """A handler of the user had it go on: what comes later has another reason."""
        with self.lock:
            self.sigterm_step, self.outlived_sigterm = None, True
            if self.postmortem.get("exit_reason") == "sigterm":
                (self.files.path / POSTMORTEM).unlink(missing_ok=True)

    def _on_exit(self, error: BaseException | None) -> None:
        self.close(None, CAUGHT, error)

    def _on_sigterm(self, frame: FrameType | None) -> None:
        """Called by the signal handler."""
        self.sigterm_step, self.outlived_sigterm = self.state.global_step, False
        if self.ended:
            return
        if not self.loop.is_running():  # the program caught an exception before
            self.outlived_sigterm = True
            self.close(None, CAUGHT)
            self.report(console.warn_aside)
            return
        end = self.ending or ("sigterm", SIGTERM, "".join(traceback.format_stack(frame)))
        if self.sigterm.is_last:
            self.guard("end of the run", self.end, *end)
            self.report(console.warn_aside)
        else:  # what comes next is up to others
            self.guard("postmortem", self._write_postmortem, *end)

    def _on_hang(self, hang: dict[str, Any]) -> None:
        """Called by the watchdog's thread."""
        stack = self.loop.stack()
        what = f"No sign of life for {hang['seconds']:.0f} s, {DOING[hang['doing']]}; last step {hang['step']}."
        self.guard("hang.log", write_stacks, self.files.path / HANG_LOG, what)
        with self.lock:
            if self.ended:
                return
            hang["stack"] = shortened(stack)
            self.guard("postmortem", self._write_postmortem, "hang", what, stack)
        where = self.files.path / HANG_LOG
        console.warn_aside(f"TRL diagnostics: {what} It waits here:\n{stack}All threads are in {where}.")

    def _on_recovery(self, hang: dict[str, Any]) -> None:
        """Called by the watchdog's thread when the training goes on after a hang."""
        with self.lock:
            if self.ended:
                return
            if self.postmortem.get("exit_reason") == "hang":
                (self.files.path / POSTMORTEM).unlink(missing_ok=True)
        console.warn_aside(f"TRL diagnostics: training goes on after {hang['seconds']:.0f} s without a sign of life")


def close_left(args: TrainingArguments, loop: TrainingLoop) -> None:
    """Write down the end of trainings of this process that were left without one, when the one of `args` begins."""
    for record in [one for one in OPEN if not one.loop.goes_on_beside(loop)]:
        smaller_batch = record.args is args and args.auto_find_batch_size
        record.close("oom" if smaller_batch else None, BATCH_SIZE if smaller_batch else CAUGHT)
        record.report()
