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

"""Checkpoints and what their run logged go in; which of them to go on from and which to ship comes out, with the reason."""

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

from ..engine.finding import Finding, Record, Severity
from ..engine.history import median
from ..engine.needs import look_back, since_start
from ..engine.rule import Rule
from ..metrics.names import MetricMap
from ..words import count
from .checkpoints import Checkpoint


WINDOW = 20  # logs before a checkpoint that say how training was going
FEWEST = 8  # logs below which they say nothing
FAR = 5.0  # times the noise of a log: more is another level
UNSETTLED = 3.0  # times the usual noise
MOST_REASONS = 4  # against checkpoints, in a sentence
PROBE = "nonfinite_parameters"
PROBED = "the probe of that step found no weights that are NaN or infinite"
STEP_OF_NOISE = 0.954  # median distance of neighbours in Gaussian noise of standard deviation 1

# What tells how good a model is, best first, and whether more is better. The loss of a run with rewards says little.
EVALUATIONS = (("eval_reward", True), ("eval_loss", False))
TRAININGS = (("reward", True), ("loss", False))


@dataclass(frozen=True)
class Advice:
    """
    Which checkpoints to use.

    Args:
        go_on ([`Checkpoint`] or `None`):
            The one to resume from; `None` where none is fit.
        why_go_on (`str`):
            The reason, a sentence.
        ship ([`Checkpoint`] or `None`):
            The best model; `None` where none is fit.
        why_ship (`str`):
            The reason, a sentence.
    """

    go_on: Checkpoint | None
    why_go_on: str
    ship: Checkpoint | None
    why_ship: str


class _Level:
    """Where the last logs of one metric are, and the best level it had before."""

    def __init__(self, metric: str, more_is_better: bool):
        self.metric, self.sign = metric, 1 if more_is_better else -1
        self.points: deque[float] = deque(maxlen=WINDOW)
        self.count, self.best = 0, -math.inf

    def see(self, value: float | None) -> None:
        if value is None or not math.isfinite(value):
            return
        self.points.append(value)
        self.count += 1
        if self.count % WINDOW == 0:
            self.best = max(self.best, self.sign * median(list(self.points)))

    def median(self) -> float:
        return median(list(self.points))

    def noise(self) -> float:
        """Standard deviation of a log, from its neighbours, so that a trend does not count."""
        return median([abs(b - a) for a, b in pairwise(self.points)]) / STEP_OF_NOISE

    def fall(self) -> str:
        """What speaks against the level, in words."""
        behind = self.best - self.sign * self.median()
        if math.isfinite(self.best) and behind > FAR * self.noise() and behind > 0.1 * abs(self.best):
            return f"{self.metric} was {self.median():.3g}, after {self.sign * self.best:.3g} before"
        return ""


class _Seen:
    """What the records of a run have said so far about its checkpoints."""

    def __init__(self, measures: list[tuple[str, bool]]):
        self.measures, self.levels = measures, [_Level(*training) for training in TRAININGS]
        self.evaluated: dict[str, tuple[int, float]] = {}
        self.logged = {phase: array("q") for phase in ("train", "eval")}  # steps
        self.probed = 0  # last step at which a probe found all weights finite

    def see(self, record: Record) -> None:
        if record.phase in self.logged:
            self.logged[record.phase].append(record.step)
        if record.metrics.get(PROBE) == 0:
            self.probed = record.step
        if record.phase == "train":
            for level in self.levels:
                if level.metric in record.metrics:
                    level.see(record.metrics[level.metric])
        for metric, _ in self.measures:
            value = record.metrics.get(metric)
            if value is not None and math.isfinite(value):
                self.evaluated[metric] = (record.step, value)

    def level(self) -> _Level | None:
        """What tells how training is going, if there were enough logs."""
        return next((level for level in self.levels if len(level.points) >= FEWEST), None)

    def trusted(self, finding: Finding, rules: dict[str, Rule]) -> int:
        """The step up to which the weights are from before a finding: of the first log to which it may be due."""
        steps = self.logged["eval" if finding.metric.startswith("eval_") else "train"]
        if not steps or steps[0] > finding.first_step:  # what was logged before is not known
            return finding.first_step - 1
        rule, before = rules.get(finding.rule), bisect_left(steps, finding.first_step)
        points = look_back(rule.condition.test, rule.window) if rule else 1
        return steps[before - points] if before >= points else 0


def judge_checkpoints(
    found: Iterable[Checkpoint],
    records: Iterable[Record] = (),
    findings: Iterable[Finding] = (),
    config: dict[str, Any] | None = None,
    rules: Iterable[Rule] = (),
    metric_map: MetricMap | None = None,
) -> list[Checkpoint]:
    """
    Add to checkpoints what their run says about them.

    A checkpoint is suspect if a high or critical finding of a stable rule was going on when it was saved, or if the
    reward (without one, the loss) of the last logs was far from its best before, or scattered far more than usual. It is
    too close to such a finding if that may be due to logs from before the checkpoint. Nothing is said of those that are
    from another run.

    Args:
        found (`Iterable[Checkpoint]`):
            As given by [`checkpoints`].
        records (`Iterable[Record]`, *optional*):
            What the run logged, in order; read once, a few numbers and the steps are kept.
        findings (`Iterable[Finding]`, *optional*):
            Findings that started and resolved.
        config (`dict`, *optional*):
            Training arguments, of which `metric_for_best_model` and `greater_is_better` count.
        rules (`Iterable[Rule]`, *optional*):
            Rules of the findings, which say how many logs they look back; it is one for a finding without its rule.
        metric_map ([`MetricMap`], *optional*):
            Names of the trainer's metrics, under one of which `metric_for_best_model` may be.

    Returns:
        `list[Checkpoint]`: the same, by step.
    """
    found = sorted(found, key=lambda checkpoint: checkpoint.step)
    found, foreign = [one for one in found if not one.foreign], [one for one in found if one.foreign]
    seen = _Seen(_evaluations(config or {}, metric_map))
    by_name = {rule.name: rule for rule in rules}
    episodes, rest = _episodes(findings, by_name), iter(records if found else ())
    record = next(rest, None)
    judged, noises = [], []
    for i, checkpoint in enumerate(found):
        while record is not None and record.step <= checkpoint.step:
            seen.see(record)
            record = next(rest, None)
        level = seen.level()
        noises.append(level.noise() if level else 0.0)
        last = found[i - 1].step if i else 0
        score = _evaluation(seen.measures, seen.evaluated, last) or _training(level, checkpoint.step)
        doubts = [_said(one) for one, end in episodes if one.first_step <= checkpoint.step < end]
        doubts += [level.fall()] if level and level.fall() else []
        judged.append(replace(checkpoint, suspect=tuple(doubts), **score, **_probed(checkpoint, seen)))
    last_episode = max((finding.first_step for finding, _ in episodes), default=0)
    while record is not None and record.step <= last_episode:
        seen.see(record)
        record = next(rest, None)
    until = [(one, seen.trusted(one, by_name)) for one, _ in episodes]
    judged = [_with_too_close(checkpoint, until) for checkpoint in _with_unsettled(judged, noises)]
    return sorted([*judged, *foreign], key=lambda checkpoint: checkpoint.step)


def _said(finding: Finding) -> str:
    return f"{finding.rule} since {f'step {finding.first_step}' if finding.first_step else 'the start'}"


def _probed(checkpoint: Checkpoint, seen: _Seen) -> dict[str, Any]:
    if seen.probed != checkpoint.step:
        return {}
    return {
        "probed": True,
        "note": checkpoint.note if checkpoint.finite is not None else f"{checkpoint.note}; {PROBED}",
    }


def _with_too_close(checkpoint: Checkpoint, until: list[tuple[Finding, int]]) -> Checkpoint:
    near = [_said(finding) for finding, last in until if last < checkpoint.step < finding.first_step]
    return replace(checkpoint, too_close=tuple(near))


def _evaluations(config: dict[str, Any], metric_map: MetricMap | None) -> list[tuple[str, bool]]:
    """The metrics of evaluation that tell how good a model is; the user's own choice first."""
    own = config.get("metric_for_best_model")
    if not own:
        return list(EVALUATIONS)
    metric = own if own.startswith("eval_") else f"eval_{own}"
    metric = (metric_map or MetricMap("unknown")).canonical(metric)
    return [(metric, bool(config.get("greater_is_better"))), *EVALUATIONS]


def _evaluation(measures: list[tuple[str, bool]], evaluated: dict, last: int) -> dict[str, Any]:
    """The best known measure of an evaluation after the checkpoint before; that one was judged by what came earlier."""
    for metric, more_is_better in measures:
        step, value = evaluated.get(metric, (0, 0.0))
        if step > last:
            return {"score": value, "scored_by": metric, "scored_at": step, "more_is_better": more_is_better}
    return {}


def _training(level: _Level | None, step: int) -> dict[str, Any]:
    if level is None:
        return {}
    score = {"score": level.median(), "scored_by": level.metric, "scored_at": step, "noise": level.noise()}
    return {**score, "more_is_better": level.sign > 0}


def _episodes(findings: Iterable[Finding], rules: dict[str, Rule]) -> list[tuple[Finding, float]]:
    """
    What makes weights suspect, with its last step. What changed at a resume is not about the weights, and what says that
    something has never happened was so from the start.
    """
    grave: dict[tuple[str, str, int], tuple[Finding, float]] = {}
    for finding in findings:
        key = (finding.rule, finding.metric, finding.first_step)
        if finding.state == "resolved" and key in grave:
            grave[key] = (finding, finding.step)
        elif finding.level >= Severity.HIGH and finding.status == "stable" and not finding.metric.startswith("resume"):
            grave[key] = (finding, math.inf)
    always = {name for name, rule in rules.items() if since_start(rule.condition.test)}
    return [(replace(one, first_step=0) if one.rule in always else one, end) for one, end in grave.values()]


def _with_unsettled(judged: list[Checkpoint], noises: list[float]) -> list[Checkpoint]:
    usual = median([noise for noise in noises if noise] or [0.0])
    return [
        replace(checkpoint, suspect=(*checkpoint.suspect, "the metrics scattered far more than usual"))
        if noise > UNSETTLED * usual > 0
        else checkpoint
        for checkpoint, noise in zip(judged, noises, strict=True)
    ]


def advise(judged: Iterable[Checkpoint]) -> Advice:
    """
    Which checkpoint to go on from and which to ship.

    Args:
        judged (`Iterable[Checkpoint]`):
            As given by [`judge_checkpoints`].

    Returns:
        [`Advice`]: to go on, the newest that is complete, not known to be NaN, not suspect and not too close to what
        went wrong; to ship, the best of those that are sound by evaluation, without one by the last training logs. Among
        equals the newest.
    """
    judged = sorted(judged, key=lambda checkpoint: checkpoint.step)
    if not judged:
        return Advice(None, "There is no checkpoint.", None, "There is no checkpoint.")
    sound = [one for one in judged if one.usable and not one.foreign and not one.suspect]
    if not sound:
        why = f"None is fit: {_all_against(judged)}."
        return Advice(None, why, None, why)
    whole = [checkpoint for checkpoint in sound if checkpoint.resumable and not checkpoint.too_close]
    ship, why_ship = _best(sound)
    return Advice(whole[-1] if whole else None, _why_go_on(judged, sound, whole), ship, why_ship)


def _all_against(checkpoints: list[Checkpoint]) -> str:
    """The reasons against neighbours, each once."""
    groups = [(why, list(same)) for why, same in groupby(checkpoints, _against)]
    steps = [f"{same[0].step} to {same[-1].step}" if len(same) > 1 else str(same[0].step) for _, same in groups]
    said = [f"step {span}: {why}" for span, (why, _) in zip(steps, groups, strict=True)]
    more = (
        [f"{count(len(said) - MOST_REASONS, 'other reason')} against earlier ones"] if len(said) > MOST_REASONS else []
    )
    return "; ".join(more + said[-MOST_REASONS:])


def _against(checkpoint: Checkpoint) -> str:
    if checkpoint.foreign:
        return checkpoint.foreign
    if checkpoint.finite is False or "weights" in checkpoint.missing:
        return checkpoint.note or "no weights"
    missing = [part for part in checkpoint.missing if part != "random states"]
    doubts = [*checkpoint.suspect, *(f"too close to {one}" for one in checkpoint.too_close)]
    return ", ".join(doubts) or f"{' and '.join(missing)} missing"


def _why_go_on(judged: list[Checkpoint], sound: list[Checkpoint], whole: list[Checkpoint]) -> str:
    if not whole:
        return f"None is fit to go on from: step {sound[-1].step}: {_against(sound[-1])}."
    later = [checkpoint for checkpoint in judged if checkpoint.step > whole[-1].step]
    known = "finite" if whole[-1].finite else f"of weights that nobody has checked ({whole[-1].note})"
    if not later:
        return f"The last one; it is complete and {known}."
    return f"The last one that is complete and {known} with nothing against it ({_all_against(later)})."


def _best(sound: list[Checkpoint]) -> tuple[Checkpoint, str]:
    evaluated = [checkpoint for checkpoint in sound if checkpoint.scored_by.startswith("eval_")]
    by = (evaluated or [checkpoint for checkpoint in sound if checkpoint.score is not None] or sound)[-1].scored_by
    rivals = [checkpoint for checkpoint in sound if checkpoint.scored_by == by]
    if not by:
        return sound[-1], "The last one with nothing against it; too little was logged to compare them."
    sign = 1 if rivals[0].more_is_better else -1
    top = max(rivals, key=lambda checkpoint: sign * checkpoint.score)
    # half the noise of a log is about two standard errors of a median of 20
    best = [c for c in rivals if sign * (top.score - c.score) <= 0.5 * max(c.noise, top.noise)][-1]
    number = f"{by} {best.score:.4g}"
    if evaluated:
        return best, f"The best {by} of {len(rivals)}: {best.score:.4g} at step {best.scored_at}."
    near = "" if best is top else f", as good as {top.score:.4g} at step {top.step}"
    return best, f"No evaluation was logged; {number} in the last logs before it{near}."
