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

"""A `Diagnosis` goes in, what a report says about it comes out in words: verdict, problems, checkpoint, ending, tables."""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine.engine import ACTIVE, BLIND, NOT_APPLICABLE, WARMING_UP
from ..engine.finding import Finding, Severity
from ..engine.rulebook import BUILTIN
from ..words import count
from . import console
from .console import HEALTHY, TOO_SHORT, health


if TYPE_CHECKING:
    from ..diagnosis import Diagnosis

STATUS = {
    "critical": "Failed",
    "high": "Unhealthy",
    "medium": "Needs attention",
    "low": "Healthy, with remarks",
    HEALTHY: "Healthy",
    TOO_SHORT: "Not enough logs",
}
SAID = {
    Severity.CRITICAL: "The run is ruined",
    Severity.HIGH: "The run is probably wasted",
    Severity.MEDIUM: "The result will suffer",
    Severity.LOW: "The run looks healthy; worth knowing",
}
# How it ended, after "The run "
ENDED = {
    "completed": "came to its end",
    "stopped_by_rule": "was stopped by a rule",
    "exception": "ended with an exception",
    "oom": "ran out of memory",
    "interrupted": "was interrupted by hand",
    "sigterm": "was ended by SIGTERM, as schedulers send it",
    "killed": "was killed from outside",
    "segfault": "crashed in native code (segmentation fault)",
    "hang": "hung: no step came any more",
    "unfinished": "has not come to its end",
}
# What people look at first, whatever the trainer; the first ones that a run logs are drawn.
KEY_METRICS = (
    *("loss", "eval_loss", "reward", "reward_margin", "margin", "win_rate", "accuracy", "eval_reward"),
    *("rewards_chosen", "kl", "kl_sequence", "entropy", "completion_length", "reward_std", "frac_reward_zero_std"),
    *("token_accuracy", "clip_fraction", "importance_sampling_ratio", "policy_loss", "value_loss", "grad_norm"),
    *("learning_rate",),
)
CALM = ("completed", "stopped_by_rule", "unfinished")
COVERAGE = {
    ACTIVE: "Active",
    WARMING_UP: "Too few logs to speak",
    NOT_APPLICABLE: "Not applicable to this config",
    BLIND: "Blind: a metric they need never came",
}


@dataclass(frozen=True)
class Problem:
    """
    All episodes of one rule on one metric.

    Args:
        finding (`Finding`):
            The episode that matters most.
        episodes (`tuple[Finding, ...]`):
            All of them, earliest first.
        ends (`tuple[int | None, ...]`):
            Step at which each was over; `None` where it goes on.
        followers (`tuple[Problem, ...]`):
            Problems that follow from this one.
    """

    finding: Finding
    episodes: tuple[Finding, ...]
    ends: tuple[int | None, ...]
    followers: tuple["Problem", ...] = ()

    @property
    def goes_on(self) -> bool:
        """Whether it was still so at the end."""
        return None in self.ends

    @property
    def when(self) -> str:
        """The steps of the first episodes."""
        spans = [f"{f.first_step} to {end or 'the end'}" for f, end in zip(self.episodes, self.ends, strict=True)]
        more = f" and {len(spans) - 3} more times" if len(spans) > 3 else ""
        return f"step {', '.join(spans[:3])}{more}"


def problems(findings: Iterable[Finding]) -> list[Problem]:
    """Causes before symptoms; what follows from a cause is inside it."""
    findings = list(findings)
    over = {(f.rule, f.metric, f.first_step): f.step for f in findings if f.state == "resolved"}
    found = []
    for same in console.problems(findings):
        episodes = tuple(sorted(same, key=lambda finding: finding.first_step))
        found.append(Problem(same[0], episodes, tuple(over.get((f.rule, f.metric, f.first_step)) for f in episodes)))
    return _nested(found)


def _nested(found: list[Problem]) -> list[Problem]:
    causes = {p.finding.rule: p for p in reversed(found) if not p.finding.cascade_of}
    heads = [p for p in found if p.finding.cascade_of not in causes]
    followers = {p.finding.rule: tuple(q for q in found if q.finding.cascade_of == p.finding.rule) for p in heads}
    return [
        Problem(p.finding, p.episodes, p.ends, followers[p.finding.rule] if causes.get(p.finding.rule) is p else ())
        for p in heads
    ]


def everything(heads: Iterable[Problem]) -> list[Problem]:
    """Problems and what follows from them, as one list."""
    return [problem for head in heads for problem in (head, *head.followers)]


def normal(findings: Iterable[Finding]) -> list[Finding]:
    """What looks odd and is not: the first finding of each rule."""
    first: dict[str, Finding] = {}
    for finding in findings:
        if finding.level == Severity.INFO and finding.state == "started":
            first.setdefault(finding.rule, finding)
    return list(first.values())


def status(diagnosis: "Diagnosis", heads: list[Problem]) -> str:
    """One or two words and how many findings there are."""
    reason = (diagnosis.postmortem or {}).get("exit_reason", "completed")
    every = everything(heads)
    count = Counter(p.finding.severity for p in every)
    said = ", ".join(f"{count[str(s)]} {s}" for s in reversed(Severity) if count[str(s)])
    state = STATUS[health((p.finding for p in every), diagnosis.coverage)]
    crashed = "" if reason in CALM else f", {reason}"
    return f"{state}{crashed} ({said} finding{'s' * (len(every) > 1)})" if said else f"{state}{crashed}"


def verdict(diagnosis: "Diagnosis", heads: list[Problem]) -> str:
    """The whole report in one sentence."""
    reason = (diagnosis.postmortem or {}).get("exit_reason", "completed")
    ending = "" if reason in CALM else f"; it {ENDED.get(reason, reason)} at step {diagnosis.last_step}"
    if not heads:
        return _silent(diagnosis) + ending + "."
    root = heads[0]
    others = len(everything(heads)) - 1 - len(root.followers)
    follows = f", and {count(len(root.followers), 'finding')} follow{'s' * (len(root.followers) == 1)} from it"
    more = f"; {count(others, 'other finding')} {'is' if others == 1 else 'are'} listed below"
    said = f"{SAID[root.finding.level]} (since step {root.finding.first_step})"
    if not root.goes_on and root.finding.level > Severity.LOW:
        said = f"Something went wrong and was over later ({root.when})"
    message = root.finding.message.strip().rstrip(".")
    return f"{said}: {message}{follows if root.followers else ''}{more if others else ''}{ending}."


def _silent(diagnosis: "Diagnosis") -> str:
    rules, logs = Counter(diagnosis.coverage.values()), count(diagnosis.records, "log")
    if not rules[ACTIVE]:
        return f"Nothing can be said: {logs} {'is' if diagnosis.records == 1 else 'are'} too few for every rule"
    said = f"No problem was found in {logs}, {count(rules[ACTIVE], 'rule')} watched"
    is_enough = health((), diagnosis.coverage) == HEALTHY
    return said if is_enough else f"{said}, {rules[WARMING_UP]} need more logs to speak"


def settings(finding: Finding, config: dict[str, Any]) -> str:
    """The training arguments that a fix speaks of, as they were."""
    named = re.findall(r"`(\w+)[^`]*`", finding.fix)
    return ", ".join(f"`{name}={_value(config[name])}`" for name in dict.fromkeys(named) if name in config)


def _value(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def accuracy(rule: str) -> str:
    """How often a built-in rule was right on the recorded runs of the failure lab."""
    measured = json.loads((BUILTIN / "accuracy.json").read_text(encoding="utf-8")).get(rule, {})
    right = measured.get("right when it fired", "-")
    if right == "-":
        return ""
    healthy = measured.get("fired in healthy runs of its trainers")
    return (
        f"Right in {right} recorded runs in which it fired{f', fired in {healthy} healthy ones' if healthy else ''}."
    )


def last_checkpoint(diagnosis: "Diagnosis") -> tuple[str, str]:
    """Whether the last checkpoint is good: one word, and the reasons."""
    own = [checkpoint for checkpoint in diagnosis.checkpoints if not checkpoint.foreign]
    if not own:
        whose = " of this run" if diagnosis.checkpoints else ""
        return "None", f"There is no checkpoint{whose} on disk."
    last = own[-1]
    name = f"`{last.path.name}`"
    if not last.usable:
        reason = "its weights are not finite" if last.finite is False else "its weights are missing or damaged"
        return "No", f"{name}: {reason}{f' ({last.note})' if last.note else ''}."
    if last.suspect:
        known = tuple(
            finding.rule + " since " for finding in diagnosis.findings
        )  # the rest is the look of the metrics
        answer = "No" if any(doubt.startswith(known) for doubt in last.suspect) else "Doubtful"
        return answer, f"{name}: {'; '.join(last.suspect)}."
    lacking = "" if last.resumable else f" To go on training it lacks {', '.join(last.missing)}."
    if last.finite is None:
        return "Probably", f"{name}: no finding speaks against it. Its weights were not read: {last.note}.{lacking}"
    return "Yes", f"{name}: all weights are finite and no finding speaks against it.{lacking}"


def ended(diagnosis: "Diagnosis") -> str:
    """How the run ended, in words; empty where that is not known."""
    if not diagnosis.postmortem:
        return ""
    reason, what = diagnosis.postmortem["exit_reason"], diagnosis.postmortem.get("what", "")
    what = "" if reason == "completed" else what  # it says the same
    return f"The run {ENDED.get(reason, reason)} at step {diagnosis.postmortem['last_step']}. {what}".strip()


def covered(coverage: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Heading and names of the rules of each kind."""
    return [(text, sorted(n for n, s in coverage.items() if s == kind)) for kind, text in COVERAGE.items()]


def flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as rows of a table."""
    rows = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            rows += flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            rows.append((f"{prefix}{key}", text if len(text) <= 500 else text[:500] + " ..."))
    return rows
