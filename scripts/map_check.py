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

"""One TRL release and the committed maps go in, the differences come out, with the rules that each one breaks."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

from trl_source import Release, Trainer

from trl_diagnostics.engine.rule import Rule, load_rules
from trl_diagnostics.metrics.catalogue import (
    defaults_at,
    formula_inputs,
    index,
    load_map,
    parse_version,
    spans_version,
)
from trl_diagnostics.metrics.names import MetricMap


def release_at(version: str) -> str:
    """The release in the maps that a version is compared with: itself, else the newest one before it."""
    known = index()["releases"]
    older = [item for item in known if parse_version(item) <= parse_version(version)]
    return version if version in known else (older or known)[-1 if older else 0]


def check(release: Release, rules: Path) -> list[str]:
    """All differences between a release and the maps, one text each."""
    at = release_at(release.version)
    found = release.trainers()
    committed = {name: load_map(name) for name in index()["trainers"]}
    expected = {name: data for name, data in committed.items() if spans_version(data, at)}
    problems = [
        f"{name}: trainer is gone; {_broken_text(name, None, at, rules)}" for name in set(expected) - set(found)
    ]
    problems += [f"{name}: trainer is not in the maps" for name in set(found) - set(expected)]
    for name in sorted(set(found) & set(expected)):
        problems += _trainer_problems(expected[name], found[name], at, rules)
    return sorted(problems)


def _trainer_problems(data: dict, trainer: Trainer, at: str, rules: Path) -> list[str]:
    name = trainer.name
    entries = {(e["key"], e.get("tracker", False)): e for e in data["keys"] if spans_version(e, at)}
    problems = []
    for identity in sorted(set(entries) - set(trainer.keys)):
        text = _broken_text(name, identity[0], at, rules)
        problems.append(f"{name}: key '{identity[0]}' is gone; {text}")
    problems += [f"{name}: key '{key}' is not in the map" for key, tracker in sorted(set(trainer.keys) - set(entries))]
    if at == index()["releases"][-1]:
        for identity in sorted(set(entries) & set(trainer.keys)):
            was, now = entries[identity]["when"], trainer.keys[identity].when
            problems += [f"{name}: key '{identity[0]}' depends on {now!r}, the map says {was!r}"] if was != now else []
    return problems + _default_problems(data, trainer, at)


def _default_problems(data: dict, trainer: Trainer, at: str) -> list[str]:
    expected = defaults_at(data, at)
    problems = []
    for option in sorted(set(expected) | set(trainer.defaults)):
        was, now = expected.get(option, "absent"), trainer.defaults.get(option, "absent")
        if repr(was) != repr(now):
            problems.append(f"{trainer.name}: default of {option} is {now!r}, the map says {was!r}")
    return problems


def _broken_text(trainer: str, key: str | None, at: str, rules: Path) -> str:
    broken = broken_rules(trainer, key, at, rules)
    return f"rules that break: {', '.join(broken)}" if broken else "no rule uses it"


def broken_rules(trainer: str, key: str | None, at: str, rules: Path) -> list[str]:
    """
    Rules that lose a metric.

    Args:
        trainer (`str`):
            Trainer that no longer logs the key.
        key (`str` or `None`):
            The key; `None` when the whole trainer is gone.
        at (`str`):
            Release that the maps are read at.
        rules (`Path`):
            Folder of rule files.
    """
    metrics = MetricMap(trainer, at)
    lost = None if key is None else metrics.canonical(key)
    others = [entry["key"] for entry in load_map(trainer)["keys"] if spans_version(entry, at) and entry["key"] != key]
    if lost is not None and lost in {metrics.canonical(other) for other in others}:
        return []
    broken = []
    for rule in load_rules(rules):
        uses = lost is None or any(_same(lost, name) for name in _used(rule, metrics))
        if uses and rule.applies_to(metrics.family):
            broken.append(f"{rule.name} ({rule.document.path.relative_to(rules)})")
    return broken


def _used(rule: Rule, metrics: MetricMap) -> set[str]:
    """Canonical names that a rule reads, through derived metrics as well."""
    names = {metrics.canonical(name.removeprefix("eval_")) for name in (rule.metric, *rule.condition.metrics)}
    formulas = [item for item in metrics.derived if item["name"] in names]
    return names.union(*({metrics.canonical(name) for name in formula_inputs(item)} for item in formulas))


def _same(lost: str, name: str) -> bool:
    return lost == name or fnmatchcase(re.sub(r"\{\w+\}", "x", lost), name)
