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

"""Findings go in, the end of a training run on all ranks comes out, with the checkpoint to go on from."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from transformers import TrainerState, TrainingArguments

from .engine.engine import Engine
from .engine.finding import DiagnosticsError, Finding, Record, Severity
from .engine.rule import SEVERITIES, Rule
from .sinks import console
from .sinks.exits import Sigterm
from .sources.advice import advise, judge_checkpoints
from .sources.checkpoints import checkpoints, of_one_run


LOGS_KEPT = 256  # more than any built-in rule looks back
BAD_STEP = "gradients_nonfinite"  # when it stops, the step it speaks of is not taken
STOP_SEVERITIES = SEVERITIES[:-1]  # info says that something odd-looking is normal


class Stop:
    """
    Decides when findings end one training run.

    Args:
        severity (`Severity`, *optional*):
            Lowest severity that stops; `None` never stops.
        rules (`list[Rule]`):
            All rules.
        findings (`list[Finding]`):
            Kept up to date by the callback.
        guard (`Callable`):
            Calls a part of the diagnostics so that its errors do not reach the training loop.
    """

    def __init__(self, severity: Severity | None, rules: list[Rule], findings: list[Finding], guard: Callable):
        self.severity, self.rules, self.findings, self.guard = severity, rules, findings, guard
        self.logged = {phase: deque(maxlen=LOGS_KEPT) for phase in ("train", "eval")}  # steps of the last logs
        self.because: Finding | None = None
        self.ignored = False
        self.epoch_began = False

    def log(self, record: Record) -> None:
        """Remember when the weights were looked at: at logs, and at a step with bad gradients."""
        if "nonfinite_parameters" in record.metrics or record.phase in self.logged:
            self.logged["eval" if record.phase == "eval" else "train"].append(record.step)

    def by(self, name: str) -> bool:
        """Whether a finding of this rule ends training; every rank knows it."""
        return self.severity is not None and any(
            rule.name == name and rule.status == "stable" and rule.severity >= self.severity for rule in self.rules
        )

    def consider(self, finding: Finding, step: int, output_dir: str, run_dir: Path) -> None:
        """Stop because of a finding that just started, if it is one that stops."""
        if self.severity is None or self.because is not None or finding.state != "started":
            return
        if finding.status == "stable" and finding.level >= self.severity:
            self.because = finding
            where = Path(output_dir), step, run_dir
            checkpoint = self.guard("checkpoint search", self._last_good_checkpoint, finding, *where)
            console.logger.warning(console.stopped(finding, step, checkpoint))

    def consider_open(
        self, engine: Engine, findings: list[Finding], step: int, output_dir: str, run_dir: Path
    ) -> None:
        """Stop a run that was resumed while something was wrong with it, and still is."""
        if self.severity is None or self.because is not None:
            return
        holding = engine.open_episodes(holding=True)
        for finding in findings:
            if finding.rule == BAD_STEP:  # the step was not taken, or the weights tell
                continue
            if holding.get((finding.rule, finding.metric)) == finding.first_step:
                self.consider(finding, step, output_dir, run_dir)

    def _last_good_checkpoint(self, finding: Finding, output_dir: Path, step: int, run_dir: Path) -> Path | None:
        grave = replace(finding, severity=str(max(finding.level, Severity.HIGH)))  # what stops makes weights suspect
        logs = [Record(step, 0.0, phase, {}) for phase, steps in self.logged.items() for step in steps]
        logs.sort(key=lambda record: record.step)
        found = of_one_run(checkpoints(output_dir, 0.0), step, run_dir)
        go_on = advise(judge_checkpoints(found, logs, [*self.findings, grave], rules=self.rules)).go_on
        return go_on and go_on.path

    def notice_ignored(self, state: TrainerState) -> None:
        """Say once that the trainer does not listen."""
        # with several processes the stop comes with the step after the next log at the latest
        if self.because and state.global_step > self.because.step + state.logging_steps + 1:
            if not self.ignored:
                console.logger.warning(console.NOT_STOPPED)
            self.ignored = True

    def on_any_rank(self, args: TrainingArguments, state: TrainerState) -> bool:
        """
        Whether all ranks shall leave the loop now. The main process judges; they agree in the step after a log, which
        is the same on all of them, and every rank comes to the end of every step.
        """
        if self.severity is None or not self._follows_a_log(args, state):
            return False
        return bool(self.guard("stop on all ranks", any_rank, self.because is not None, args.device))

    def on_sigterm(self, args: TrainingArguments, sigterm: Sigterm | None) -> bool:
        """Whether SIGTERM came, to any rank: they save together, so they agree on the step after which they do."""
        received = sigterm is not None and sigterm.received
        if args.world_size > 1:
            received = bool(self.guard("checkpoint on SIGTERM", any_rank, received, args.device))
        if received and sigterm is not None:
            sigterm.received = True
        return received

    def _follows_a_log(self, args: TrainingArguments, state: TrainerState) -> bool:
        """Whether this is the first step after a log; the same answer on every rank."""
        began, self.epoch_began = self.epoch_began, False
        if args.logging_strategy != "steps":
            return args.logging_strategy == "epoch" and began
        first = args.logging_first_step and state.global_step == 2
        return first or (state.global_step - 1) % state.logging_steps == 0


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether the flag is set on any rank; all of them must call this."""
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX)
    return bool(flags)


def fail_together(mismatch: str | None, args: TrainingArguments) -> None:
    """
    Leave the training on all ranks; each of them must call this.

    Raises:
        [`DiagnosticsError`]: if the main process, which alone can tell, found a mismatch.
    """
    if any_rank(mismatch is not None, args.device) if args.world_size > 1 else mismatch:
        raise DiagnosticsError(mismatch or "fail_on_resume_mismatch: see the message of the main process")
