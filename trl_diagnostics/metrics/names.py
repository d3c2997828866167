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

"""A trainer, a TRL version and a raw log go in, a record of canonical names and floats comes out."""

import re
from fnmatch import fnmatchcase
from functools import cache, cached_property
from typing import Any

from ..engine.tree import OF_THE_RECORD
from .catalogue import (
    HOLE,
    Source,
    defaults_at,
    formula_inputs,
    hole_pattern,
    index,
    load_map,
    names,
    option_holds,
    parse_version,
    spans_version,
    split_key,
)


PLAIN = {float, type(None)}
STRING = {str}


class _Canonical(dict):
    """Raw key -> canonical name, filled on first sight: a log repeats its keys a million times."""

    def __init__(self, metric_map: "MetricMap"):
        super().__init__()
        self._resolve = metric_map._resolve

    def __missing__(self, key: Any) -> str:
        name = self[key] = self._resolve(str(key))
        return name


class MetricMap:
    """
    The metrics of one trainer in one TRL release.

    Args:
        trainer (`str`):
            Trainer class name in lower case without `Trainer`; underscores do not count. A trainer that TRL does not
            have gets the names that all trainers share.
        version (`str`, *optional*):
            TRL release, such as `"0.16.1"`. By default all releases count as one: every key the trainer ever logged is
            known, and where the meaning of a key changed, the newest one counts.

    Attributes:
        bases (`tuple[str, ...]`):
            Trainers whose class this one extends, so that their rules apply to it too.

    Example:

    ```python
    >>> from trl_diagnostics import MetricMap

    >>> MetricMap("dpo").record({"rewards/margins": 0.5, "eval_rewards/accuracies": 0.75})
    {'reward_margin': 0.5, 'eval_win_rate': 0.75}
    ```
    """

    def __init__(self, trainer: str, version: str | None = None):
        self.trainer = trainer.lower().replace("_", "")
        self._known = self.trainer in index()["trainers"]
        self._map = load_map(self.trainer) if self._known else None
        self.bases: tuple[str, ...] = tuple(self._map["bases"]) if self._known else ()
        last = index()["trainers"][self.trainer]["until"] if self._known else None
        self._at = version or last or index()["releases"][-1]
        self._any_release = version is None
        entries = [entry for entry in self._map["keys"] if not entry.get("user")] if self._known else []
        self._keys = [entry["key"] for entry in entries if version is None or spans_version(entry, version)]
        self._cache = _Canonical(self)

    @property
    def family(self) -> tuple[str, ...]:
        """The trainer and its bases: a rule for any of them applies to it."""
        return (self.trainer, *self.bases)

    @cached_property
    def _loop(self) -> str:
        steps = [step for step in self._map["loop"] if len(step) == 2]  # [since] alone ends the trainer
        valid = [step for step in steps if parse_version(step[0]) <= parse_version(self._at)]
        return (valid or steps)[-1][1]

    @cached_property
    def _logged(self) -> set[str]:
        """Canonical names and patterns of everything that the trainer logs."""
        own = {self._name_of(key) for key in self._keys} | names().measured
        if not self._known:
            return own | set(names().names)
        own |= set() if self._loop == "tracker" else set(names().base_keys["all"])
        if self._loop == "transformers":
            own |= {self._name_of(key) for key in names().base_keys["train"]}
            own |= {self._name_of(f"eval_{key}") for key in names().base_keys["eval"]}
        return own

    def _name_of(self, key: str) -> str:
        split, key = split_key(key)
        sources = self._own(names().sources(key))
        return (split or "") + (sources[0].fill(key) if sources else key)

    @cached_property
    def _patterns(self) -> list[re.Pattern[str]]:
        return [hole_pattern(name) for name in self._logged if HOLE.search(name)]

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """Defaults of the training arguments in this release, TRL's over those of transformers."""
        found = {} if self._known and self._loop == "tracker" else dict(names().training_arguments)
        return {**found, **(defaults_at(self._map, self._at) if self._known else {})}

    @cached_property
    def derived(self) -> list[dict[str, Any]]:
        """Formulas over logged metrics that hold for this trainer: `name`, `formula`, `when`, `unit`, `meaning`."""
        return [
            # An option that this release does not have yet cannot be away from what it later defaults to.
            item | {"when": {key: value for key, value in item.get("when", {}).items() if key in self.defaults}}
            for item in names().derived
            if self.trainer in item.get("trainers", (self.trainer,)) and all(map(self._has, formula_inputs(item)))
        ]

    @cached_property
    def lower_is_better(self) -> frozenset[str]:
        """Canonical names, of evaluation too, whose lower values are better."""
        lower = {name for name, better in _directions().items() if better == "lower"}
        return frozenset(lower | {f"eval_{name}" for name in lower})

    def better(self, name: str) -> str | None:
        """
        Which values of a metric are better.

        Args:
            name (`str`):
                Canonical name, of evaluation too.

        Returns:
            `str` or `None`: `"lower"` or `"higher"`, where that is clear.
        """
        plain, directions = name.removeprefix("eval_"), _directions()
        holes = (known for known in directions if HOLE.search(known) and hole_pattern(known).fullmatch(plain))
        return directions.get(name) or directions.get(plain) or directions.get(next(holes, None))

    def canonical(self, key: str) -> str:
        """
        The one name of a metric.

        Args:
            key (`str`):
                TRL's key, a canonical name, an alias, or one of these with `eval_` before it. Globs and names that
                nobody knows come back as they are.

        Returns:
            `str`: the canonical name; asking again for it gives the same.
        """
        return self._cache[key]

    def record(self, logs: dict[str, Any]) -> dict[str, float | None]:
        """
        A log under canonical names.

        Args:
            logs (`dict[str, Any]`):
                What `on_log` receives. Numbers, NumPy scalars and tensors of one element become floats, `None` stays;
                anything else (texts, lists, tables) is left out.

        Returns:
            `dict[str, float | None]`: canonical name -> value. Non-finite values stay as they are.
        """
        cached = self._cache
        if PLAIN.issuperset(map(type, logs.values())) and STRING.issuperset(map(type, logs)):
            return {cached[key]: value for key, value in logs.items()}
        found: dict[str, float | None] = {}
        for key, value in logs.items():
            # Whatever a trainer puts into its log, and whatever `str` and `float` of it raise, training goes on.
            try:
                if value is None:
                    found[cached[key]] = None
                elif not isinstance(value, str | bytes):
                    found[cached[key]] = float(value)
            except Exception:
                continue
        return found

    def is_logged(self, metric: str) -> bool:
        """
        Whether the trainer logs a metric in this release (in any, when the map has none).

        Args:
            metric (`str`):
                Canonical name, TRL key, alias, derived name, or a glob such as `rewards/*/std`.

        Returns:
            `bool`: `True` for metrics of evaluation too where the metric of training is logged.
        """
        name = self.canonical(metric)
        if "*" in metric:
            spellings = [HOLE.sub("x", text) for text in (*self._logged, *self._keys)]
            return any(fnmatchcase(text, glob.removeprefix("eval_")) for text in spellings for glob in (metric, name))
        return self._has(name) or name in {item["name"] for item in self.derived}

    def expects(self, name: str) -> bool:
        """
        Whether it means something that a metric never came: the trainer logs it whatever its options are, or nobody
        but the user knows the name.

        Args:
            name (`str`):
                Canonical name.
        """
        for item in self.derived:
            if item["name"] == name:
                return all(map(self.expects, formula_inputs(item)))
        if name.startswith(("eval_", "resume_")) or name in self._optional or name in names().before_training:
            return False  # what there is to look at before training is not the same for all
        elsewhere = (
            name in names().names or name in names().passthrough or any(i["name"] == name for i in names().derived)
        )
        return self._has(name) or not elsewhere

    def phase_of(self, metrics: dict[str, Any]) -> str:
        """
        The phase of a log.

        Args:
            metrics (`dict[str, Any]`):
                Canonical name to value.

        Returns:
            `str`: `"train"`, `"summary"` (the Trainer's last log), `"eval"`, or `"probe"` for what the user logs beside
            the trainer.
        """
        if "loss" in metrics:
            return "train"
        if "train_loss" in metrics:  # not `train_runtime`, which include_num_input_tokens_seen adds to every log
            return "summary"
        if any(name.startswith("eval_") for name in metrics):
            return "eval"
        # each log of training has `loss`, but for those of PPO's own loop
        return "probe" if not self._known or self._loop == "transformers" else "train"

    @cached_property
    def everywhere(self) -> frozenset[str]:
        """Names that come from every trainer of transformers, so that their coming tells nothing about the trainer."""
        from_the_clock = {item["name"] for item in self.derived if not formula_inputs(item)}
        logged = {self._name_of(key) for key in names().base_keys["train"]}
        return frozenset(logged | names().measured | from_the_clock | set(OF_THE_RECORD))

    def is_off(self, name: str, config: dict[str, Any]) -> bool:
        """
        Whether the training arguments turn off the option with which alone the trainer logs a metric.

        Args:
            name (`str`):
                Canonical name.
            config (`dict[str, Any]`):
                Training arguments.
        """
        whens = self._optional.get(name, [])
        return bool(whens) and all(when and option_holds(when, config) is False for when in whens)

    @cached_property
    def _optional(self) -> dict[str, list[str | None]]:
        """Canonical names of the keys that are logged with some option only (or in other releases), and the options."""
        found: dict[str, list[str | None]] = {}
        for entry in self._map["keys"] if self._known else []:
            if entry["when"] or entry["key"] not in self._keys:
                found.setdefault(self._name_of(entry["key"]), []).append(entry["when"])
        return found

    def _has(self, name: str) -> bool:
        plain = name.removeprefix("eval_")
        if not {name, plain}.isdisjoint(self._logged) or any(pattern.fullmatch(plain) for pattern in self._patterns):
            return True
        # several evaluation sets: `eval_<name of the set>_loss`
        return name.startswith("eval_") and plain.endswith(tuple(f"_{key}" for key in names().base_keys["eval"]))

    def _resolve(self, key: str) -> str:
        split, rest = split_key(key)
        if split is not None:
            return split + self._resolve(rest)
        own = self._own(names().sources(key))
        if own and (key in self._keys or self._is_own_pattern(key)):
            return own[0].fill(key)
        if key in self._logged:
            return key
        meant = [source.name for source in self._own(names().aliases.get(key, []))]
        logged = [name for name in meant if name in self._logged]
        return logged[0] if logged else self._named_elsewhere(key, own)

    def _own(self, sources: list[Source]) -> list[Source]:
        """Those that hold here, what holds in the newest release first."""
        mine = [source for source in sources if source.trainers is None or self.trainer in source.trainers]
        now = [source for source in mine if source.holds(self.trainer, self._at)]
        return now + [source for source in mine if source not in now] if self._any_release else now

    def _is_own_pattern(self, key: str) -> bool:
        return any(HOLE.search(own) and hole_pattern(own).fullmatch(key) for own in self._keys)

    def _named_elsewhere(self, key: str, own: list[Source]) -> str:
        """A key of other trainers, or of an older release: its name where that is clear."""
        if key in names().names:
            return key
        sources = own or names().sources(key)
        return sources[0].fill(key) if sources and not HOLE.search(sources[0].spelling) else key


@cache
def _directions() -> dict[str, str]:
    """Metric -> whether lower or higher is better."""
    entries = [*names().names.items(), *((item["name"], item) for item in names().derived)]
    return {name: entry["better"] for name, entry in entries if "better" in entry}


@cache
def _trainers_of_configs() -> dict[str, str]:
    """Config class -> trainer. Of several trainers that take one class, the one named like it comes first."""
    found: dict[str, str] = {}
    for name, entry in index()["trainers"].items():
        for config in entry["configs"]:
            if found.get(config) != config.removesuffix("Config").lower():
                found[config] = name
    return found


def trainer_of(config_class_names: list[str]) -> str | None:
    """
    The trainer that a config belongs to.

    Args:
        config_class_names (`list[str]`):
            Names along the MRO of the config's class, so that a subclass of `GRPOConfig` means GRPO.

    Returns:
        `str` or `None`: trainer of the first known name.
    """
    known = _trainers_of_configs()
    return next((known[name] for name in config_class_names if name in known), None)


def known_trainers() -> list[str]:
    """Names of all trainers of all releases that the maps cover."""
    return list(index()["trainers"])
