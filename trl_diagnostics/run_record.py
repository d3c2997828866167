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

import faulthandler
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerState, TrainingArguments

from .engine.engine import Engine
from .engine.finding import Finding, Record
from .metadata import trl_version
from .sinks import console
from .sinks.exits import Exits, Sigterm, reason_of
from .sinks.postmortem import BATCH_SIZE, CAUGHT, RECORDS, final_metrics, infer, postmortem
from .sinks.redact import redact_text
from .sinks.run_dir import CRASH_LOG, FINAL, HANG_LOG, HEARTBEAT, POSTMORTEM, START, RunDir, write_json
from .sinks.watchdog import DOING, Watchdog
from .sources.checkpoints import Checkpoint, checkpoints


CHECK_SECONDS = 5.0  # for looking into checkpoints while a process ends
MOST_HANGS = 20  # kept with their stacks; hang.log has all

SIGTERM = "SIGTERM asked the process to end: preemption or the time limit of a cluster, or kill."

OPEN: list["RunRecord"] = []  # trainings of this process that have not ended


class RunRecord:
    """
    The files about one training beside its metrics and findings, written by the main process.

    Args:
        files ([`RunDir`]):
            The run directory.
        args (`TrainingArguments`), state (`TrainerState`):
            Of the training.
        engine ([`Engine`]):
            What judges it.
        findings (`list[Finding]`), broken (`dict[str, str]`):
            Kept up to date by the callback.
        guard (`Callable`):
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
        findings: list[Finding],
        broken: dict[str, str],
        guard: Callable,
        hang_timeout: float,
        postpone: bool,
    ):
        self.files, self.args, self.state, self.engine = files, args, state, engine
        self.findings, self.broken, self.guard = findings, broken, guard
        self.watchdog = Watchdog(files.path, guard, hang_timeout, self._hangs, self._moves)
        self.exits = Exits(self._left, files.path / CRASH_LOG)
        self.sigterm = Sigterm(self._terminated, postpone)
        self.records: deque[Record] = deque(maxlen=RECORDS)
        self.hangs: deque[dict[str, Any]] = deque(maxlen=MOST_HANGS)
        self.command = ""
        self.root: dict[str, Any] | None = None  # the first cause among the findings, as the postmortem has it
        self.resume_command: str | None = None
        self.thread = threading.get_ident()
        self.began = time.time()
        self.ended = False
        self.lock = threading.RLock()  # the watchdog writes too, and so does a signal handler in the middle of a write

    def begin(self, lines: dict[str, int] | None) -> None:
        """
        Start watching, after the end of what was here before has been written down.

        Args:
            lines (`dict[str, int]`, *optional*):
                See [`RunDir.begin`].
        """
        for other in OPEN[:]:
            if other.state is not self.state:  # and not of a second callback in this training
                smaller_batch = other.args is self.args and self.args.auto_find_batch_size
                other.close("oom" if smaller_batch else None, BATCH_SIZE if smaller_batch else CAUGHT)
        if (self.files.path / HEARTBEAT).exists():
            self._end_of_the_run_before()
        self.files.begin(self.state.global_step, lines)
        self.watchdog.step = self.state.global_step
        self.watchdog.start()
        OPEN.append(self)
        self.exits.install()
        self.sigterm.install()

    def _end_of_the_run_before(self) -> None:
        before = infer(self.files.path, CHECK_SECONDS)
        if before["exit_reason"] in ("completed", "stopped_by_rule"):
            return
        if before["exit_reason"] != "unfinished":
            write_json(self.files.path / POSTMORTEM, before)
        console.logger.info(
            "TRL diagnostics: the run before in this folder is %s since step %s: %s",
            before["exit_reason"],
            before["last_step"],
            before["what"],
        )

    def write_start(self, trainer: str, diagnostics: dict[str, Any], parts: dict[str, Any]) -> None:
        """
        Write `run_metadata_start.json`.

        Args:
            trainer (`str`):
                Trainer type.
            diagnostics (`dict[str, Any]`):
                As given by [`about_diagnostics`].
            parts (`dict[str, Any]`):
                What the Trainer hands to its callbacks: model, processing class, data loaders.
        """
        metadata = {"trainer": trainer, "trl_version": trl_version(), "diagnostics": diagnostics}
        self.command = metadata.get("command", "")
        self.files.write_metadata(START, metadata)

    def beat(self, doing: str) -> None:
        """A sign of life, and what is done from now on (a key of `DOING`)."""
        self.watchdog.beat(self.state.global_step, doing)

    def finish(self, because: Finding | None) -> None:
        """
        The training came to its own end.

        Args:
            because ([`Finding`], *optional*):
                What training was asked to stop for.
        """
        at = f"step {self.state.global_step} of {self.state.max_steps}"
        if self.state.global_step >= self.state.max_steps:
            self.end("completed", f"Training reached its end, step {self.state.global_step}.")
        elif self.sigterm.received:
            self.end("sigterm", f"{SIGTERM} Training ended at {at}.")
            self._say("sigterm")
        elif because is not None:
            self.end("stopped_by_rule", f"{because.rule} ended training at {at}: {because.message}")
        else:
            self.end("completed", f"Training ended at {at}, as a callback asked for or for lack of data.")

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
            self._write_postmortem(reason, what, trace)
            self.ended = True
            self.guard("run directory", self.files.write_metadata, FINAL, self._final(reason))
            self.exits.release()
            self.files.close()

    def _write_postmortem(self, reason: str, what: str, trace: str = "") -> list[Checkpoint]:
        found: list[Checkpoint] = []
        for seconds in (0.0, CHECK_SECONDS):  # at first without looking into checkpoints, there may be no time for it
            found = self.guard("checkpoint search", checkpoints, Path(self.args.output_dir), seconds) or []
            content = postmortem(
                reason,
                what,
                last_step=self.state.global_step,
                at=time.time(),
                records=list(self.records),
                findings=self.findings,
                found=found,
                command=self.command,
                traceback=trace,
                hangs=self.hangs,
            )
            write_json(self.files.path / POSTMORTEM, content)
            self.root, self.resume_command = content["root_finding"], content["resume_command"]
        return found

    def _final(self, reason: str) -> dict[str, Any]:
        return {
            "exit_reason": reason,
            "last_step": self.state.global_step,
            "seconds": round(time.time() - self.began, 3),
            "final_metrics": final_metrics(list(self.records)),
            "coverage": dict(Counter(self.engine.coverage().values())),
            "broken": {part: redact_text(error) for part, error in self.broken.items()},
        }

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
            self.guard("postmortem", self._close, reason, what, error or sys.exception())
        self.sigterm.release()

    def _close(self, reason: str | None, what: str, error: BaseException | None) -> None:
        trace = "".join(traceback.format_exception(error)) if error else ""
        if error is not None and reason is None:
            reason, what = reason_of(error), "".join(traceback.format_exception_only(error)).strip()
        if self.sigterm.received:
            reason, what = "sigterm", SIGTERM
        self.end(reason or "exception", what, trace)
        self._say(reason or "exception")

    def _say(self, reason: str) -> None:
        root = f" after {self.root['rule']}, found at step {self.root['step']}" if self.root else ""
        go_on = f" To go on: {self.resume_command}" if self.resume_command else ""
        said = f"TRL diagnostics: training ended ({reason}) at step {self.state.global_step}{root}.{go_on}"
        console.logger.warning("%s See %s.", said, self.files.path / POSTMORTEM)

    def _left(self, error: BaseException | None) -> None:
        self.close(None, CAUGHT, error)

    def _terminated(self, frame: FrameType | None) -> None:
        if not self.ended:
            write = self.end if self.sigterm.is_last else self._write_postmortem
            self.guard("postmortem", write, "sigterm", SIGTERM, "".join(traceback.format_stack(frame)))
            self._say("sigterm")

    def _hangs(self, hang: dict[str, Any]) -> None:
        """Called by the watchdog's thread."""
        stack = "".join(traceback.format_stack(sys._current_frames().get(self.thread)))
        what = f"No sign of life for {hang['seconds']:.0f} s, {DOING[hang['doing']]}; last step {hang['step']}."
        with (self.files.path / HANG_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{datetime.now().isoformat(timespec='seconds')} {what}\n")
            log.flush()
            faulthandler.dump_traceback(log)
            log.write("\n")
        with self.lock:
            if self.ended:
                return
            self.hangs.append({**hang, "stack": redact_text(stack)})
            self._write_postmortem("hang", what, stack)
        where = self.files.path / HANG_LOG
        console.logger.warning("TRL diagnostics: %s It waits here:\n%sAll threads are in %s.", what, stack, where)

    def _moves(self, hang: dict[str, Any]) -> None:
        """Called by the watchdog's thread when the training goes on after a hang."""
        with self.lock:
            if self.ended:
                return
            self.hangs[-1]["seconds"] = hang["seconds"]
            (self.files.path / POSTMORTEM).unlink(missing_ok=True)
        console.logger.warning(
            "TRL diagnostics: training goes on after %.0f s without a sign of life", hang["seconds"]
        )
