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
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .condition import parse_sum
from .finding import DiagnosticsError, Finding, Record, Severity
from .history import History
from .rule import Rule, holds
from .tree import Function, walk
from .verdict import Scope, Value, Verdict, bind_sum, bind_test, numbers_of


STATE_VERSION = 1
ACTIVE, WARMING_UP, NOT_APPLICABLE, BLIND = "active", "warming up", "not applicable", "blind"


@dataclass(slots=True)
class Judge:
    """One rule bound to one metric (a glob gives one judge per metric it matches), with its streak and episode."""

    rule: Rule
    metric: str
    history: History
    verdict: Verdict
    numbers: dict[str, Value]  # the evidence of a finding
    others: dict[str, History]  # the other metrics of the condition
    needs_all: bool  # judged at each train record, since the rule asks whether a metric is missing
    causes: tuple[str, ...]  # rules that silence this one while they fire
    recent: deque | None  # steps (or None) of the last M points for `for N of M`
    points: int = 0
    known: bool = False  # whether there was ever enough data for a verdict
    streak: int = 0
    first_step: int = 0
    active: bool = False
    quiet: int = 0  # points since the condition last held in this episode

    def key(self) -> str:
        return f"{self.rule.name}|{self.metric}"

    def state(self) -> dict[str, Any]:
        return {
            "points": self.points,
            "known": self.known,
            "streak": self.streak,
            "first_step": self.first_step,
            "active": self.active,
            "quiet": self.quiet,
            "recent": None if self.recent is None else list(self.recent),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.points, self.known, self.streak = state["points"], state["known"], state["streak"]
        self.first_step, self.active, self.quiet = state["first_step"], state["active"], state["quiet"]
        if self.recent is not None and state["recent"] is not None:
            self.recent.extend(state["recent"])


class Engine:
    """
    Judges records with rules.

    Args:
        rules (`Iterable[Rule]`):
            Rules as loaded; those of other trainers and disabled ones are left out.
        trainer (`str`, *optional*):
            Trainer type, for example `"dpo"`; `None` or an unknown one gets every rule whose metrics appear.
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
        self.config = {**(metric_map.defaults if metric_map else {}), **(config or {})}
        warmup = self.config.get("warmup_steps")
        self.warmup_steps = warmup if isinstance(warmup, int | float) else 0
        family = (self.trainer, *(metric_map.bases if metric_map else ()))
        mine = [r for r in rules if r.enabled and (self.trainer == "unknown" or r.applies_to(family))]
        self.current = {old: rule.name for rule in mine for old in rule.renamed_from}
        mine = _causes_first(mine, self.current)
        self.rules = [rule for rule in mine if self._applicable(rule)]
        self.not_applicable = [rule for rule in mine if not self._applicable(rule)]
        self.order = {rule.name: i for i, rule in enumerate(self.rules)}
        self.histories: dict[str, History] = {}
        self.derived: list[tuple[str, tuple[str, ...], Value]] = []
        self.derived_metrics = {item["name"]: item for item in metric_map.derived} if metric_map else {}
        self.judges: list[Judge] = []
        self.globs: list[tuple[Rule, re.Pattern]] = []
        self.seen: set[str] = set()
        self.records = 0  # train records
        self.firing: dict[str, int] = {}  # rule name -> active judges
        for rule in self.rules:
            metric = self._canonical(rule.metric)
            if "*" in metric:
                self.globs.append((rule, _pattern(metric)))
            else:
                self._add_judge(rule, metric, ())

    def _canonical(self, metric: str) -> str:
        return self.metric_map.canonical(metric) if self.metric_map else metric

    def _applicable(self, rule: Rule) -> bool:
        return all(key in self.config and holds(wanted, self.config[key]) for key, wanted in rule.when.items())

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
        self.derived.append((item["name"], tuple(name for name in inputs if name != "step"), value))

    def _scope(self, window: int, history) -> Scope:
        return Scope(history, self._config_number, window, lambda: self.records)

    def _config_number(self, name: str) -> float | None:
        value = self.config.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _add_judge(self, rule: Rule, metric: str, captured: tuple[str, ...]) -> None:
        names = {"value": metric} | {name: self._canonical(_fill(name, captured)) for name in rule.condition.metrics}
        scope = self._scope(rule.window, lambda name: self._history(names[name]))
        test, condition = rule.condition.test, rule.condition
        judge = Judge(
            rule=rule,
            metric=metric,
            history=self._history(metric),
            verdict=bind_test(test, scope),
            numbers=numbers_of(test, scope),
            others={name: self._history(names[name]) for name in condition.metrics},
            needs_all=any(isinstance(node, Function) and node.name == "missing" for node in walk(test)),
            causes=tuple(self.current.get(name, name) for name in rule.unless),
            recent=deque(maxlen=condition.of) if condition.of > condition.streak else None,
        )
        self.judges.append(judge)
        self.judges.sort(key=lambda judge: self.order[judge.rule.name])

    def _discover(self, metric: str) -> None:
        """A metric is seen for the first time: bind the globs that match it."""
        self.seen.add(metric)
        for rule, pattern in self.globs:
            match = pattern.fullmatch(metric)
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
        metrics = self._push(record)
        train = record.phase == "train"
        findings = []
        for judge in self.judges:
            if judge.metric in metrics or (train and judge.needs_all):
                finding = self._judge(judge, record.step)
                if finding:
                    findings.append(finding)
        return findings

    def _push(self, record: Record) -> set[str] | dict[str, float | None]:
        """Remember the record's points and the metrics derived from them; returns the names that got a point."""
        metrics = record.metrics
        histories, seen, past = self.histories, self.seen, record.step > self.warmup_steps
        for metric in metrics:
            if metric not in seen:
                self._discover(metric)
        if record.phase == "train":
            self.records += 1
            if "step" in histories:
                histories["step"].push(record.step, past)
        records = self.records
        for metric, value in metrics.items():
            if metric in histories:
                history = histories[metric]
                history.push(value, past)
                history.last_record = records
        if not self.derived:
            return metrics
        names = set(metrics)
        for name, inputs, formula in self.derived:
            if name not in names and names.issuperset(inputs) and (value := formula()) is not None:
                histories[name].push(value, past)
                histories[name].last_record = records
                names.add(name)
        return names

    def _judge(self, judge: Judge, step: int) -> Finding | None:
        verdict = judge.verdict()
        judge.points += 1
        if verdict is not None:
            judge.known = True
        elif not judge.active and not judge.streak and judge.recent is None:
            return None
        if not self._streak_holds(judge, verdict, step):
            return self._quiet(judge, step) if judge.active else None
        judge.quiet = 0
        if judge.active or judge.points < judge.rule.min_steps or any(map(self.firing.get, judge.causes)):
            return None
        return self._start(judge, step)

    def _streak_holds(self, judge: Judge, verdict: bool | None, step: int) -> bool:
        condition = judge.rule.condition
        if judge.recent is not None:
            judge.recent.append(step if verdict else None)
            true = [first for first in judge.recent if first is not None]
            if not judge.active and true:
                judge.first_step = true[0]
            return len(true) >= condition.streak
        if not verdict:
            judge.streak = 0
            return False
        if judge.streak == 0 and not judge.active:
            judge.first_step = step
        judge.streak += 1
        return judge.streak >= condition.streak

    def _start(self, judge: Judge, step: int) -> Finding:
        name = judge.rule.name
        cascade_of = self.root()
        judge.active = True
        self.firing[name] = self.firing.get(name, 0) + 1
        return self._finding(judge, step, "started", cascade_of)

    def _quiet(self, judge: Judge, step: int) -> Finding | None:
        judge.quiet += 1
        if judge.quiet < judge.rule.window:
            return None
        judge.active, judge.quiet = False, 0
        self.firing[judge.rule.name] -= 1
        return self._finding(judge, step, "resolved", None)

    def root(self) -> str | None:
        """Name of the critical rule that has been firing longest, if any."""
        active = [judge for judge in self.judges if judge.active and judge.rule.severity is Severity.CRITICAL]
        return min(active, key=lambda judge: judge.first_step).rule.name if active else None

    def _finding(self, judge: Judge, step: int, state: str, cascade_of: str | None) -> Finding:
        rule = judge.rule
        value = _look(judge.history, rule.window)
        evidence = {judge.metric if name == "value" else name: number() for name, number in judge.numbers.items()}
        shown = {name: _look(history, rule.window) for name, history in judge.others.items()}
        shown |= {"value": value, "metric": judge.metric, "step": step, "window": rule.window, "trainer": self.trainer}
        return Finding(
            rule=rule.name,
            severity=str(rule.severity),
            state=state,
            step=step,
            first_step=judge.first_step,
            metric=judge.metric,
            value=value,
            message=rule.render(shown),
            why=rule.why,
            fix=rule.fix,
            reference=list(rule.reference),
            evidence={**evidence, judge.metric: value},
            trainer=self.trainer,
            status=rule.status,
            cascade_of=cascade_of,
        )

    def coverage(self) -> dict[str, str]:
        """
        Whether each rule of this trainer can speak: rule name to `"active"`, `"warming up"`, `"not applicable"` (its
        `when` does not hold) or `"blind"` (a metric it needs never came).
        """
        status = {rule.name: NOT_APPLICABLE for rule in self.not_applicable}
        for rule in self.rules:
            judges = [judge for judge in self.judges if judge.rule is rule]
            states = {self._coverage(judge) for judge in judges}
            status[rule.name] = next((s for s in (ACTIVE, WARMING_UP, BLIND) if s in states), BLIND)
            if not self.seen:
                status[rule.name] = WARMING_UP
        return status

    def _coverage(self, judge: Judge) -> str:
        missing = not judge.needs_all and (
            not judge.history.count or (not judge.known and any(not h.count for h in judge.others.values()))
        )
        if missing:
            return BLIND
        return ACTIVE if judge.known and judge.points >= judge.rule.min_steps else WARMING_UP

    def cannot_fire(self, max_steps: int, logging_steps: int) -> list[str]:
        """Names of the rules whose warm-up is longer than the run, in logged points."""
        points = max_steps // max(logging_steps, 1)
        train = [rule for rule in self.rules if not rule.metric.startswith("eval_")]
        return [rule.name for rule in train if rule.min_steps > points]

    def state_dict(self) -> dict[str, Any]:
        """Everything remembered, ready for JSON."""
        return {
            "version": STATE_VERSION,
            "records": self.records,
            "histories": {name: history.state_dict() for name, history in self.histories.items()},
            "seen": sorted(self.seen),
            "judges": {judge.key(): judge.state() for judge in self.judges},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Go on where a state was saved. Rules that were added since start fresh, rules that are gone are forgotten.

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
        for judge in self.judges:
            if judge.key() in state["judges"]:
                judge.load(state["judges"][judge.key()])
            if judge.active:
                self.firing[judge.rule.name] = self.firing.get(judge.rule.name, 0) + 1


def _causes_first(rules: list[Rule], current: dict[str, str]) -> list[Rule]:
    """Order in which each rule comes after the rules that may silence it, otherwise as given."""
    by_name = {rule.name: rule for rule in rules}
    ordered: dict[str, Rule] = {}

    def visit(rule: Rule, path: tuple[str, ...]) -> None:
        if rule.name in path:
            raise DiagnosticsError(f"rules silence each other in a circle: {' -> '.join([*path, rule.name])}")
        for name in rule.unless:
            cause = by_name.get(current.get(name, name))
            if cause and cause.name not in ordered:
                visit(cause, (*path, rule.name))
        ordered[rule.name] = rule

    for rule in rules:
        if rule.name not in ordered:
            visit(rule, ())
    return list(ordered.values())


def _pattern(glob: str) -> re.Pattern:
    """`*` stands for text without a slash and is captured."""
    return re.compile("([^/]+)".join(map(re.escape, glob.split("*"))))


def _fill(name: str, captured: tuple[str, ...]) -> str:
    """Replace each `*` by what the rule's own metric had there."""
    for text in captured:
        name = name.replace("*", text, 1)
    return name


def _look(history: History, window: int) -> float | None:
    """The number that a condition saw: the mean of the window, or the last point where that says more."""
    last = history.values[-1] if history.values else None
    if history.last() is None:
        return last
    mean = history.mean(window)
    return last if mean is None else mean
