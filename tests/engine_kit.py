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

"""A condition and numbers go in, the verdict at each point or the findings of an engine come out."""

from trl_diagnostics.engine.condition import parse_condition
from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Record, Severity
from trl_diagnostics.engine.history import History
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.engine.value import Scope
from trl_diagnostics.engine.verdict import bind_test
from trl_diagnostics.engine.when import parse_when


NOT_LOGGED = "_"


def verdicts(text, window=20, config=None, lower_is_better=(), warmup=0, **series):
    """Verdict of a condition after each point; `value` is the rule's own metric, other keywords are other metrics."""
    condition, histories, records = parse_condition(text), {}, [0]
    scope = Scope(
        lambda name: histories.setdefault(name, History(name in lower_is_better)),
        (config or {}).get,
        window,
        lambda: records[0],
        lambda: records[0],
    )
    verdict = bind_test(condition.test, scope)
    result = []
    for i in range(max(map(len, series.values()))):
        records[0] += 1
        for name, points in series.items():
            if name in histories and points[i] != NOT_LOGGED:
                histories[name].push(points[i], i >= warmup)
                histories[name].last_record = records[0]
        result.append(verdict())
    return result


def rule(condition, name="r", metric="m", severity="high", trainers=("all",), when=None, **fields):
    """A rule that may speak from its first point on, unless the test says otherwise."""
    parsed = parse_condition(condition)
    fields = {"message": "{metric} at {value}", "window": 1 if parsed.has_for else 20, "min_steps": 1, **fields}
    predicates = {key: parse_when(value) for key, value in (when or {}).items()}
    return Rule(name, trainers, metric, parsed, Severity[severity.upper()], when=predicates, **fields)


def records(phase="train", first=1, **series):
    """One record per point; a keyword `a__b` is the metric `a/b`, `"_"` is not logged."""
    columns = {name.replace("__", "/"): points for name, points in series.items()}
    for i in range(max(map(len, columns.values()))):
        metrics = {name: points[i] for name, points in columns.items() if points[i] != NOT_LOGGED}
        yield Record(first + i, float(i), phase, metrics)


def feed(rules, trainer=None, config=None, metric_map=None, **series):
    """All findings of a fresh engine."""
    engine = Engine(rules, trainer, config, metric_map)
    return [finding for record in records(**series) for finding in engine.update(record)]


def episodes(rules, **kwargs):
    """Findings as (rule, state, step)."""
    return [(f.rule, f.state, f.step) for f in feed(rules, **kwargs)]


def spans(condition, m, **fields):
    """Steps at which a rule on metric `m` starts and resolves: `[("started", 4), ("resolved", 9)]`."""
    return [(state, step) for _, state, step in episodes([rule(condition, **fields)], m=m)]
