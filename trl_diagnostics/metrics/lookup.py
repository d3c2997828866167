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

"""A metric's name in any spelling goes in, what TRL's source and names.yaml know about it comes out."""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

from ..engine.rule import ANY_TRAINER, Rule
from .catalogue import HOLE, Source, hole_pattern, load_map, names, parse_version, split_key
from .names import MetricMap, known_trainers


@dataclass(frozen=True)
class Logged:
    """
    A key of TRL that carries a metric in a span of releases.

    Args:
        key (`str`):
            Key as TRL logs it; `{hole}` stands for any text.
        trainer (`str`):
            Trainer that logs it.
        since (`str`):
            First release.
        until (`str`, *optional*):
            Last release; `None` while the newest one logs it.
        when (`str`, *optional*):
            Training arguments with which alone it is logged, as an expression.
    """

    key: str
    trainer: str
    since: str
    until: str | None
    when: str | None


def meant_by(text: str, trainer: str | None = None) -> list[str]:
    """
    Canonical names that a spelling may stand for.

    Args:
        text (`str`):
            Canonical name, TRL's key, or an alias, with or without `eval_`.
        trainer (`str`, *optional*):
            Trainer in whose logs it was seen.

    Returns:
        `list[str]`: a canonical name that is spelled so comes first, then what most trainers mean; empty if unknown.
    """
    plain = split_key(text)[1]
    found = dict.fromkeys(name for name in (text, plain) if name in names().names or entries_of_derived(name))
    found |= dict.fromkeys(sorted(_named(plain), key=lambda name: -len(_trainers(name))))
    if trainer:
        meant = _canonical(trainer, plain)
        return [name for name in found if name == meant or hole_pattern(name).fullmatch(meant)]
    return list(found)


def trainers_with(text: str) -> list[str]:
    """Trainers that log a metric of this name, key or alias in some release."""
    logs = is_logged_by if meant_by(text) else lambda trainer, text: is_passed_through(text, trainer)
    return [trainer for trainer in known_trainers() if logs(trainer, text)]


def is_logged_by(trainer: str, text: str) -> bool:
    """Whether a trainer logs a metric of this name, key or alias in some release, in training or evaluation."""
    return _map(trainer).is_logged(split_key(text)[1]) and bool(meant_by(text, trainer))


def _named(text: str) -> dict[str, None]:
    """Names with this key or alias; only if there is none, those whose pattern it fits."""
    exact = [*names().keys.get(text, ()), *names().aliases.get(text, ())]
    found = [source.name for source in exact or names().sources(text)]
    patterns = [name for name in names().names if HOLE.search(name) and hole_pattern(name).fullmatch(text)]
    return dict.fromkeys(found or patterns)


def _trainers(name: str) -> set[str]:
    return {logged.trainer for logged in logged_as(name)}


def is_passed_through(text: str, trainer: str | None = None) -> bool:
    """Whether TRL, or one trainer of it, may log it without a name of ours."""
    plain = split_key(text)[1]
    loggers = _nameless(plain)
    nameless = bool(loggers) if trainer is None else trainer in loggers
    return nameless or any(fnmatchcase(plain, glob) for glob in names().passthrough)


@cache
def _nameless(text: str) -> list[str]:
    return [name for name in known_trainers() if any(entry["key"] == text for entry in load_map(name)["keys"])]


def spellings() -> set[str]:
    """Everything that [`meant_by`] knows, for hints."""
    return {*names().names, *names().keys, *names().aliases, *(item["name"] for item in names().derived)}


def entries_of_derived(name: str) -> list[dict[str, Any]]:
    """The formulas of a derived metric, one per group of trainers."""
    return [item for item in names().derived if item["name"] == name]


def from_transformers(name: str) -> bool:
    """Whether the training loop of transformers logs it for every trainer."""
    keys = [key for group in names().base_keys.values() for key in group]
    return any(source.spelling in keys for source in _sources(name))


def logged_as(name: str) -> list[Logged]:
    """Keys of TRL that carry a canonical name, key by key in the order of names.yaml, then by trainer."""
    groups: dict[tuple[str, str, str | None], list[Logged]] = {}
    for source in _sources(name):
        for row in [row for trainer in known_trainers() for row in _rows(source, trainer)]:
            groups.setdefault((row.key, row.trainer, row.when), []).append(row)
    return [row for rows in groups.values() for row in _merged(rows)]


def _sources(name: str) -> list[Source]:
    return [source for sources in names().keys.values() for source in sources if source.name == name]


def _rows(source: Source, trainer: str) -> list[Logged]:
    if source.trainers is not None and trainer not in source.trainers:
        return []
    found = []
    for entry in load_map(trainer)["keys"]:
        if entry["key"] == source.spelling or HOLE.sub("{}", entry["key"]) == HOLE.sub("{}", source.spelling):
            spans = entry.get("ranges", [(entry["since"], entry["until"])])
            cut = [_overlap((since, until), (source.since, source.until)) for since, until in spans]
            found += [Logged(entry["key"], trainer, *span, entry["when"]) for span in cut if span]
    return found


def _merged(rows: list[Logged]) -> list[Logged]:
    """Rows of one key, trainer and condition as one where their releases overlap: two places of the source log it."""
    merged: list[Logged] = []
    for row in sorted(rows, key=lambda row: parse_version(row.since)):
        last = merged[-1] if merged else None
        if last and _overlap((row.since, row.until), (last.since, last.until)):
            open_end = None in (last.until, row.until)
            until = None if open_end else max(last.until, row.until, key=parse_version)
            merged[-1] = replace(last, until=until)
        else:
            merged.append(row)
    return merged


def _overlap(a: tuple[str, str | None], b: tuple[str | None, str | None]) -> tuple[str, str | None] | None:
    """Releases that lie in both spans."""
    since = max((a[0], b[0] or a[0]), key=parse_version)
    ends = [end for end in (a[1], b[1]) if end is not None]
    until = min(ends, key=parse_version) if ends else None
    if until is not None and parse_version(since) > parse_version(until):
        return None
    return since, until


def looks_at(rule: Rule, name: str) -> bool:
    """Whether a rule judges a metric, or names it in its condition."""
    spelled = {rule.metric, *rule.condition.metrics}
    example = HOLE.sub("x", name)
    if any("*" in text and fnmatchcase(example, text) for text in spelled):
        return True
    trainers = known_trainers() if set(rule.trainers) & set(ANY_TRAINER) else rule.trainers
    return any(_canonical(trainer, text) in (name, f"eval_{name}") for text in spelled for trainer in trainers)


@cache
def _canonical(trainer: str, text: str) -> str:
    return _map(trainer).canonical(text)


@cache
def _map(trainer: str) -> MetricMap:
    return MetricMap(trainer)
