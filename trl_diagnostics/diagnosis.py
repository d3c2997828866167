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

"""A finished run goes in; what the rules find in it, and what else is known of it, comes out as a `Diagnosis`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .ending import checkpoints_of_run, judged_by_run, read_postmortem, rules_of
from .engine.engine import Engine
from .engine.finding import Finding, Record
from .engine.rule import Rule
from .metrics.names import MetricMap
from .sinks.run_dir import MEMORY, START, numbered, read_json
from .sources.advice import Advice, advise
from .sources.checkpoints import CHECKPOINT, SECONDS, Checkpoint, checkpoints, global_step, of_one_run
from .sources.logs import Run
from .sources.rows import section
from .sources.run_files import RUN_DIRECTORY
from .sources.signal_budget import add_up


OF_A_RESUME = {"number", "records", "with_state"}


@dataclass(frozen=True)
class Diagnosis:
    """
    What is known of a run.

    Args:
        run ([`Run`]):
            The run itself.
        findings (`tuple[Finding, ...]`):
            Findings that started and resolved, in order.
        coverage (`dict[str, str]`):
            As given by [`Engine.coverage`].
        records (`int`):
            Number of train records.
        last_step (`int`):
            Optimizer step of the last record.
        broken (`dict[str, str]`):
            Parts of the diagnostics that did not work, with the reason.
        postmortem (`dict`, *optional*):
            How the run ended, where that is known.
        checkpoints (`tuple[Checkpoint, ...]`):
            Checkpoints on disk, earliest first.
        advice ([`Advice`], *optional*):
            Which of them to go on from and which to ship.
        rules (`tuple[Rule, ...]`):
            The rules that judged the run.
        groups (`dict[str, int]`):
            Groups of completions by what they teach, see [`SignalBudget`].
    """

    run: Run
    findings: tuple[Finding, ...]
    coverage: dict[str, str]
    records: int
    last_step: int
    broken: dict[str, str] = field(default_factory=dict)
    postmortem: dict | None = None
    checkpoints: tuple[Checkpoint, ...] = ()
    advice: Advice | None = None
    rules: tuple[Rule, ...] = ()
    groups: dict[str, int] = field(default_factory=dict)


def diagnose(
    run: Run, rules: list[Rule] | None = None, on_record: Callable[[Record], None] | None = None
) -> Diagnosis:
    """
    Judge a finished run as the callback judged it, or would have.

    Args:
        run ([`Run`]):
            As given by [`open_run`].
        rules (`list[Rule]`, *optional*):
            Rules to judge by. Defaults to those of the run: the built-in ones with the alerts, the folder of rules and
            the muted rules that its metadata names.
        on_record (`Callable[[Record], None]`, *optional*):
            Called with each record that was judged, to show how far it is.

    Returns:
        [`Diagnosis`]: for a run directory its findings are those in `findings.jsonl`.
    """
    replay, findings, last_step, groups = Replay(run, rules), [], 0, Counter()
    for record in run.records():
        findings += replay.take(record)
        last_step = record.step
        add_up(groups, record.metrics)
        if on_record:
            on_record(record)
    found = judged_by_run(_checkpoints(run), run, findings, replay.rules)
    return Diagnosis(
        run=run,
        findings=tuple(findings),
        coverage=replay.engine.coverage(),
        records=replay.engine.records,
        last_step=last_step,
        broken=replay.broken,
        postmortem=read_postmortem(run.path, judged=found) if run.kind == RUN_DIRECTORY else None,
        checkpoints=tuple(found),
        advice=advise(found) if found else None,
        rules=tuple(replay.rules),
        groups=groups,
    )


class Replay:
    """
    Judges the records of a run one by one as the callback judged them, or would have, resumes included.

    Args:
        run ([`Run`]):
            As given by [`open_run`].
        rules (`list[Rule]`, *optional*):
            As for [`diagnose`].

    Attributes:
        engine ([`Engine`]):
            What judges now.
        rules (`list[Rule]`):
            What it judges by.
        broken (`dict[str, str]`):
            What did not work, with the reason.
    """

    def __init__(self, run: Run, rules: list[Rule] | None = None):
        self.run, self._given, self.broken = run, rules, {}
        self._resumes, self._taken = _resumes(run), 0
        self.rules = self._chosen(run.metadata)
        # the arguments of a run are those of its last start
        first = _config(run.metadata) if self._resumes else run.config
        self.engine = _engine(run, first, self.rules)

    def take(self, record: Record) -> list[Finding]:
        """Judge the next record; returns the findings that start or resolve with it."""
        while self._resumes and self._resumes[0]["resumed"]["records"] <= self._taken:
            metadata = self._resumes.pop(0)
            self.rules = self._chosen(metadata)
            self.engine = _go_on(self.run, self.engine, metadata, self.rules)
        self._taken += 1
        return self.engine.update(record)

    def _chosen(self, metadata: dict[str, Any]) -> list[Rule]:
        return rules_of(metadata, self.broken) if self._given is None else self._given


def _engine(run: Run, config: dict[str, Any], rules: list[Rule]) -> Engine:
    return Engine(rules, run.trainer, config, MetricMap(run.trainer, run.trl_version))


def _resumes(run: Run) -> list[dict[str, Any]]:
    """Metadata of each time the run was resumed, in order; a file may be torn or of somebody else."""
    if run.kind != RUN_DIRECTORY:
        return []
    found = [read_json(file) or {} for file in run.path.glob(f"{START}*.json")]
    known = [data for data in found if OF_A_RESUME <= section(data, "resumed").keys() and _config(data)]
    if not _config(run.metadata):  # nobody knows by what the records before the resume were judged
        return []
    stayed: list[dict[str, Any]] = []
    for data in sorted(known, key=lambda data: data["resumed"]["number"]):
        # one from an earlier checkpoint cut off what came after a later one
        stayed = [one for one in stayed if one["resumed"]["records"] <= data["resumed"]["records"]]
        stayed.append(data)
    return stayed


def _config(metadata: dict[str, Any]) -> dict[str, Any]:
    return section(section(metadata, "diagnostics"), "config")


def _go_on(run: Run, before: Engine, metadata: dict[str, Any], rules: list[Rule]) -> Engine:
    """A resumed run has a configuration of its own, and what the rules remember is in the checkpoint."""
    engine, resumed = _engine(run, _config(metadata), rules), metadata["resumed"]
    memory = read_json(run.path / numbered(MEMORY, resumed["number"]))
    if resumed["with_state"]:
        engine.load_state_dict(memory["engine"] if memory else before.state_dict())
    return engine


def _checkpoints(run: Run) -> list[Checkpoint]:
    if run.kind == RUN_DIRECTORY:
        return checkpoints_of_run(run.path, run.metadata, SECONDS)
    if run.path.name != "trainer_state.json":
        return []
    folder = run.path.parent
    match = CHECKPOINT.fullmatch(folder.name)
    if match:  # later ones are not in its log, unless theirs cannot be read
        found = checkpoints(folder.parent)
        return [one for one in found if one.step <= int(match[1]) or "trainer state" in one.missing]
    found = checkpoints(folder)
    return of_one_run(found, global_step(run.path) or found[-1].step) if found else []
