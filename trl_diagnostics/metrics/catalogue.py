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

"""names.yaml and the generated maps come in from the package's files, entries that can be asked about go out."""

import ast
import json
import re
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ..engine.condition import parse_sum
from ..engine.tree import OF_THE_RECORD


FOLDER = Path(__file__).parent
HOLE = re.compile(r"\{\w+\}")
# Trackers (and KTO 0.8) show training and evaluation as folders, where TRL has a prefix for evaluation only.
SPLITS = {"train/": "", "eval/": "eval_", "eval_": "eval_"}


@cache
def parse_version(version: str) -> tuple[int, ...]:
    """`"1.16.0.dev0"` -> `(1, 16, 0)`: a development or candidate release counts as the release it becomes."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    return tuple(parts + [0] * (3 - len(parts)))


@cache
def index() -> dict[str, Any]:
    """Releases and trainers that the maps cover."""
    return json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))


@cache
def load_map(trainer: str) -> dict[str, Any]:
    """The generated map of one trainer."""
    return json.loads((FOLDER / "maps" / f"{trainer}.json").read_text(encoding="utf-8"))


def spans_version(entry: dict[str, Any], version: str) -> bool:
    """Whether a release lies in the `since` and `until` (or the `ranges`) of a map's entry."""
    return any(_between(version, *span) for span in entry.get("ranges", [(entry["since"], entry["until"])]))


def _between(version: str, since: str | None, until: str | None) -> bool:
    at = parse_version(version)
    return (since is None or parse_version(since) <= at) and (until is None or at <= parse_version(until))


@dataclass(frozen=True)
class Source:
    """A spelling (a key, a pattern or an alias) of a name, and where it holds."""

    name: str
    spelling: str
    trainers: tuple[str, ...] | None
    since: str | None
    until: str | None

    def holds(self, trainer: str, version: str) -> bool:
        return (self.trainers is None or trainer in self.trainers) and _between(version, self.since, self.until)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        return hole_pattern(self.spelling)

    def fill(self, key: str) -> str:
        """The name for a key that the spelling matches, what stands in the holes carried over."""
        texts = iter(self.pattern.fullmatch(key).groups())
        return HOLE.sub(lambda match: next(texts), self.name)


def hole_pattern(text: str) -> re.Pattern[str]:
    """`rewards/{name}/mean` as a pattern whose holes are any text without a slash."""
    return re.compile("([^/]+)".join(re.escape(part) for part in HOLE.split(text)))


class Names:
    """names.yaml, indexed by spelling."""

    def __init__(self, text: str):
        # Here and not above: a run that reads no names (`import trl_diagnostics`) does not pay for the parser.
        import yaml

        data = yaml.load(text, Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
        self.names: dict[str, dict[str, Any]] = data["names"]
        self.passthrough: list[str] = data["passthrough"]
        self.base_keys: dict[str, list[str]] = data["base_keys"]
        self.derived: list[dict[str, Any]] = data["derived"]
        self.training_arguments: dict[str, Any] = data["training_arguments"]
        self.other_training_arguments: list[str] = data["other_training_arguments"]
        self.keys = self._index("keys", "key")
        self.aliases = self._index("aliases", "alias")
        self.patterns = [source for spelling in self.keys if HOLE.search(spelling) for source in self.keys[spelling]]
        self.measured = {name for name, entry in self.names.items() if "source" in entry}

    def is_measured(self, name: str) -> bool:
        """Whether it comes from us and not from a trainer; a glob of such names does, too."""
        return name in self.measured or any(
            pattern.fullmatch(name) for pattern in map(hole_pattern, self.measured) if "/" in name
        )

    def _index(self, field: str, spelling: str) -> dict[str, list[Source]]:
        found: dict[str, list[Source]] = {}
        for name, entry in self.names.items():
            for item in entry.get(field, ()):
                item = {spelling: item} if isinstance(item, str) else item
                trainers = tuple(item["trainers"]) if "trainers" in item else None
                source = Source(name, item[spelling], trainers, item.get("since"), item.get("until"))
                found.setdefault(item[spelling], []).append(source)
        return found

    def sources(self, key: str) -> list[Source]:
        """Where a key of TRL is named, exact spellings before patterns."""
        return self.keys.get(key, []) + [source for source in self.patterns if source.pattern.fullmatch(key)]


@cache
def names() -> Names:
    """names.yaml, read once."""
    return Names((FOLDER / "names.yaml").read_text(encoding="utf-8"))


@cache
def typical() -> dict[str, dict[str, list[float]]]:
    """Metric -> trainer -> 5th and 95th percentile in healthy runs; scripts/typical_values.py says in which."""
    return json.loads((FOLDER / "typical.json").read_text(encoding="utf-8"))


def split_key(key: str) -> tuple[str | None, str]:
    """`"eval/loss"` -> `("eval_", "loss")`; `(None, key)` when the key names no split."""
    for start, split in SPLITS.items():
        if key.startswith(start) and key != start:
            return split, key.removeprefix(start)
    return None, key


def canonical_name(trainer: str, key: str, version: str) -> str:
    """The name of a key or pattern that a trainer logs in a release; the key itself where it has no other name."""
    split, key = split_key(key)
    if split is not None:
        return split + canonical_name(trainer, key, version)
    holding = [source for source in names().sources(key) if source.holds(trainer, version)]
    return holding[0].fill(key) if holding else key


def formula_inputs(item: dict[str, Any]) -> set[str]:
    """The metrics that a derived metric's formula names."""
    return {name for name in parse_sum(item["formula"])[1] if name not in OF_THE_RECORD}


def defaults_at(data: dict[str, Any], version: str) -> dict[str, Any]:
    """Defaults of the options in a map at a release."""
    found = {}
    for option, steps in data["defaults"].items():
        valid = [step for step in steps if parse_version(step[0]) <= parse_version(version)]
        if valid and len(valid[-1]) == 2:  # [since] alone says that the option is gone
            found[option] = valid[-1][1]
    return found


def option_holds(expression: str, config: dict[str, Any]) -> bool | None:
    """
    Whether the options of a key's `when` are on.

    Args:
        expression (`str`):
            As in the maps: `"beta != 0.0"`, `"use_vllm and vllm_importance_sampling_correction"`.
        config (`dict[str, Any]`):
            Training arguments.

    Returns:
        `bool` or `None`: `None` where the arguments do not tell.
    """
    return _truth(ast.parse(expression, mode="eval").body, config)


def _truth(node: ast.expr, config: dict[str, Any]) -> bool | None:
    match node:
        case ast.BoolOp(op, values):
            decisive = isinstance(op, ast.Or)  # one true side of an `or`, one false side of an `and`
            sides = [_truth(value, config) for value in values]
            return decisive if decisive in sides else None if None in sides else not decisive
        case ast.Name(name):
            return bool(config[name]) if name in config else None
        case ast.Compare(ast.Name(name), [operator], [ast.Constant() | ast.List() as other]) if name in config:
            return _compare(operator, config[name], ast.literal_eval(other))
    return None


def _compare(operator: ast.cmpop, actual: Any, wanted: Any) -> bool | None:
    values = actual if isinstance(actual, list) else [actual]  # DPO takes a list of loss types
    match operator:
        case ast.Eq() | ast.Is():
            return wanted in values
        case ast.NotEq() | ast.IsNot():
            return wanted not in values
        case ast.In():
            return any(value in wanted for value in values)
    return None
