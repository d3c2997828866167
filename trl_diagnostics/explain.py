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

"""A rule or a metric goes in, what a person should know about it comes out as text for a terminal."""

import json
import shutil
import textwrap
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from .engine.finding import DiagnosticsError
from .engine.rule import Rule, current_names, select
from .engine.rulebook import BUILTIN
from .engine.tree import OF_THE_RECORD, Condition, Function, Metric, Statistic, walk
from .engine.verdict import SPIKE_POINTS
from .engine.when import Predicate
from .engine.yaml_file import suggest
from .metrics.catalogue import formula_inputs, names, split_key, typical
from .metrics.lookup import (
    Logged,
    entries_of_derived,
    from_transformers,
    is_logged_by,
    is_passed_through,
    logged_as,
    looks_at,
    meant_by,
    spellings,
    trainers_with,
)
from .metrics.names import MetricMap


FLOOR, CEILING = 40, 119  # of the width of a line
# Names of the condition language that are no metrics.
OF_THE_LANGUAGE = {
    "step": "The optimizer step of a log. Conditions may use it; it is no metric.",
    "time": "When a log was written, in seconds. Conditions may use it; it is no metric.",
    "config.samples_per_log": "How many samples one log is the mean of, over all processes: "
    "per_device_train_batch_size x gradient_accumulation_steps x logging_steps x world_size / num_iterations. "
    "Conditions may use it; it is no metric. A rate over n samples scatters by up to 0.5 / sqrt(n).",
    "config.world_size": "The number of processes that train. Conditions may use it; it is no metric.",
}
# What functions and statistics mean, for those that do not say it by their name.
MEANINGS = {
    "range": "range(a, b): the mean of the window is from a to b",
    "outside": "outside(a, b): the mean of the window is below a or above b",
    "baseline": "baseline(x, n): mean of the first n logs past warm-up",
    "best": "best(x, n): best mean of n logs in a row since the start",
    "worst": "worst(x, n): worst mean of n logs in a row since the start",
    "mad": "mad(x, n): median distance from the median of the last n logs",
    "count": "count(x, n): how many of the last n logs are finite",
    "last": "last(x): the last log alone",
    "delta": "delta(x): the last log minus the one before",
    "slope": "slope(x, n): of the straight line through the last n logs, per log",
    "drop": "drop(y): the mean of the window is y below that of the first window past warm-up",
    "rise": "rise(y): the mean of the window is y above that of the first window past warm-up",
    "plateau": "plateau(y): the two halves of the window differ by at most y",
    "spike": f"spike(k): one of the last {SPIKE_POINTS} logs is above k times the mean of the window before these",
    "outlier": "outlier(k): the last log is above the median of the window before it by k median distances",
    "trend": "trend: the window rises or falls by more than its noise explains",
    "frozen": "frozen: all logs of the window are one and the same number",
    "missing": "missing: in none of the logs of the window",
    "nonfinite": "nonfinite: the last log is NaN or infinite",
    "null": "null: the last log is null",
}
SAMPLES = "config.samples_per_log: samples in one log, over all processes"
OF_THE_LAST_LOG = ("last", "delta", "nonfinite", "null")
LOOKING = "Rules that look at it"
TYPICAL = (
    "5th to 95th percentile of all logs of recorded healthy runs: small models really trained, none replayed, even "
    "seeds, default loss."
)


def wrapped(text: str, first: str = "  ", rest: str | None = None) -> str:
    """One paragraph as wide as the terminal, 119 columns at most."""
    width = max(FLOOR, min(shutil.get_terminal_size((CEILING, 24)).columns, CEILING))
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def explain_all(texts: Iterable[str], rules: list[Rule], trainer: str | None = None) -> str:
    """Everything about the rules and metrics of some names or globs, as [`explain`] does for one name."""
    found = dict.fromkeys(name for text in texts for name in _matching(text, rules, trainer))
    return "\n\n\n".join(explain(name, rules, trainer) for name in found)


def _matching(text: str, rules: list[Rule], trainer: str | None) -> list[str]:
    """Rules, then metrics, that a glob fits; a name stays as it is, and so does a glob that fits nothing."""
    if set("*?[").isdisjoint(text):
        return [text]
    found = sorted(rule.name for rule in rules if fnmatchcase(rule.name, text))
    metrics = sorted(spelling for spelling in spellings() if fnmatchcase(spelling, text))
    logged = [metric for metric in metrics if trainer is None or is_logged_by(trainer, metric)]
    return [*found, *dict.fromkeys(meant_by(metric, trainer)[0] for metric in logged)] or [text]


def explain(name: str, rules: list[Rule], trainer: str | None = None) -> str:
    """
    Everything about the rule or the metric of this name.

    Args:
        name (`str`):
            Name or old name of a rule, or a metric as TRL, names.yaml or a rule spells it.
        rules (`list[Rule]`):
            All rules.
        trainer (`str`, *optional*):
            Trainer in whose logs the metric was seen, where trainers log different numbers under one key; only its
            rules are listed.

    Raises:
        `DiagnosticsError`: for a name that nobody knows, with the nearest one, or that the trainer does not log.
    """
    present = {rule.name: rule for rule in rules}
    if name in current_names(rules):
        name = select(rules, [name]).pop()
    if name in present:
        return explain_rule(present[name], rules)
    if trainer:
        family = MetricMap(trainer).family
        rules = [rule for rule in rules if rule.applies_to(family)]
    for own in (name, f"config.{name}"):
        if own in OF_THE_LANGUAGE:
            return _sections(own, {"": OF_THE_LANGUAGE[own], LOOKING: _looking(own, rules)})
    if not set("{}").isdisjoint(name) and name not in spellings():
        raise DiagnosticsError(f"explain: '{name}' is no name; write it as it is logged, without braces")
    if (meant := meant_by(name, trainer)) and (trainer is None or is_logged_by(trainer, name)):
        return explain_metric(name, meant, rules)
    if is_passed_through(name, trainer) and not meant_by(name):
        looking = _looking(split_key(name)[1], rules)
        return _sections(name, {"": "TRL may log it under this name; rules may use it as it is.", LOOKING: looking})
    if trainer and (others := trainers_with(name)):
        do = "does" if len(others) == 1 else "do"
        raise DiagnosticsError(f"explain: {trainer} does not log {name}; {', '.join(others)} {do}")
    raise DiagnosticsError(f"explain: no rule or metric '{name}'{suggest(name, {*present, *spellings()})}")


def explain_rule(rule: Rule, rules: list[Rule]) -> str:
    """One rule: when it speaks, what it says, why, and what to do."""
    silences = [other for other in rules if rule.name in other.unless or set(rule.renamed_from) & set(other.unless)]
    causes = [other for other in rules if other.name in rule.unless or set(other.renamed_from) & set(rule.unless)]
    off = "" if rule.enabled else "; off unless a rule of this name with enabled: true replaces it"
    return _sections(
        f"{rule.name}: {rule.description}",
        {
            "": f"{rule.severity}, {rule.status}; trainers: {', '.join(rule.trainers)}{off}",
            "Speaks when": _condition(rule),
            "Only where": when_in_words(rule.when),
            "Says": rule.message,
            "Why": rule.why,
            "What to do": rule.fix,
            "Wrong when": list(rule.false_positives),
            "Silent while one of these explains it": _described(causes),
            "While it speaks, these are silent": _described(silences),
            "Earlier names": ", ".join(rule.renamed_from),
            "Measured on held-out runs": _measured(rule),
            "References": list(rule.reference),
        },
    )


def _condition(rule: Rule) -> list[str]:
    first = f"Not before log {rule.min_steps}." if rule.min_steps > 1 else "From the first log on."
    first += " A log is `logging_steps` optimizer steps."
    return [*clauses(rule), *(f"- {line}" for line in meanings(rule)), first]


def meanings(rule: Rule) -> list[str]:
    """What the names in a rule's condition mean, one line each."""
    nodes = [node for node in walk(rule.condition.test) if isinstance(node, Metric | Statistic | Function)]
    used = {node.name for node in nodes if not isinstance(node, Metric)}
    bare = any(isinstance(node, Metric) and node.metric not in OF_THE_RECORD for node in nodes) and rule.window > 1
    own = any(node.metric == "value" for node in nodes)
    lines = [f"value, or no name at all: {rule.metric}"] * own
    lines += [text for name, text in MEANINGS.items() if name in used]
    lines += ["a metric without a function: its mean over the window"] * bare
    if bare or any(_has_window(node) for node in nodes):
        lines.append(f"window: the last {rule.window} logs" if rule.window > 1 else "window: the last log")
    return lines + [SAMPLES] * ("samples_per_log" in rule.condition.configs) + _streak(rule.condition)


def _has_window(node: Metric | Statistic | Function) -> bool:
    """Whether a node looks at as many logs as the rule's window has."""
    if isinstance(node, Metric) or node.name in OF_THE_LAST_LOG:
        return False
    return isinstance(node, Function) or node.n is None


def _streak(condition: Condition) -> list[str]:
    n, of = condition.streak, condition.of
    if of == 1:
        return []
    return [
        f"for {n} steps: at {n} logs in a row" if n == of else f"for {n} of {of} steps: at {n} of the last {of} logs"
    ]


def clauses(rule: Rule) -> list[str]:
    """A rule's condition as written, a line for each part outside of parentheses that `and`, `or` and `for` join."""
    lines, depth = [""], 0
    for word in rule.condition.text.split():
        if word in ("and", "or", "for") and depth == 0:
            lines.append("")
        depth += word.count("(") - word.count(")")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def when_in_words(when: dict[str, tuple[Predicate, ...]]) -> str:
    """The training arguments that a rule is for: `beta > 0, loss_type is grpo or dapo`."""
    return ", ".join(f"{key} {' or '.join(_predicates(any_of))}" for key, any_of in when.items())


def _predicates(any_of: tuple[Predicate, ...]) -> list[str]:
    """`is` stands only before the first of several values."""
    texts, last = [], ""
    for operator, wanted in any_of:
        word = {"==": "is", "!=": "is not"}.get(operator, operator)
        value = f"{wanted:g}" if isinstance(wanted, float) else "null" if wanted is None else wanted
        texts.append(f"{'' if word == last else word + ' '}{value}")
        last = word
    return texts


def _measured(rule: Rule) -> list[str]:
    if rule.document is None or BUILTIN not in rule.document.path.parents:  # the user's own, whatever its name
        return []
    numbers = json.loads((BUILTIN / "accuracy.json").read_text(encoding="utf-8"))
    return [f"{column}: {value}" for column, value in numbers.get(rule.name, {}).items()]


def _described(rules: Iterable[Rule]) -> list[str]:
    return [f"{rule.name}: {rule.description}" for rule in rules]


def explain_metric(text: str, meant: list[str], rules: list[Rule]) -> str:
    """
    One metric, and what else goes by the same name.

    Args:
        text (`str`):
            As the user spelled it.
        meant (`list[str]`):
            Canonical names that this may be; the first is explained.
        rules (`list[Rule]`):
            All rules.
    """
    name = meant[0]
    entry, formulas = names().names.get(name, {}), entries_of_derived(name)
    better = (entry or formulas[0]).get("better")
    units = dict.fromkeys([entry["unit"]] if entry else [item["unit"] for item in formulas])
    title = f"{name} ({', '.join(units)}" + (f"; {better} is better)" if better else ")")
    evaluation = split_key(text)[0] and split_key(name)[0] is None
    return _sections(
        title,
        {
            "": entry["meaning"] if entry else list(dict.fromkeys(item["meaning"] for item in formulas)),
            "In evaluation": f"'{text}' is the same quantity on the evaluation data." if evaluation else "",
            "Where it comes from": _keys(name),
            "Computed from other metrics": [_formula(item) for item in formulas],
            "Rules may also call it": ", ".join(_aliases(entry)),
            "Typical values": _typical(name),
            "Computed from it": _uses(name),
            LOOKING: _looking(name, rules),
            f"Also called {split_key(text)[1]}": [_other(other) for other in meant[1:]],
        },
    )


def _keys(name: str) -> list[str]:
    by_key: dict[str, list[Logged]] = {}
    for row in logged_as(name):
        by_key.setdefault(row.key + (f" (if {row.when})" if row.when else ""), []).append(row)
    lines = [f"{key}: {'; '.join(_spans(rows))}" for key, rows in by_key.items()]
    if from_transformers(name):
        lines.append(
            "Every trainer with the training loop of transformers logs it (PPO and older RLOO have their own)."
        )
    if "source" in names().names.get(name, {}):
        lines.append("DiagnosticsCallback measures it; TRL does not log it.")
    return lines


def _spans(rows: list[Logged]) -> list[str]:
    """Trainers with the same releases together: `cpo, orpo since 0.8.2`."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        span = f"since {row.since}" if row.until is None else f"{row.since} to {row.until}"
        groups.setdefault(span, []).append(row.trainer)
    return [f"{', '.join(dict.fromkeys(trainers))} {span}" for span, trainers in groups.items()]


def _formula(item: dict[str, Any]) -> str:
    trainers = f" for {', '.join(item['trainers'])}" if "trainers" in item else ""
    when = "; ".join(f"{key} {_values(value)}" for key, value in item.get("when", {}).items())
    return item["formula"] + trainers + (f", with {when}" if when else "")


def _values(value: Any) -> str:
    items = value if isinstance(value, list) else [value]
    return " or ".join("null" if item is None else str(item) for item in items)


def _aliases(entry: dict[str, Any]) -> list[str]:
    return [item if isinstance(item, str) else item["alias"] for item in entry.get("aliases", ())]


def _typical(name: str) -> list[str]:
    ranges = typical().get(name, {}).items()
    lines = [f"{trainer}: {low:g}" + (f" to {high:g}" if high > low else "") for trainer, (low, high) in ranges]
    return [TYPICAL, *lines] if lines else []


def _uses(name: str) -> list[str]:
    """Derived metrics whose formula names it."""
    found = [item for item in names().derived if name in formula_inputs(item)]
    return list(dict.fromkeys(f"{item['name']} = {item['formula']}" for item in found))


def _looking(name: str, rules: list[Rule]) -> list[str]:
    argument = name.removeprefix("config.") if name.startswith("config.") else None
    found = [rule for rule in rules if argument in rule.condition.configs or looks_at(rule, name)]
    looking = sorted(found, key=lambda rule: (-rule.severity, rule.name))
    return [f"{rule.name} ({rule.severity}): {rule.description}" for rule in looking]


def _other(name: str) -> str:
    trainers = ", ".join(sorted({row.trainer for row in logged_as(name)}))
    entry = names().names.get(name) or entries_of_derived(name)[0]
    return f"{name}{f' ({trainers})' if trainers else ''}: {entry['meaning']}"


def _sections(title: str, sections: dict[str, str | list[str]]) -> str:
    """A title and blocks with a heading each; empty ones are left out."""
    parts = [wrapped(title, "", "  ")]
    for heading, body in sections.items():
        lines, rest = ([body], "  ") if isinstance(body, str) else (body, "      ")
        text = "\n".join(wrapped(line, "  ", rest) for line in lines if line)
        if text:
            parts.append(f"\n{heading}\n{text}" if heading else text)
    return "\n".join(parts)
