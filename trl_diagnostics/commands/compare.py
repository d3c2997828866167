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

"""Arguments of `compare` go in; what differs between two runs, and which one is better, comes out."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison import FEWEST, Compared, Series, collect_series, compare_series, corrected, goal, incomparable
from ..diagnosis import Diagnosis
from ..engine.finding import DiagnosticsError, Finding, Severity
from ..engine.yaml_file import suggest
from ..explain import wrapped
from ..metrics.names import MetricMap
from ..sinks.console import problems
from ..sources.resume import Difference, differences
from ..words import count, number
from .arguments import is_as_bad, release_named, trainer_named
from .results import Result, one_run
from .terminal import UNLIMITED, broken, columns, cut, print_json, say, show, table


SCHEMA_VERSION = 1
MOST_ROWS = 12
BESIDE = 64  # columns beside the name of a metric
NOT_CURVES = {"epoch", "inner_epoch", "num_tokens", "num_input_tokens_seen", "total_flos", "learning_rate"}
TOLD_BY_ROWS = {"logging_steps", "max_steps", "warmup_steps"}  # arguments that any log gives away
# What differs between any two runs and says nothing.
OF_THE_PLACE = ("output_dir", "logging_dir", "run_name", "hub_model_id")
HOW = (
    "A t-test on the differences at equal steps, its sample size reduced by their autocorrelation. It tells whether "
    "these two runs differ, not whether the setting does: another seed may differ as much."
)
MANY = "For all but the first metric p is corrected for their number (Benjamini-Hochberg)."


@dataclass(frozen=True)
class Answer:
    """Which run is better (`"A"`, `"B"`, or `None` where that cannot be told), and why, in one sentence."""

    better: str | None
    because: str
    metric: str | None = None


def run(args: argparse.Namespace) -> int:
    """Compare two runs."""
    trainer, release = trainer_named(args.trainer), release_named(args.trl_version)
    a, b = (one_run(path, trainer, release) for path in (args.a, args.b))
    metric_map = MetricMap(a.diagnosis.run.trainer, a.diagnosis.run.trl_version)
    series = [collect_series(result.diagnosis.run.records()) for result in (a, b)]
    found = compare_series(*series, metric_map)
    answer = _answer(a.diagnosis, b.diagnosis, found, args.metric and metric_map.canonical(args.metric))
    changes = differing(a.diagnosis, b.diagnosis)
    first = [one for one in found if one.metric == answer.metric]
    curves = first + corrected(one for one in found if one.metric != answer.metric and one.metric not in NOT_CURVES)
    if args.json:
        print_json(_document(a, b, answer, changes, curves))
    else:
        _print(a, b, answer, changes, curves, series)
    is_worse = answer.better == "A" and args.fail_on != "never"
    return int(is_worse or is_as_bad(only(b.diagnosis, a.diagnosis), args.fail_on))


def only(one: Diagnosis, other: Diagnosis) -> list[Finding]:
    """The problems of a run that another run has not, the first episode of each, causes first."""
    known = {finding.rule for finding in _problems(other)}
    return [finding for finding in _problems(one) if finding.rule not in known]


def _problems(diagnosis: Diagnosis) -> list[Finding]:
    first: dict[str, Finding] = {}
    for same in problems(diagnosis.findings):
        first.setdefault(same[0].rule, min(same, key=lambda finding: finding.first_step))
    return list(first.values())


def _answer(a: Diagnosis, b: Diagnosis, found: list[Compared], asked: str | None) -> Answer:
    """Weights that are ruined decide, then the metric that the trainer is for, then a run that is probably wasted."""
    by_name, config = {one.metric: one for one in found}, [_trainer(one) | one.run.config for one in (a, b)]
    if asked and asked not in by_name:
        raise DiagnosticsError(f"--metric: the runs have no steps in common with '{asked}'{suggest(asked, by_name)}")
    metric, passed = (asked, []) if asked else goal(found, *config)
    if ruined := _spoilt(a, b, Severity.CRITICAL):
        return Answer(*ruined, metric)
    winner, because = None, "; ".join(passed) or "the runs share no metric that tells which one is better"
    if metric is not None:
        winner, because = by_name[metric].winner, "; ".join([_because(by_name[metric]), *passed])
        if reasons := incomparable(metric, *config):
            because += f"; but mind that {', '.join(reasons)} differ{'s' * (len(reasons) == 1)}"
    if winner is None and (wasted := _spoilt(a, b, Severity.HIGH)):
        return Answer(wasted[0], f"{wasted[1]}; {because}", metric)
    return Answer(winner, because, metric)


def _spoilt(a: Diagnosis, b: Diagnosis, level: Severity) -> tuple[str, str] | None:
    """The other run, and why, if one run only has a finding that bad."""
    worst = [[finding for finding in _problems(one) if finding.level >= level] for one in (a, b)]
    if bool(worst[0]) == bool(worst[1]):
        return None
    better, other, finding = ("B", "A", worst[0][0]) if worst[0] else ("A", "B", worst[1][0])
    return better, f"{other} has {finding.rule} ({finding.severity}) since step {finding.first_step}"


def _because(one: Compared) -> str:
    said = f"{one.metric} is {number(one.a)} in A and {number(one.b)} in B {_span(one)}"
    if one.p is None:
        few = f"{count(one.common, 'log')} in common, {FEWEST} are needed"
        return f"{said}; too little to tell ({few if one.common < FEWEST else 'each log is nearly the one before'})"
    p = _p(one.p) if one.p < 0.001 else f"= {_p(one.p)}"
    return f"{said} ({_difference(one)}, p {p})"


def _span(one: Compared) -> str:
    if one.points == 1:
        return f"at step {one.last_step:.0f}"
    return f"over steps {one.first_step:.0f} to {one.last_step:.0f}"


def _difference(one: Compared) -> str:
    return f"{one.b - one.a:+.3g}, 95 % interval {one.low:+.3g} to {one.high:+.3g}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def differing(a: Diagnosis, b: Diagnosis) -> list[Difference]:
    """Arguments, data, model and packages that both runs know and that differ, the important ones first."""
    known = [{"arguments": d.run.config} | _trainer(d) | d.run.metadata for d in (a, b)]
    return [one for one in differences(*known) if one.field not in OF_THE_PLACE]


def _trainer(diagnosis: Diagnosis) -> dict[str, str]:
    """What trained a run, where that is known."""
    trainer = diagnosis.run.trainer
    return {} if trainer == "unknown" else {"trainer": trainer}


def _print(
    a: Result,
    b: Result,
    answer: Answer,
    changes: list[Difference],
    curves: list[Compared],
    series: list[dict[str, Series]],
) -> None:
    verdict = f"{answer.better} is better" if answer.better else "Neither is known to be better"
    say(wrapped(f"{verdict}: {answer.because}.", "", "  "))
    say("")
    for name, result in (("A", a), ("B", b)):
        say(wrapped(f"{result.path}: {_described(result)}", f"{name}  ", "   "))
    _print_config(a, b, changes)
    if curves:
        one = curves[0]
        say(f"\nCurves, means {_span(one)} ({count(one.points, 'log')} in common)")
        show(table(["metric", "better", "A", "B", "B - A (95 %)", "p"], _rows(answer, curves), NUMBERS))
        if any(change.topic == "dataset" for change in changes):
            say("They were trained on different data: metrics of training may differ for that alone.")
    _print_holes(series)
    _print_findings(a.diagnosis, b.diagnosis)
    if any(one.p is not None for one in curves):
        say("\n" + wrapped(f"{HOW} {MANY}", "", ""))


NUMBERS = ("A", "B", "B - A (95 %)", "p")


def _described(result: Result) -> str:
    diagnosis = result.diagnosis
    return f"{diagnosis.run.trainer}, {count(diagnosis.records, 'log')} up to step {diagnosis.last_step}, {result.verdict}"


def _print_config(a: Result, b: Result, changes: list[Difference]) -> None:
    unknown = [name for name, result in (("A", a), ("B", b)) if result.diagnosis.run.config.keys() <= TOLD_BY_ROWS]
    if unknown:
        say(f"\nThe log of {' and of '.join(unknown)} does not have the training arguments.")
    elif not changes:
        say("\nArguments, data, model and packages are the same.")
    if changes:
        say("\nWhat differs")
        show(
            table(["", "A", "B"], [[one.field, _value(one.before), _value(one.after)] for one in changes[:MOST_ROWS]])
        )
        if len(changes) > MOST_ROWS:
            say(f"and {len(changes) - MOST_ROWS} more (all with --json)")


def _value(value: Any) -> str:
    return number(value) if isinstance(value, float) else cut(str(value), 24)


def _rows(answer: Answer, curves: list[Compared]) -> list[list[str]]:
    """The goal, then what differs, then what has a better direction."""

    def key(one: Compared) -> tuple:
        return (one.metric != answer.metric, one.p is None or one.p >= 0.05, one.better is None)

    rows = []
    differing = [one for one in curves if one.a != one.b or one.metric == answer.metric]
    for one in sorted(differing, key=key)[:MOST_ROWS]:
        apart = ["", "-"] if one.p is None else [f"{one.low:+.3g} to {one.high:+.3g}", _p(one.p)]
        rows.append(
            [
                broken(one.metric, max(columns(UNLIMITED) - BESIDE, 16)),
                one.better or "",
                number(one.a),
                number(one.b),
                *apart,
            ]
        )
    return rows


def _print_holes(series: list[dict[str, Series]]) -> None:
    for name, metrics in zip("AB", series, strict=True):
        holes = [f"{m} ({one.holes:,}, first at step {one.first_hole:.0f})" for m, one in metrics.items() if one.holes]
        if holes:
            say(wrapped(f"Left out in {name}, since NaN, infinite or null: {', '.join(holes)}", "", "  "))


def _print_findings(a: Diagnosis, b: Diagnosis) -> None:
    known = {finding.rule for finding in _problems(b)}
    groups = {
        "only in A": only(a, b),
        "only in B": only(b, a),
        "in both": [finding for finding in _problems(a) if finding.rule in known],
    }
    say("\nFindings" if any(groups.values()) else "\nFindings: none in either")
    for heading, findings in groups.items():
        for finding in findings:
            said = f"[{finding.severity.upper()}] {finding.rule} since step {finding.first_step}: {finding.message}"
            say(wrapped(said, f"  {heading.ljust(9)}  ", " " * 13))


def _document(
    a: Result, b: Result, answer: Answer, changes: list[Difference], curves: list[Compared]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "better": answer.better,
        "because": answer.because,
        "metric": answer.metric,
        "method": f"{HOW} {MANY}",
        "runs": {"A": _entry(a), "B": _entry(b)},
        "differences": [one.to_json() for one in changes],
        "metrics": [{**vars(one), "winner": one.winner} for one in curves],
        "findings": {"only_a": only(a.diagnosis, b.diagnosis), "only_b": only(b.diagnosis, a.diagnosis)},
    }


def _entry(result: Result) -> dict[str, Any]:
    run = result.diagnosis.run
    return {
        "path": Path(run.path),
        "kind": run.kind,
        "trainer": run.trainer,
        "trl_version": run.trl_version,
        "records": result.diagnosis.records,
        "last_step": result.diagnosis.last_step,
        "verdict": result.verdict,
    }
