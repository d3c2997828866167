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
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from ..engine.finding import Finding, Record, Severity
from ..engine.history import median
from .checkpoints import Checkpoint


WINDOW = 20  # logs before a checkpoint that say how training was going
FEWEST = 8  # logs below which they say nothing
FAR = 5.0  # times the noise of a log: more is another level
UNSETTLED = 3.0  # times the usual noise
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


def judge_checkpoints(
    found: Iterable[Checkpoint],
    records: Iterable[Record] = (),
    findings: Iterable[Finding] = (),
    config: dict[str, Any] | None = None,
) -> list[Checkpoint]:
    """
    Add to checkpoints what their run says about them.

    A checkpoint is suspect if a high or critical finding of a stable rule was going on when it was saved, or if the
    reward (without one, the loss) of the last logs was far from its best before, or scattered far more than usual.

    Args:
        found (`Iterable[Checkpoint]`):
            As given by [`checkpoints`].
        records (`Iterable[Record]`, *optional*):
            What the run logged, in order; read once, a few numbers are kept.
        findings (`Iterable[Finding]`, *optional*):
            Findings that started and resolved.
        config (`dict`, *optional*):
            Training arguments, of which `metric_for_best_model` and `greater_is_better` count.

    Returns:
        `list[Checkpoint]`: the same, by step.
    """
    found = sorted(found, key=lambda checkpoint: checkpoint.step)
    measures, levels = _evaluations(config or {}), [_Level(*training) for training in TRAININGS]
    evaluated: dict[str, tuple[int, float]] = {}
    episodes, rest = _episodes(findings), iter(records)
    record = next(rest, None) if found else None
    judged, noises = [], []
    for i, checkpoint in enumerate(found):
        while record is not None and record.step <= checkpoint.step:
            _see(record, levels, measures, evaluated)
            record = next(rest, None)
        level = next((level for level in levels if len(level.points) >= FEWEST), None)
        noises.append(level.noise() if level else 0.0)
        score = _evaluation(measures, evaluated, found[i - 1].step if i else 0) or _training(level, checkpoint.step)
        doubts = [f"{rule} since step {first}" for rule, first, end in episodes if first <= checkpoint.step < end]
        doubts += [level.fall()] if level and level.fall() else []
        judged.append(replace(checkpoint, suspect=tuple(doubts), **score))
    return _with_unsettled(judged, noises)


def _see(record: Record, levels: list[_Level], measures: list[tuple[str, bool]], evaluated: dict) -> None:
    if record.phase == "train":
        for level in levels:
            if level.metric in record.metrics:
                level.see(record.metrics[level.metric])
    for metric, _ in measures:
        value = record.metrics.get(metric)
        if value is not None and math.isfinite(value):
            evaluated[metric] = (record.step, value)


def _evaluations(config: dict[str, Any]) -> list[tuple[str, bool]]:
    """The metrics of evaluation that tell how good a model is; the user's own choice first."""
    own = config.get("metric_for_best_model")
    if not own:
        return list(EVALUATIONS)
    metric = own if own.startswith("eval_") else f"eval_{own}"
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


def _episodes(findings: Iterable[Finding]) -> list[tuple[str, int, float]]:
    """Rule, first step and last step of what makes weights suspect. What changed at a resume is not about the weights."""
    grave: dict[tuple[str, str, int], float] = {}
    for finding in findings:
        key = (finding.rule, finding.metric, finding.first_step)
        if finding.state == "resolved" and key in grave:
            grave[key] = finding.step
        elif finding.level >= Severity.HIGH and finding.status == "stable" and not finding.metric.startswith("resume"):
            grave[key] = math.inf
    return [(rule, first, end) for (rule, _, first), end in grave.items()]


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
        [`Advice`]: to go on, the newest that is complete, not known to be NaN and not suspect; to ship, the best of
        those by evaluation, without one by the last training logs. Among equals the newest.
    """
    judged = sorted(judged, key=lambda checkpoint: checkpoint.step)
    if not judged:
        return Advice(None, "There is no checkpoint.", None, "There is no checkpoint.")
    sound = [checkpoint for checkpoint in judged if checkpoint.usable and not checkpoint.suspect]
    if not sound:
        why = f"None is fit: {'; '.join(f'step {c.step}: {_against(c)}' for c in judged[-3:])}."
        return Advice(None, why, None, why)
    whole = [checkpoint for checkpoint in sound if checkpoint.resumable]
    ship, why_ship = _best(sound)
    return Advice(whole[-1] if whole else None, _why_go_on(judged, sound, whole), ship, why_ship)


def _against(checkpoint: Checkpoint) -> str:
    if checkpoint.finite is False or "weights" not in checkpoint.parts:
        return checkpoint.note or "no weights"
    missing = [part for part in checkpoint.missing if part != "random states"]
    return ", ".join(checkpoint.suspect) or f"{' and '.join(missing)} missing"


def _why_go_on(judged: list[Checkpoint], sound: list[Checkpoint], whole: list[Checkpoint]) -> str:
    if not whole:
        return f"None is complete: step {sound[-1].step}: {_against(sound[-1])}."
    later = [checkpoint for checkpoint in judged if checkpoint.step > whole[-1].step]
    known = "finite" if whole[-1].finite else f"of weights that nobody has checked ({whole[-1].note})"
    if not later:
        return f"The last one; it is complete and {known}."
    reasons = "; ".join(f"step {c.step}: {_against(c)}" for c in later[:3])
    return f"The last one that is complete and {known} with nothing against it ({reasons})."


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
