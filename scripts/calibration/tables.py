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

"""Judged runs go in, Markdown tables that are readable in a terminal too come out."""

import math
from collections.abc import Iterable, Iterator
from textwrap import fill

from calibration.measures import (
    LOGGING_STEPS,
    MAX_DELAY,
    MAX_STOPS,
    MAX_WARNINGS,
    MIN_NOTICED,
    MIN_RIGHT_FIRST,
    WITHIN,
    Faults,
    Healthy,
    OfRule,
    Rate,
    faults,
    grouped,
    healthy,
    mean_by,
    named_within,
    rules_seen,
)
from calibration.public import Public
from calibration.roc import Point
from calibration.runs import HELD_OUT, TUNED, Judged
from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import Rule


NOTHING = "-"
UNBROKEN = {"break_long_words": False, "break_on_hyphens": False}


def table(header: list[str], rows: Iterable[list[str]], left: int = 1) -> str:
    """An aligned Markdown table; all columns but the first `left` are flush right."""
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    marks = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [aligned[0], marks, *aligned[1:]])


def percent(share: float) -> str:
    """A share with one digit; `-` where there is nothing to share."""
    return NOTHING if math.isnan(share) else f"{100 * share:.1f} %"


def number(value: float) -> str:
    """A number without needless digits."""
    return NOTHING if math.isnan(value) else f"{value:.4g}"


def per_1000(value: float) -> str:
    """Warnings per 1,000 records."""
    return NOTHING if math.isnan(value) else f"{value:.2f}"


def counted(rate: Rate) -> str:
    """Hits of total and the share."""
    return f"{rate.hits} of {rate.total}" if rate.total else NOTHING


def shared(rate: Rate) -> str:
    """Hits of total and their share."""
    return f"{rate.hits} of {rate.total} ({percent(rate.raw)})" if rate.total else NOTHING


def between(rate: Rate) -> str:
    """The interval of a share."""
    low, high = rate.interval
    return f"{100 * low:.1f}-{100 * high:.1f} %" if rate.total else NOTHING


def _rate_row(name: str, promise: str, held_out: Rate, tuned: Rate) -> list[str]:
    weighted = [percent(held_out.by_recipe), percent(held_out.by_kind)]
    return [name, promise, shared(held_out), between(held_out), *weighted, percent(tuned.raw)]


def _plain_row(name: str, promise: str, held_out: str, tuned: str) -> list[str]:
    return [name, promise, held_out, "", "", "", tuned]


def _delay(delays: dict[int, tuple[float, float, int]], logging_steps: int) -> str:
    if logging_steps not in delays:
        return NOTHING
    logs, steps, _ = delays[logging_steps]
    return f"{number(logs)} / {number(steps)}"


def _fault_rows(held: Faults, tuned: Faults) -> Iterator[list[str]]:
    named, first = f">= {percent(MIN_NOTICED)}", f">= {percent(MIN_RIGHT_FIRST)}"
    yield _rate_row("a warning, or a remark of low severity, names the fault", named, held.noticed, tuned.noticed)
    yield _rate_row("... strictly: a warning names the fault", "", held.caught, tuned.caught)
    yield _rate_row("... a warning of a stable rule", "", held.by_stable, tuned.by_stable)
    yield _rate_row("the first finding that counts names the fault", first, held.right_first, tuned.right_first)
    yield _rate_row("... strictly: the first warning does", "", held.named_first, tuned.named_first)
    yield _plain_row("median delay in logs", f"<= {MAX_DELAY}", number(held.delay), number(tuned.delay))
    for n in LOGGING_STEPS:
        delays = _delay(held.delays, n), _delay(tuned.delays, n)
        yield _plain_row(f"... logging_steps {n}: logs / optimizer steps", "", *delays)
    yield _rate_row("faulty runs with a false warning", "", held.misled, tuned.misled)


def _healthy_rows(held: Healthy, tuned: Healthy) -> Iterator[list[str]]:
    yield _rate_row("healthy runs that would have been stopped", str(MAX_STOPS), held.stopped, tuned.stopped)
    yield _rate_row("healthy runs with a warning", "", held.warned, tuned.warned)
    promise, (low, high) = f"<= {MAX_WARNINGS:g}", held.interval
    texts = [f"{one.warnings} in {one.records:,} ({per_1000(one.per_1000)})" for one in (held, tuned)]
    row = ["warnings per 1,000 healthy records", promise, texts[0], f"{low:.2f}-{high:.2f}"]
    yield [*row, per_1000(held.by_recipe), "", texts[1]]


def headline(runs: list[Judged]) -> str:
    """The numbers that sum it all up: faulty runs, and healthy ones if there are any."""
    halves = [[run for run in runs if run.half == half] for half in (HELD_OUT, TUNED)]
    rows = list(_fault_rows(*map(faults, halves)))
    if not all(run.fault for run in runs):
        rows += _healthy_rows(*map(healthy, halves))
    header = ["", "wanted", "held-out half", "95 % interval", "each recipe once", "each kind once", "tuned half"]
    return table(header, rows)


def by_logs(runs: list[Judged]) -> str:
    """Shares of the faulty runs in which the fault is named within some logs, by `logging_steps` and half."""
    rows = []
    for n in LOGGING_STEPS:
        for half in (HELD_OUT, TUNED):
            mine = [run for run in runs if run.fault and run.logging_steps == n and run.half == half]
            within = [named_within(mine, logs) for logs in WITHIN]
            ever = named_within(mine, math.inf).raw
            late = [percent(ever - within[-1].raw), percent(1 - ever)]
            rows.append([str(n), half, str(len(mine)), *(percent(one.raw) for one in within), *late])
    header = ["logging_steps", "half", "faulty runs", *(f"within {logs} log{'s' * (logs > 1)}" for logs in WITHIN)]
    return table([*header, "later", "never"], rows, left=2)


def _fault_row(name: str, runs: list[Judged]) -> list[str]:
    one = faults(runs)
    low_only = one.noticed.hits - one.caught.hits
    row = [
        name,
        str(len({run.name for run in runs})),
        counted(one.caught),
        str(low_only or ""),
        counted(one.right_first),
        counted(one.named_first),
    ]
    return [*row, *(_delay(one.delays, n) for n in LOGGING_STEPS), str(one.false or "")]


def by_fault(runs: Iterable[Judged], key=lambda run: run.kind, first: str = "fault") -> str:
    """Faulty runs by their kind, or by something else."""
    header = [first, "recipes", "caught", "low only", "right first", "first warning"]
    header += [f"delay, logging_steps {n}" for n in LOGGING_STEPS]
    groups = grouped((run for run in runs if run.fault), key)
    return table([*header, "false warnings"], [_fault_row(name, mine) for name, mine in groups.items()])


def by_healthy(runs: Iterable[Judged]) -> str:
    """Healthy runs by trainer."""
    rows = []
    for name, members in grouped((run for run in runs if not run.fault), lambda run: run.trainer).items():
        one = healthy(members)
        recipes = len({run.name for run in members})
        row = [name, str(recipes), str(len(members)), str(one.records), str(one.stopped.hits), str(one.warnings)]
        rows.append([*row, per_1000(one.per_1000), per_1000(one.by_recipe), str(one.remarks)])
    header = ["trainer", "recipes", "runs", "records", "stopped", "warnings", "per 1,000 records", "each recipe once"]
    return table([*header, "remarks"], rows)


def _right(one: OfRule) -> list[str]:
    if one.rule.severity == Severity.INFO:
        return [NOTHING] * 2
    return [counted(one.precision), percent(one.precision.by_recipe)]


def _rule_row(one: OfRule) -> list[str]:
    rule = one.rule
    about = [rule.name, ", ".join(rule.trainers), str(rule.severity), rule.status]
    return [*about, *_right(one), counted(one.recall), str(one.healthy or "")]


def by_rule(runs: list[Judged], rules: list[Rule]) -> str:
    """What each rule did that fired or should have, in the order of their names; the names of the others below."""
    header = [
        "rule",
        "trainers",
        "severity",
        "status",
        "right when it fired",
        "each recipe once",
        "fired when expected",
    ]
    seen = rules_seen(runs, rules)
    idle = sorted({rule.name for rule in rules} - {one.rule.name for one in seen})
    names = ", ".join(f"`{name}`" for name in idle) or "none"
    told = f"{len(idle)} rules fired nowhere and are expected nowhere here: {names}."
    return f"{table([*header, 'healthy runs'], map(_rule_row, seen), left=4)}\n\n{fill(told, 119, **UNBROKEN)}"


def measured(runs: list[Judged], rules: list[Rule]) -> dict[str, dict[str, str]]:
    """The columns of that table which `trl-diagnostics explain` shows, rule by rule."""
    return {
        one.rule.name: {
            "right when it fired": _right(one)[0],
            "fired when expected": counted(one.recall),
            "fired in healthy runs of its trainers": f"{one.healthy} of {one.healthy_runs}",
        }
        for one in rules_seen(runs, rules)
    }


def _marked(logs: list[Public], looks: str) -> list[Public]:
    return [log for log in logs if log.looks == looks]


def _of(outcomes: list[bool]) -> str:
    return f"{sum(outcomes)} of {len(outcomes)}" if outcomes else NOTHING


def by_repository(logs: list[Public]) -> str:
    """Public logs by the repository that they come from."""
    rows = []
    for repo in sorted({log.repo for log in logs}):
        mine = [log for log in logs if log.repo == repo]
        fine, broken = _marked(mine, "healthy"), _marked(mine, "broken")
        rest = _marked(mine, "suspicious") + _marked(mine, "unsure")
        alarmed = _of([log.alarmed for log in fine])
        warned = [_of([log.warned for log in some]) for some in (fine, broken, rest)]
        rows.append([repo, str(len(mine)), str(sum(log.records for log in mine)), alarmed, *warned])
    header = ["repository", "logs", "records", "healthy: high or critical", "healthy: any warning", "broken: warned"]
    return table([*header, "suspicious, unsure: warned"], rows)


def by_look(logs: list[Public]) -> str:
    """Public logs by what a person said about them; raw and with each repository counting once."""
    rows = []
    for looks in ("healthy", "suspicious", "unsure", "broken"):
        mine = _marked(logs, looks)
        row = [looks, str(len(mine)), str(len({log.repo for log in mine}))]
        for outcomes in ([(log, log.alarmed) for log in mine], [(log, log.warned) for log in mine]):
            row += [_of([outcome for _, outcome in outcomes]), percent(mean_by(lambda log: log.repo, outcomes))]
        rows.append(row)
    header = ["looks", "logs", "repositories", "high or critical", "each repository once", "any warning"]
    return table([*header, "each repository once"], rows)


def of_curve(halves: dict[str, list[Point]]) -> str:
    """One rule under other numbers; the chosen one is marked."""
    rows = []
    for points in zip(*halves.values(), strict=True):
        cells = [counted(share) for one in points for share in (one.caught, one.healthy, one.elsewhere)]
        rows.append([f"{points[0].number:g}{' (chosen)' if points[0].factor == 1 else ''}", *cells])
    names = ("caught", "healthy runs", "other faults")
    return table(["number", *(f"{half}: {name}" for half in halves for name in names)], rows)
