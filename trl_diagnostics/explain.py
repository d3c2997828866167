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
from typing import Any

from .engine.finding import DiagnosticsError
from .engine.rule import Rule, current_names, select
from .engine.rulebook import BUILTIN
from .engine.yaml_file import suggest
from .metrics.catalogue import formula_inputs, names, split_key
from .metrics.lookup import (
    Logged,
    entries_of_derived,
    from_transformers,
    is_passed_through,
    logged_as,
    looks_at,
    meant_by,
    spellings,
)
from .wording import clauses, in_words, meanings, when_in_words


FLOOR, CEILING = 40, 119  # of the width of a line
FIELDS_OF_A_RECORD = {
    "step": "The optimizer step of a log. Conditions may use it; it is no metric.",
    "time": "When a log was written, in seconds. Conditions may use it; it is no metric.",
}
LOOKING = "Rules that look at it"
TYPICAL = "Typical values (5th to 95th percentile in healthy recorded runs of small models)"


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


def explain(name: str, rules: list[Rule], trainer: str | None = None) -> str:
    """
    Everything about the rule or the metric of this name.

    Args:
        name (`str`):
            Name or old name of a rule, or a metric as TRL, names.yaml or a rule spells it.
        rules (`list[Rule]`):
            All rules.
        trainer (`str`, *optional*):
            Trainer in whose logs the metric was seen, where trainers log different numbers under one key.

    Raises:
        `DiagnosticsError`: for a name that nobody knows, with the nearest one.
    """
    present = {rule.name: rule for rule in rules}
    if name in current_names(rules):
        name = select(rules, [name]).pop()
    if name in present:
        return explain_rule(present[name], rules)
    meant = meant_by(name, trainer)
    if meant:
        return explain_metric(name, meant, rules)
    if name in FIELDS_OF_A_RECORD:
        return _sections(name, {"": FIELDS_OF_A_RECORD[name], LOOKING: _looking(name, rules)})
    if is_passed_through(name) and not meant_by(name):
        looking = _looking(split_key(name)[1], rules)
        return _sections(name, {"": "TRL logs it under this name; rules may use it as it is.", LOOKING: looking})
    hint = suggest(name, {*present, *spellings()})
    where = f" of trainer '{trainer}'" if trainer else ""
    raise DiagnosticsError(f"explain: no rule or metric{where} '{name}'{hint}")


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
    words = in_words(rule)
    first = f"Not before log {rule.min_steps}." if rule.min_steps > 1 else "From the first log on."
    first += " A log is `logging_steps` optimizer steps."
    return [words, first] if words else [*clauses(rule), *(f"- {line}" for line in meanings(rule)), first]


def _measured(rule: Rule) -> list[str]:
    numbers = json.loads((BUILTIN / "accuracy.json").read_text(encoding="utf-8"))
    return [f"{column}: {value or 0}" for column, value in numbers.get(rule.name, {}).items()]


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
            TYPICAL: _typical(name),
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
    ranges = names().typical.get(name, {})
    return [f"{trainer}: {low:g}" + (f" to {high:g}" if high > low else "") for trainer, (low, high) in ranges.items()]


def _uses(name: str) -> list[str]:
    """Derived metrics whose formula names it."""
    found = [item for item in names().derived if name in formula_inputs(item)]
    return list(dict.fromkeys(f"{item['name']} = {item['formula']}" for item in found))


def _looking(name: str, rules: list[Rule]) -> list[str]:
    looking = sorted((rule for rule in rules if looks_at(rule, name)), key=lambda rule: (-rule.severity, rule.name))
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
