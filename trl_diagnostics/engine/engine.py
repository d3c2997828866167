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

"""Records go in, findings come out: `Engine` judges every rule that applies and keeps their episodes."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from .condition import parse_sum
from .episode import Episode
from .finding import DiagnosticsError, Finding, Record, Severity
from .history import History
from .judge import Judge, fill, look, needs, once_seen, pattern
from .needs import points_needed
from .rule import Rule, current_names
from .rulebook import causes_first
from .tree import OF_THE_RECORD, Condition, Function, can_hold, walk
from .value import Scope, Value, bind_sum
from .verdict import Verdict, bind_test, numbers_of
from .when import Predicate, completed, holds, parse_when


STATE_VERSION = 1
MOST_KINDS = 100
MOST_METRICS = 1000  # a run that invents a name for each sample must not grow without end
ACTIVE, WARMING_UP, NOT_APPLICABLE, BLIND = "active", "too few logs", "not applicable", "blind"


class Engine:
    """
    Judges records with rules.

    Args:
        rules (`Iterable[Rule]`):
            Rules as loaded; those of other trainers and disabled ones are left out.
        trainer (`str`, *optional*):
            Trainer type, for example `"dpo"`; `None` (unknown) gets every rule whose metrics appear.
        config (`dict`, *optional*):
            Training arguments, for `when` and `config.*`. `max_steps` and `warmup_steps` in optimizer steps.
        metric_map ([`MetricMap`], *optional*):
            Names, defaults and derived metrics of the trainer. Without it names are taken as they are.

    Raises:
        `DiagnosticsError`: if rules silence each other in a circle.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        trainer: str | None = None,
        config: dict[str, Any] | None = None,
        metric_map: Any = None,
    ):
        self.trainer = trainer or "unknown"
        self.metric_map = metric_map
        self.config = completed({**(metric_map.defaults if metric_map else {}), **(config or {})})
        warmup = self.config.get("warmup_steps")
        self.warmup_steps = warmup if isinstance(warmup, int | float) else 0
        family = (self.trainer, *(metric_map.bases if metric_map else ()))
        mine = [r for r in rules if r.enabled and (r.applies_to(family) or self._may_apply(r))]
        self.current = current_names(mine)
        mine = causes_first(mine, self.current)
        self.rules = [rule for rule in mine if self._has(rule.when) and self._knows(rule.condition)]
        self.order = {rule.name: i for i, rule in enumerate(self.rules)}
        self.not_applicable = [rule for rule in mine if rule.name not in self.order]
        self.histories: dict[str, History] = {}
        self.derived: list[tuple[str, str, Value]] = []
        derived = metric_map.derived if metric_map else []
        self.derived_metrics = {item["name"]: item for item in derived if self._has(_parsed(item.get("when", {})))}
        self.judges: list[Judge] = []
        # what a record concerns, by the names in it, since a run has few kinds of records
        self.remembered: dict[tuple, list[tuple[str, History]]] = {}
        self.concerned: dict[tuple, list[tuple[Judge, Verdict, Episode]]] = {}
        self.globs: list[tuple[Rule, re.Pattern]] = []
        self.seen: dict[str, None] = {}  # metrics in the order of their first appearance
        self.records = 0  # train records
        self.step = 0  # of the record being judged
        self.firing: dict[str, int] = {}  # rule name -> active judges
        for rule in self.rules:
            metric = self._canonical(rule.metric)
            if "*" in metric:
                self.globs.append((rule, pattern(metric)))
            else:
                self._add_judge(rule, metric, ())

    def _may_apply(self, rule: Rule) -> bool:
        """An unknown trainer gets the rules whose metrics appear, but `loss` appears everywhere and says nothing."""
        everywhere = self.metric_map.everywhere if self.metric_map else ()
        own = {name for name in rule.condition.metrics if self._canonical(name) not in everywhere}
        needs_own = bool(own) and not can_hold(rule.condition.test, own)
        return self.trainer == "unknown" and (self._canonical(rule.metric) not in everywhere or needs_own)

    def _canonical(self, metric: str) -> str:
        return self.metric_map.canonical(metric) if self.metric_map else metric

    def _has(self, when: dict[str, tuple[Predicate, ...]]) -> bool:
        return all(key in self.config and holds(wanted, self.config[key]) for key, wanted in when.items())

    def _knows(self, condition: Condition) -> bool:
        """Whether the training arguments that a condition needs are known; a bare log has only TRL's defaults."""
        return can_hold(
            condition.test, {f"config.{name}" for name in condition.configs if self._config_number(name) is None}
        )

    def _history(self, metric: str) -> History:
        if metric not in self.histories:
            lower = self.metric_map is not None and metric in self.metric_map.lower_is_better
            self.histories[metric] = History(lower)
            if metric in self.derived_metrics:
                self._derive(self.derived_metrics[metric])
        return self.histories[metric]

    def _derive(self, item: dict[str, Any]) -> None:
        """Have a derived metric computed from now on, its inputs before it."""
        node, metrics = parse_sum(item["formula"])
        inputs = tuple(self._canonical(metric) for metric in metrics)
        value = bind_sum(node, self._scope(1, lambda name: self._history(self._canonical(name))))
        self.derived.append(
            (item["name"], next((name for name in inputs if name not in OF_THE_RECORD), "step"), value)
        )

    def _scope(self, window: int, history) -> Scope:
        return Scope(history, self._config_number, window, lambda: self.records, lambda: self.step)

    def _config_number(self, name: str) -> float | None:
        value = self.config.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _add_judge(self, rule: Rule, metric: str, captured: tuple[str, ...]) -> None:
        names = {"value": metric} | {name: self._canonical(fill(name, captured)) for name in rule.condition.metrics}
        scope = self._scope(rule.window, lambda name: self._history(names[name]))
        test, history = rule.condition.test, self._history(metric)
        others = {name: self._history(names[name]) for name in rule.condition.metrics}
        verdict = bind_test(test, scope)
        needs_all = any(isinstance(node, Function) and node.name == "missing" for node in walk(test))
        # a trainer that we do not know need not log what the rule's own trainers log
        if needs_all and self.trainer == "unknown" and not rule.applies_to(()):
            verdict = once_seen(verdict, [history, *others.values()])
        judge = Judge(
            rule=rule,
            metric=metric,
            history=history,
            verdict=verdict,
            numbers=numbers_of(test, scope),
            names=names,
            others=others,
            needs_all=needs_all,
            causes=tuple(self.current.get(name, name) for name in rule.unless),
        )
        self.judges.append(judge)
        self.judges.sort(key=lambda judge: self.order[judge.rule.name])
        self.remembered.clear()
        self.concerned.clear()

    def _discover(self, metric: str) -> None:
        """A metric is seen for the first time: bind the globs that match it."""
        self.seen[metric] = None
        for rule, glob in self.globs:
            match = glob.fullmatch(metric)
            if match:
                self._add_judge(rule, metric, match.groups())

    def update(self, record: Record) -> list[Finding]:
        """
        Judge one record.

        Args:
            record (`Record`):
                Numbers under canonical names.

        Returns:
            `list[Finding]`: episodes that start or resolve with this record, causes first.
        """
        self.step = record.step
        metrics = self._push(record)
        train = record.phase == "train"
        if record.phase == "resume":
            self._begin_anew(metrics)
        findings = []
        for judge, verdict, episode in self._concerned(metrics, train):
            said = verdict()
            if said is False and episode.known and not (episode.streak or episode.active or episode.recent):
                episode.points += 1  # nothing else changes, and this is the common case
            elif finding := self._judge(judge, said, record.step):
                findings.append(finding)
        return findings

    def _concerned(self, metrics: Iterable[str], train: bool) -> list[tuple[Judge, Verdict, Episode]]:
        """The judges that look at such a record, causes first."""
        kind = (train, *metrics)
        if kind not in self.concerned:
            if len(self.concerned) == MOST_KINDS:
                self.concerned.clear()
            concerned = [judge for judge in self.judges if judge.metric in metrics or (train and judge.needs_all)]
            self.concerned[kind] = [(judge, judge.verdict, judge.episode) for judge in concerned]
        return self.concerned[kind]

    def _begin_anew(self, metrics: Iterable[str]) -> None:
        """Each resume is compared with what was before it: an episode of an earlier resume must not hide a new one."""
        for judge in self.judges:
            if judge.episode.active and judge.metric in metrics:
                self.firing[judge.rule.name] -= 1
                judge.episode.active, judge.episode.streak = False, 0

    def _push(self, record: Record) -> set[str] | dict[str, float | None]:
        """Remember the record's points and the metrics derived from them; returns the names that got a point."""
        metrics, histories, past = record.metrics, self.histories, record.step > self.warmup_steps
        remembered = self._remembered(tuple(metrics))
        if record.phase == "train":
            self.records += 1
            for name, value in (("step", record.step), ("time", record.time)):
                if name in histories:
                    histories[name].push(value, past)
        records = self.records
        for metric, history in remembered:
            history.push(metrics[metric], past)
            history.last_record = records
        if not self.derived:
            return metrics
        names = {*metrics, "step"} if record.phase == "train" else set(metrics)
        for name, first, formula in self.derived:  # it gets a point when the first metric of its formula does
            if name not in names and first in names and (value := formula()) is not None:
                histories[name].push(value, past)
                histories[name].last_record = records
                names.add(name)
        return names

    def _remembered(self, names: tuple[str, ...]) -> list[tuple[str, History]]:
        """The histories of the metrics that a rule looks at."""
        if names not in self.remembered:
            for metric in names:
                if metric not in self.seen and len(self.seen) < MOST_METRICS:
                    self._discover(metric)
            if len(self.remembered) == MOST_KINDS:
                self.remembered.clear()
            self.remembered[names] = [(name, self.histories[name]) for name in names if name in self.histories]
        return self.remembered[names]

    def _judge(self, judge: Judge, verdict: bool | None, step: int) -> Finding | None:
        rule, episode = judge.rule, judge.episode
        if not episode.see(verdict, step, rule.condition):
            return self._resolve(judge, step) if episode.active and episode.rest(rule.window) else None
        episode.quiet = 0
        if episode.active or episode.points < rule.min_steps or any(map(self.firing.get, judge.causes)):
            return None
        return self._start(judge, step)

    def _start(self, judge: Judge, step: int) -> Finding:
        root = self.root()
        judge.episode.start()
        self.firing[judge.rule.name] = self.firing.get(judge.rule.name, 0) + 1
        return self._finding(judge, step, "started", None if root == judge.rule.name else root)

    def _resolve(self, judge: Judge, step: int) -> Finding:
        self.firing[judge.rule.name] -= 1
        return self._finding(judge, step, "resolved", None)

    def root(self) -> str | None:
        """Name of the critical rule that has been firing longest, if any."""
        active = [judge for judge in self.judges if judge.episode.active and judge.rule.severity is Severity.CRITICAL]
        return min(active, key=lambda judge: judge.episode.first_step).rule.name if active else None

    def _finding(self, judge: Judge, step: int, state: str, cascade_of: str | None) -> Finding:
        rule = judge.rule
        value = look(judge.history, rule.window)
        evidence = {judge.metric if name == "value" else name: number() for name, number in judge.numbers.items()}
        shown = {name: look(history, rule.window) for name, history in judge.others.items()}
        # of `resume_argument/max_steps` the user's own word
        metric = judge.metric.removeprefix(rule.metric[:-1]) if rule.metric.endswith("/*") else judge.metric
        shown |= {"value": value, "metric": metric, "step": step, "window": rule.window, "trainer": self.trainer}
        return Finding(
            rule=rule.name,
            severity=str(rule.severity),
            state=state,
            step=step,
            first_step=judge.episode.first_step,
            metric=judge.metric,
            value=value,
            message=rule.render(shown) if state == "started" else self._how_over(judge, step),
            why=rule.why,
            fix=rule.fix,
            reference=list(rule.reference),
            evidence={**evidence, judge.metric: value},
            trainer=self.trainer,
            status=rule.status,
            cascade_of=cascade_of,
        )

    def _how_over(self, judge: Judge, step: int) -> str:
        cause = next(filter(self.firing.get, judge.causes), None)
        return f"Taken over by {cause} at step {step}." if cause else f"Over at step {step}."

    def coverage(self) -> dict[str, str]:
        """
        Whether each rule of this trainer can speak: rule name to `"active"`, `"too few logs"`, `"not applicable"` (its
        `when` does not hold, a training argument it needs is unknown, or the option with which TRL logs its metric is
        off) or `"blind"` (a metric it needs never came).
        """
        status = {rule.name: NOT_APPLICABLE for rule in self.not_applicable}
        for rule in self.rules:
            states = {self._coverage(judge) for judge in self.judges if judge.rule is rule}
            expected = self._is_expected([self._canonical(rule.metric)])
            unmatched = WARMING_UP if not self.seen else BLIND if expected else NOT_APPLICABLE  # a glob
            status[rule.name] = next(
                (s for s in (ACTIVE, WARMING_UP, NOT_APPLICABLE, BLIND) if s in states), unmatched
            )
        return status

    def _coverage(self, judge: Judge) -> str:
        histories = {"value": judge.history, **judge.others}
        missing = {name for name, history in histories.items() if not history.count}
        if not judge.needs_all and needs(judge, missing):
            names = {name: judge.names[name] for name in missing}
            off = {name for name, metric in names.items() if self._is_off(metric)}
            if needs(judge, off) or (self.seen and not self._is_expected(names.values())):
                return NOT_APPLICABLE
            return BLIND if self.seen else WARMING_UP
        # with one side of an `or` missing the verdict is never false, so it may not have been known yet
        ready = judge.episode.points >= judge.rule.min_steps and (judge.episode.known or missing)
        return ACTIVE if ready else WARMING_UP

    def _is_off(self, metric: str) -> bool:
        return self.metric_map is not None and self.metric_map.is_off(metric, self.config)

    def _is_expected(self, metrics: Iterable[str]) -> bool:
        """A metric that TRL logs only with some option, or for other trainers, is no reason to worry."""
        return self.metric_map is None or any(map(self.metric_map.expects, metrics))

    def cannot_fire(self, max_steps: int, logging_steps: int) -> list[str]:
        """Names of the rules that need more logged points than the run will have."""
        points = max_steps // max(logging_steps, 1)
        problems = [rule for rule in self.rules if rule.severity > Severity.INFO]
        train = [rule for rule in problems if not rule.metric.startswith("eval_")]
        train = [rule for rule in train if self._is_expected([self._canonical(rule.metric)])]
        return [r.name for r in train if max(r.min_steps, points_needed(r.condition.test, r.window)) > points]

    def open_episodes(self, holding: bool = False) -> dict[tuple[str, str], int]:
        """Rule and metric of the episodes that go on, with their first step; `holding`: that were true at the last point."""
        active = [judge for judge in self.judges if judge.episode.active and not (holding and judge.episode.quiet)]
        return {(judge.rule.name, judge.metric): judge.episode.first_step for judge in active}

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, ready for JSON."""
        return {
            "version": STATE_VERSION,
            "records": self.records,
            "histories": {name: history.state_dict() for name, history in self.histories.items()},
            "seen": list(self.seen),
            "judges": {judge.key(): asdict(judge.episode) for judge in self.judges},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where a state was saved, in an engine that has not judged yet. Rules that were added since start fresh, rules
        that are gone are forgotten.

        Raises:
            `DiagnosticsError`: if the state is of another version.
        """
        if state["version"] != STATE_VERSION:
            raise DiagnosticsError(f"engine state has version {state['version']}, expected {STATE_VERSION}")
        self.records = state["records"]
        for metric in state["seen"]:
            if metric not in self.seen:
                self._discover(metric)
        for name, history in self.histories.items():
            if name in state["histories"]:
                history.load_state_dict(state["histories"][name])
        self.firing = {}
        self.concerned.clear()
        for judge in self.judges:
            if judge.key() in state["judges"]:
                judge.episode = Episode(**state["judges"][judge.key()])
            if judge.episode.active:
                self.firing[judge.rule.name] = self.firing.get(judge.rule.name, 0) + 1


def _parsed(when: dict[str, Any]) -> dict[str, tuple[Predicate, ...]]:
    return {key: parse_when(value) for key, value in when.items()}
