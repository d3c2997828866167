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

"""`DiagnosticsCallback`: what a training run logs goes in; warnings, files and a stop come out."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from .engine.engine import Engine
from .engine.finding import DiagnosticsError, Finding, Record, Severity
from .engine.rulebook import collect_rules, with_texts, without_texts
from .guard import Guard
from .metadata import about_diagnostics, batch_loss, config_of, own_memory, training_loop, trl_version
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap, trainer_of
from .options import check_choice, check_flag, check_function, check_path, check_seconds
from .run_record import OPEN, RunRecord, close_left
from .sinks import console
from .sinks.exits import Sigterm, release_left
from .sinks.postmortem import CAUGHT
from .sinks.redact import redact, redact_name, redact_text
from .sinks.run_dir import PREFLIGHT, RunDir, take_unused
from .sinks.training_loop import TrainingLoop
from .sources.continuity import Continuity
from .sources.gradients import drop_gradients
from .sources.preflight import look_before
from .sources.probes import Probes
from .sources.signal_budget import add_up, sentence
from .sources.step_clock import StepClock, generate_every
from .stop import BAD_STEP, STOP_SEVERITIES, Stop, fail_together


# the state of a checkpoint has these as they are
FLAGS = "stop_on_critical enable_live_warnings fail_on_resume_mismatch checkpoint_on_sigterm save_git_diff preflight"


class DiagnosticsCallback(TrainerCallback, ExportableState):
    """
    Watches a post-training run of TRL and says in plain words what goes wrong, why, and what to change.

    It reads what the trainer logs and judges it with rules (YAML files). Training with it gives the same weights as
    without: it changes nothing but, with `stop_on_critical`, the moment at which training ends. Its own errors never
    reach the training loop.

    Args:
        run_dir (`str` or `Path`, *optional*):
            Folder for everything that is written. Defaults to `<output_dir>/diagnostics`. While another training writes
            into it, a number is put behind its name.
        stop_on_critical (`bool`, *optional*, defaults to `False`):
            Whether a finding of a stable rule ends training, on all ranks at the same step. Resume from the checkpoint
            it names.
        stop_severity (`str`, *optional*, defaults to `"high"`):
            Lowest severity that stops: `"critical"`, `"high"`, `"medium"`, `"low"`.
        enable_live_warnings (`bool`, *optional*, defaults to `True`):
            Whether findings are shown as they happen. The summary at the end is always shown.
        custom_alerts (`list[str]`, *optional*):
            Inline alerts, for example `"grpo: kl > 5 for 3 steps -> high: KL at {value:.1f}"`.
        custom_heuristics_dir (`str` or `Path`, *optional*):
            Folder of rule files of your own. A file with the name of a built-in rule replaces it.
        disable (`list[str]`, *optional*):
            Names or globs of rules to mute, for example `["kto_*"]`.
        on_finding (`Callable[[Finding], None]`, *optional*):
            Called on the main process with each finding as it starts and resolves.
        fail_on_resume_mismatch (`bool`, *optional*, defaults to `False`):
            Whether a resume with other arguments, data, model, tokenizer or number of processes than before, or from an
            incomplete checkpoint, raises before the first step. Harmless differences do not count. Without it they are
            findings only.
        hang_timeout (`float`, *optional*, defaults to `300.0`):
            Seconds without a step, batch of an evaluation or finished save from which on a training may be said to hang.
            It also has to be 5 times the longest that the same thing took lately, and 3 times this number for what has
            not been seen to end yet.
        checkpoint_on_sigterm (`bool`, *optional*, defaults to `False`):
            Whether SIGTERM, as a cluster sends it before it takes a machine back, ends training at the next step with a
            checkpoint instead of at once. The process then ends as it would have without. With several processes they
            ask each other after each step.
        save_git_diff (`bool`, *optional*, defaults to `False`):
            Whether `run_metadata_start.json` gets the changes that are not committed, up to 200 kB, without secrets.
        preflight (`bool`, *optional*, defaults to `True`):
            Whether model, data and reward functions are looked at before the first step, in 10 seconds at most. Reward
            functions are called with a few prompts, in a process of their own.

    Raises:
        [`DiagnosticsError`]: if an argument, alert or rule file is wrong; at construction, with its place. With
            `fail_on_resume_mismatch`, when training begins, with what differs.

    Example:

    ```python
    from trl import DPOTrainer
    from trl_diagnostics import DiagnosticsCallback

    trainer = DPOTrainer(..., callbacks=[DiagnosticsCallback()])
    trainer.train()
    ```
    """

    def __init__(
        self,
        *,
        run_dir: str | Path | None = None,
        stop_on_critical: bool = False,
        stop_severity: str = "high",
        enable_live_warnings: bool = True,
        custom_alerts: Sequence[str] | None = None,
        custom_heuristics_dir: str | Path | None = None,
        disable: Sequence[str] | None = None,
        on_finding: Callable[[Finding], None] | None = None,
        fail_on_resume_mismatch: bool = False,
        hang_timeout: float = 300.0,
        checkpoint_on_sigterm: bool = False,
        save_git_diff: bool = False,
        preflight: bool = True,
    ):
        check_path("run_dir", run_dir)
        check_path("custom_heuristics_dir", custom_heuristics_dir)
        check_choice("stop_severity", stop_severity, STOP_SEVERITIES)
        check_function("on_finding", on_finding, "one finding")
        check_seconds("hang_timeout", hang_timeout)
        self.run_dir = run_dir
        self.stop_on_critical = stop_on_critical
        self.stop_severity = Severity[stop_severity.upper()]
        self.enable_live_warnings = enable_live_warnings
        self.custom_alerts = () if custom_alerts is None else redact(custom_alerts)  # it is in every finding
        self.disable = () if disable is None else disable
        self.custom_heuristics_dir = custom_heuristics_dir
        self.on_finding = on_finding
        self.fail_on_resume_mismatch = fail_on_resume_mismatch
        self.hang_timeout = hang_timeout
        self.checkpoint_on_sigterm = checkpoint_on_sigterm
        self.save_git_diff = save_git_diff
        self.preflight = preflight
        for option in FLAGS.split():
            check_flag(option, vars(self)[option])
        chosen = self.custom_alerts, custom_heuristics_dir, self.disable
        self.rules = collect_rules(*chosen, check_metric, check_rule, redact_text)
        self.findings: list[Finding] = []  # of the first episodes of each rule; findings.jsonl has all
        self.groups: Counter[str] = Counter()  # of completions, by what they teach
        self.episodes: Counter[str] = Counter()  # how many each rule had on each metric
        self._guard = Guard()
        self.broken = self._guard.broken  # part of the diagnostics -> its error
        # With restore_callback_states_from_checkpoint the Trainer makes a copy of this object and sets these two.
        self.saved: dict[str, Any] | None = None
        self.had_on_finding = False
        self.engine: Engine | None = None
        self.metric_map: MetricMap | None = None
        self.files: RunDir | None = None
        self.run: RunRecord | None = None  # while training, on the main process
        self.sigterm: Sigterm | None = None  # while training
        self.clock = StepClock()
        self.probes: Probes | None = None  # on ranks that have something to do with what is measured
        self.stop = self._new_stop()
        self.continuity = Continuity()
        self.resumed = False  # with the state of a checkpoint

    def state(self) -> dict[str, Any]:
        """What the Trainer puts into a checkpoint: the arguments, and everything the rules remember."""
        memory = self._guard("checkpoint state", self._memory)
        return {
            "args": self._arguments(),
            "attributes": {"saved": memory, "had_on_finding": self.on_finding is not None},
        }

    def _arguments(self) -> dict[str, Any]:
        folder = self.custom_heuristics_dir
        return {
            **{name: vars(self)[name] for name in [*FLAGS.split(), "hang_timeout"]},
            "run_dir": None if self.run_dir is None else str(self.run_dir),
            "stop_severity": str(self.stop_severity),
            "custom_alerts": list(self.custom_alerts),
            "custom_heuristics_dir": None if folder is None else str(folder),
            "disable": list(self.disable),
        }

    def _memory(self) -> dict[str, Any] | None:
        if self.engine is None:
            return self.saved
        return {
            "engine": self.engine.state_dict(),
            "findings": without_texts(self.findings),
            "episodes": dict(self.episodes),
            "groups": dict(self.groups),
            "logged": {phase: list(steps) for phase, steps in self.stop.logged.items()},
            "lines": dict(self.files.lines),
            "resumes": self.files.resumes,
            "start_id": self.files.start_id,
            "start": self.run.start if self.run else {},
            "continuity": self.continuity.state_dict(),
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.findings, self.episodes, self._guard, self.engine = [], Counter(), Guard(), None
        self.groups = Counter()
        self.broken = self._guard.broken
        self.stop, self.continuity, mismatch = self._new_stop(), Continuity(), None
        # A checkpoint from before this callback was added has no entry for it, without which the Trainer cannot save.
        state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self.run = self.sigterm = self.probes = None
        self._guard("start", self._begin, args, state)
        trainer = training_loop().get("self")  # None where a test calls this by hand
        if self.run is not None:
            mismatch = self._guard("provenance", self._write_start, args, state, kwargs)
            if self.preflight and state.global_step == 0 and trainer is not None:
                self._guard("preflight", self._look_before, trainer, args, state)
        if self.engine is not None and (state.is_world_process_zero or self.stop_on_critical):
            self.clock = StepClock(generate_every(self.engine.config))
            self.probes = Probes(args, self.metric_map, self.clock, self._guard)
            self._guard("weights probe", self.probes.begin, state.global_step, kwargs.get("model"), trainer)
        if self.stop.because and args.world_size == 1:  # of what was found before the first step
            control.should_training_stop = True
        if self.fail_on_resume_mismatch and state.global_step > 0:
            fail_together(mismatch, args)

    def _begin(self, args: TrainingArguments, state: TrainerState) -> None:
        classes = [cls.__name__ for cls in type(args).__mro__]
        self.metric_map = MetricMap(trainer_of(classes) or "unknown", trl_version())
        loop = TrainingLoop(state)
        close_left(args, loop)
        self.files = self._run_dir(args, state)
        self.engine = Engine(self.rules, self.metric_map.trainer, config_of(args, state), self.metric_map)
        memory = self._guard("state from the checkpoint", self._restore, state) if state.global_step > 0 else None
        self.resumed = memory is not None
        if state.global_step > 0:
            self.continuity.resume(state.global_step)
        if state.is_world_process_zero:
            console.set_up_logger()
            self._guard("run directory", self._begin_record, args, state, memory)
            self._greet(args, state)
            return
        release_left(loop)
        if self.checkpoint_on_sigterm:
            self.sigterm = Sigterm(lambda frame: None, loop, postpone=True)
            self.sigterm.install()

    def _run_dir(self, args: TrainingArguments, state: TrainerState) -> RunDir:
        wanted = Path(args.output_dir) / "diagnostics" if self.run_dir is None else Path(self.run_dir)
        files = take_unused(wanted) if state.is_world_process_zero else RunDir(wanted)
        if files.path != wanted:
            console.logger.warning("TRL diagnostics: another training writes into %s, this is %s", wanted, files.path)
        return files

    def _begin_record(self, args: TrainingArguments, state: TrainerState, memory: dict[str, Any] | None) -> None:
        known = self.engine, self.rules, self.findings, self.groups, self._guard
        record = RunRecord(self.files, args, state, *known, self.hang_timeout, self.checkpoint_on_sigterm)
        try:
            record.begin(memory)
        except OSError as error:
            self.files.release()
            what = "nothing of this run is written down, and what is there stays as it is. For a record make room there, or"
            raise DiagnosticsError(f"{error}; {what} choose another run_dir, and start again") from error
        self.run, self.sigterm = record, record.sigterm

    def _write_start(self, args: TrainingArguments, state: TrainerState, parts: dict[str, Any]) -> str | None:
        """Write what is known of the run, and judge whether it is the one that was saved; what differs, in words."""
        own = about_diagnostics(self.engine.config, self.custom_alerts, self.custom_heuristics_dir, self.disable)
        record, mismatch = self.run.write_start(self.metric_map.trainer, own, parts, self.save_git_diff)
        if record is not None:
            self._take(record, args, state)
        return mismatch

    def _look_before(self, trainer: Any, args: TrainingArguments, state: TrainerState) -> None:
        seen = look_before(trainer, self._guard)
        self.files.write_metadata(PREFLIGHT, {"seconds": seen.seconds, "unseen": redact(seen.unseen)})
        console.logger.info(console.looked_before(seen.seconds, seen.unseen))
        self._take(Record(0, time.time(), "preflight", seen.metrics), args, state)

    def _greet(self, args: TrainingArguments, state: TrainerState) -> None:
        self._guard("coverage.json", self.files.write_coverage, self.engine.coverage())
        console.greet(self.engine, trl_version(), self.files.path, args, state)
        if self.had_on_finding and self.on_finding is None:
            console.logger.warning(console.LOST_ON_FINDING)

    def _restore(self, state: TrainerState) -> dict[str, Any] | None:
        """Take over what the checkpoint remembers; the Trainer itself only does so on request."""
        memory = own_memory(state.stateful_callbacks[type(self).__name__], self._arguments())
        if memory is None:
            return None
        self.engine.load_state_dict(memory["engine"])
        if "continuity" in memory:  # a checkpoint of an earlier release has none
            self.continuity.load_state_dict(memory["continuity"])
        self.episodes, self.groups = Counter(memory["episodes"]), Counter(memory.get("groups"))
        for phase, steps in memory["logged"].items():
            self.stop.logged[phase].extend(steps)
        self.findings += with_texts(memory["findings"], self.rules)
        return memory

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs=None, **kwargs):
        if self.engine is None or not state.is_world_process_zero:
            return
        self.stop.notice_ignored(state)
        logs = logs if isinstance(logs, dict) else {}
        safe = {redact_name(key) if type(key) is str else key: value for key, value in logs.items()}
        record = self._guard("metric names", self.probes.record, state.global_step, safe, kwargs.get("model"))
        if record is None:
            return
        self._take(record, args, state)
        if (continued := self._guard("continuity", self.continuity.update, record)) is not None:
            self._take(continued, args, state)
        if self.resumed and record.phase == "train":
            where = state.global_step, args.output_dir, self.files.path
            self._guard("stop", self.stop.consider_open, self.engine, self.findings, *where)
        if self.stop.because and args.world_size == 1:
            control.should_training_stop = True

    def _take(self, record: Record, args: TrainingArguments, state: TrainerState) -> None:
        """Write a record down and judge it."""
        self._guard("metrics.jsonl", self.files.write_record, record)
        if self.run is not None:
            self.run.records.append(record)
        self.stop.log(record)
        add_up(self.groups, record.metrics)
        for finding in self._guard("rules", self.engine.update, record) or ():
            self._report(finding, args, state)

    def _report(self, finding: Finding, args: TrainingArguments, state: TrainerState) -> None:
        self._guard("findings.jsonl", self.files.write_finding, finding)
        key = f"{finding.rule}|{finding.metric}"
        self.episodes[key] += finding.state == "started"
        if self.episodes[key] <= console.MOST_TOLD:  # one that comes and goes must not fill screen and memory
            self.findings.append(finding)
            if self.enable_live_warnings and finding.level > Severity.INFO:
                self._guard("live warnings", console.show, finding, self.episodes[key] == console.MOST_TOLD)
        if self.on_finding:
            self._guard("on_finding", self.on_finding, finding)
        self.stop.consider(finding, finding.step, args.output_dir, self.files.path)

    def _new_stop(self) -> Stop:
        return Stop(self.stop_severity if self.stop_on_critical else None, self.rules, self.findings, self._guard)

    def on_pre_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.batch_ends()
        if self.probes is None:
            return
        step = state.global_step + 1  # the one that is being made
        record = self._guard("gradient probe", self.probes.before_optimizer_step, step, kwargs["model"])
        if record is not None and self.run is not None:
            record.metrics["batch_loss"] = batch_loss()
            self._take(record, args, state)
        if self.probes.step_is_bad and self.stop.by(BAD_STEP):  # all ranks know without asking each other
            drop_gradients(kwargs["model"])
            control.should_training_stop |= args.world_size == 1

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.optimizer_ends()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self.stop_on_critical and args.world_size > 1:
            control.should_training_stop |= self.stop.on_any_rank(args, state)
        if self.checkpoint_on_sigterm and self.stop.on_sigterm(args, self.sigterm):
            control.should_save = control.should_training_stop = True
        self.clock.step_ends()
        if self.probes is not None:
            self.probes.after_step()
        self._beat("save" if control.should_save else "evaluate" if control.should_evaluate else "data")

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.stop.epoch_began = True
        self._beat("data")

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.step_begins()
        self._beat("step")

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.batch_ends()
        self._beat("step")

    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self._beat("evaluate")

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.rest_ends()
        self._beat("save" if control.should_save else "data")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        self.clock.rest_ends()
        self._beat("data")

    def _beat(self, doing: str) -> None:
        if self.run is not None:
            self.run.beat(doing)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        if self.engine is not None and state.is_world_process_zero:
            self._guard("summary", self._end)
        if self.run is not None:
            self._guard("end of the run", self.run.finish, self.stop.because)
        if self.files is not None:
            self.files.release()
        sigterm, self.run, self.sigterm = self.sigterm, None, None
        if self.probes is not None:
            self.probes.end()
        if sigterm is not None:
            sigterm.release()  # one that had to wait ends the process here, or does what the user wants it to

    def __enter__(self):
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        # With restore_callback_states_from_checkpoint the training has a copy of this callback.
        for record in OPEN[:]:
            record.close(None, CAUGHT, error)
            if error is not None and record.sigterm.waits:
                sys.excepthook(kind, error, trace)  # the signal may leave no time for it after the report
            record.report()

    def _end(self) -> None:
        known = self.findings, self.engine.coverage(), self.engine.records, self.broken, self.episodes
        console.logger.info(console.summary(*known, also=sentence(self.groups)))
        self.files.close()
