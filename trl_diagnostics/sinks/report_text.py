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
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from ..engine.engine import ACTIVE, BLIND, NOT_APPLICABLE, WARMING_UP
from ..engine.finding import Finding, Severity
from ..engine.rulebook import BUILTIN
from ..sources.resume import effective_batch_size
from ..words import count, duration
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
    "sigterm": "was ended by SIGTERM (as schedulers send it)",
    "killed": "was killed from outside",
    "segfault": "crashed in native code (segmentation fault)",
    "hang": "hung (no step came any more)",
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
# In one word, what ended neither by itself nor because somebody wanted it to.
FAILED = {
    "exception": "crashed",
    "oom": "out of memory",
    "killed": "killed",
    "segfault": "crashed",
    "hang": "hung",
}
# What to do about it
REPAIRS = {
    "exception": "Look at the traceback below: it says what to mend.",
    "oom": "Use less memory: a smaller `per_device_train_batch_size` with more `gradient_accumulation_steps`, shorter "
    "texts, or `gradient_checkpointing`.",
    "killed": "Find out what ended the process: the log of the scheduler, or `dmesg` where memory was short.",
    "segfault": "The stack below says which call into native code crashed.",
    "hang": "The stack below says what the training waited for.",
}
# The arguments that matter most, whatever the trainer, and of what else is known of a run what the short page has.
CHOSEN = (
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "warmup_ratio", "optim", "num_train_epochs", "max_steps"),
    *("max_length", "max_prompt_length", "max_completion_length", "beta", "loss_type", "num_generations"),
    *("num_iterations", "temperature", "bf16", "fp16", "gradient_checkpointing", "seed"),
)
BRIEF = (
    "trl_version created packages.transformers packages.torch packages.accelerate packages.peft git.* hardware.device* "
    "world_size model.name_or_path model.parameters model.trainable_parameters model.dtypes.* train_dataset.rows "
    "reward_functions.* command* error*"
)
MOST_LINES = 12  # of a traceback; the last ones say most
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


def failure(diagnosis: "Diagnosis") -> str:
    """The reason why a run ended that should have gone on, see `FAILED`; empty where there is none."""
    reason = (diagnosis.postmortem or {}).get("exit_reason")
    return reason if reason in FAILED else ""


def state(findings: Iterable[Finding], coverage: dict[str, str], reason: str = "") -> str:
    """One word about a run as [`health`] says it, or how it ended, where that is worse."""
    word = health(findings, coverage)
    return FAILED[reason] if reason in FAILED and word not in ("critical", "high") else word


def failed_with(postmortem: dict[str, Any]) -> str:
    """How a run failed, short: where, and the exception if there was one."""
    reason = postmortem["exit_reason"]
    said = f"{FAILED[reason]} at step {postmortem['last_step']}"
    if reason not in ("exception", "oom") or not postmortem.get("traceback"):
        return said
    what = postmortem["what"].partition("\n")[0]
    return f"{said}: {what if len(what) <= 80 else f'{what[:77]}...'}"


def status(diagnosis: "Diagnosis", heads: list[Problem]) -> str:
    """One or two words, how it ended where that was no good end, and how many findings there are."""
    reason = (diagnosis.postmortem or {}).get("exit_reason", "completed")
    every = everything(heads)
    count = Counter(p.finding.severity for p in every)
    said = ", ".join(f"{count[str(s)]} {s}" for s in reversed(Severity) if count[str(s)])
    word = state((p.finding for p in every), diagnosis.coverage, reason)
    ending = failed_with(diagnosis.postmortem) if reason in FAILED else "" if reason in CALM else reason
    shown = ", ".join(filter(None, [STATUS.get(word, ""), ending]))
    return f"{shown[0].upper()}{shown[1:]}" + (f" ({said} finding{'s' * (len(every) > 1)})" if said else "")


def verdict(diagnosis: "Diagnosis", heads: list[Problem]) -> str:
    """The whole report in one sentence, or in two where the end is what matters most."""
    reason = (diagnosis.postmortem or {}).get("exit_reason", "completed")
    ending = "" if reason in CALM else f"{ENDED.get(reason, reason)} at step {diagnosis.postmortem['last_step']}"
    said = _found(heads) if heads else _silent(diagnosis)
    if reason in FAILED and not (heads and heads[0].finding.level >= Severity.HIGH):
        return f"The run {ending}. Before that: {said[0].lower()}{said[1:]}."
    return f"{said}; it {ending}." if ending else f"{said}."


def _found(heads: list[Problem]) -> str:
    root = heads[0]
    others = len(everything(heads)) - 1 - len(root.followers)
    follows = f", and {count(len(root.followers), 'finding')} follow{'s' * (len(root.followers) == 1)} from it"
    more = f"; {count(others, 'other finding')} {'is' if others == 1 else 'are'} listed below"
    said = f"{SAID[root.finding.level]} (since step {root.episodes[0].first_step})"
    if not root.goes_on and root.finding.level > Severity.LOW:
        said = f"Something went wrong and was over later ({root.when})"
    message = root.finding.message.strip().rstrip(".")
    return f"{said}: {message}{follows if root.followers else ''}{more if others else ''}"


def repairs(diagnosis: "Diagnosis") -> list[str]:
    """What to do about a run that failed."""
    if not (reason := failure(diagnosis)):
        return []
    command = diagnosis.postmortem.get("resume_command")
    return [REPAIRS[reason], *([f"To go on: `{command}`"] if command else [])]


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
    what = "" if reason == "completed" else f" {what}"  # it says the same
    hangs = [hang for hang in diagnosis.postmortem.get("hangs", ()) if reason != "hang"]
    stood = ", ".join(f"{duration(hang['seconds'])} after step {hang['step']}" for hang in hangs)
    said = f"The run {ENDED.get(reason, reason)} at step {diagnosis.postmortem['last_step']}.{what}".strip()
    return f"{said} Before, it stood still for {stood}, and went on." if hangs else said


def last_lines(traceback: str | None) -> list[str]:
    """The part of a traceback that says most."""
    return (traceback or "").rstrip().splitlines()[-MOST_LINES:]


def covered(coverage: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Heading and names of the rules of each kind."""
    return [(text, sorted(n for n, s in coverage.items() if s == kind)) for kind, text in COVERAGE.items()]


def chosen(config: dict[str, Any], metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """The training arguments that matter most, those that are off or not known left out."""
    batch = {"effective_batch_size": effective_batch_size({"arguments": config, **metadata})}
    known = batch | {name: config.get(name) for name in CHOSEN}
    # a beta of 0 is no option that is off
    shown = {name: value for name, value in known.items() if value not in (None, "", [], -1) and value is not False}
    return [(name, _value(value)) for name, value in shown.items()]


def is_brief(name: str) -> bool:
    """Whether the short page has it."""
    return any(fnmatchcase(name, glob) for glob in BRIEF.split())


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
