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

"""The names in a log and the training arguments go in; the trainer and the TRL release that fit come out."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

from ..metrics.catalogue import (
    HOLE,
    defaults_at,
    hole_pattern,
    index,
    load_map,
    names,
    option_holds,
    spans_version,
    split_key,
)
from ..metrics.names import known_trainers


# How likely a log is of a trainer before its names are looked at. Without it nothing would tell GRPO from the trainers
# that extend it, nor SFT from a trainer that is not TRL's when only a loss was logged.
PRIOR = {
    "sft": 30,
    "grpo": 25,
    "dpo": 20,
    "unknown": 10,
    "reward": 4,
    "ppo": 4,
    "kto": 3,
    "orpo": 3,
    "rloo": 3,
    "cpo": 2,
}
RARE = 0.5
# How likely a log holds a name: one that the trainer always logs, one that it logs with its default options, one that
# it logs with others, one that it does not log.
ALWAYS, USUALLY, RARELY, NEVER = 0.95, 0.8, 0.25, 0.02
OF_A_USER = 0.05  # a name that no trainer of TRL has
UNKNOWN_HAS = 0.1  # a trainer that is not TRL's logs anything
# Trainers without a reference model: what they call a reward is beta times the log-probability, to the last digit. In
# recorded runs of CPO the two differ by less than 1e-6 of it, and no other trainer's are in any proportion.
REFERENCE_FREE = ("cpo", "orpo", "tpo")
PROPORTION, ODD = 0.01, 0.01  # a table shows six digits after the point; how likely a trainer is odd in this
MODEL_CARD = 20_000  # characters; what names trainer and release stands in its first half
VERSION = re.compile(r"\d+(?:\.\d+){1,3}(?:[-_.]?(?:a|b|rc|dev|post)\.?\d*)*(?:\+[A-Za-z0-9.]+)?")
SHOWN = 4
FEWEST_RATIOS = 6  # three logs of both sides


@dataclass(frozen=True)
class Guess:
    """
    A trainer, and why.

    Args:
        trainer (`str`):
            Trainer, or `"unknown"`.
        how (`str`):
            What it was told from, in words.
        confidence (`float`):
            0 to 1.
        trl_version (`str`, *optional*):
            The newest TRL release that fits, unless that is the newest there is.
    """

    trainer: str
    how: str
    confidence: float
    trl_version: str | None = None


@dataclass(frozen=True)
class Period:
    """
    Releases in which a trainer logs the same names and has the same options.

    Args:
        keys (`dict[str, frozenset[str]]`):
            The keys that a name may stand for: a key is itself, a canonical name can be that of several.
        when (`dict[str, str | None]`):
            With which options a key is logged.
        chances (`dict[str, float]`):
            How likely a log holds a key.
        patterns (`tuple[re.Pattern, ...]`):
            Names with something in them that the user chose.
        options (`frozenset[str]`):
            Training arguments that not every trainer has.
        last (`str` or `None`):
            The last of the releases; `None` if it is the newest there is.
    """

    keys: dict[str, frozenset[str]]
    when: dict[str, str | None]
    chances: dict[str, float]
    patterns: tuple[re.Pattern[str], ...]
    options: frozenset[str]
    last: str | None = field(default=None, compare=False)

    def has(self, name: str) -> bool:
        """Whether the trainer logs a name, with some options at least."""
        return name in self.keys or any(pattern.fullmatch(name) for pattern in self.patterns)

    def chance(self, name: str) -> float:
        """How likely a log holds a name."""
        if name in self.keys:
            return max(self.chances[key] for key in self.keys[name])
        return USUALLY if self.has(name) else NEVER if name in _known_names() else OF_A_USER

    def absent(self, own: set[str]) -> Iterable[float]:
        """How likely the keys were that did not come: those of one option together, of one that is off not at all."""
        came = {key for name in own for key in self.keys.get(name, ())}
        options = {self.when[key] for key in came}
        missing = {
            key if when is None else when: self.chances[key] for key, when in self.when.items() if key not in came
        }
        return (chance for what, chance in missing.items() if chance > RARELY and what not in options)


def class_name(trainer: str) -> str:
    """Trainer as people write it: `"grpo"` is GRPO, `"onlinedpo"` OnlineDPO."""
    return index()["trainers"][trainer]["class"].removesuffix("Trainer")


@cache
def periods(trainer: str, with_options: bool) -> list[Period]:
    """The periods of a trainer, the newest last."""
    about, newest = index()["trainers"][trainer], index()["releases"][-1]
    found: list[Period] = []
    for release in (release for release in index()["releases"] if spans_version(about, release)):
        period = _period(load_map(trainer), release, with_options)
        if found and period == found[-1]:
            found.pop()
        found.append(replace(period, last=None if release == newest else release))
    return found


def _period(data: dict[str, Any], release: str, with_options: bool) -> Period:
    keys, when, patterns = {}, {}, set()
    for entry in data["keys"]:
        if entry.get("user") or not spans_version(entry, release):
            continue
        key, name = _plain(entry["key"]), _plain(entry["canonical"])
        if HOLE.search(key):
            patterns |= {key, name}
        else:
            when[key] = entry["when"]
            keys[name] = keys.get(name, frozenset()) | {key}
    keys |= {key: frozenset({key}) for key in when}
    chances = {key: _chance(data["trainer"], options) for key, options in when.items()}
    options = _all_options() & set(defaults_at(data, release)) if with_options else frozenset()
    return Period(keys, when, chances, tuple(map(hole_pattern, sorted(patterns))), frozenset(options))


@cache
def _chance(trainer: str, when: str | None) -> float:
    """How likely a log holds a name that comes with these options."""
    if when is None:
        return ALWAYS
    defaults = {**names().training_arguments, **defaults_at(load_map(trainer), index()["releases"][-1])}
    return USUALLY if option_holds(when, defaults) else RARELY


def _plain(key: str) -> str:
    """A name without the split; `eval_accuracy` was for years the only name that the trainers of rewards logged."""
    return key if key == "eval_accuracy" else split_key(key)[1]


@cache
def _everywhere() -> frozenset[str]:
    """Names that tell nothing about the trainer."""
    base = names().base_keys
    return frozenset({*base["all"], *base["train"], *base["eval"], *names().measured})


def _fits(trainer: str, free: bool | None) -> float:
    return math.log(ODD) if free is not None and free is not (trainer in REFERENCE_FREE) else 0.0


@cache
def _all_options() -> frozenset[str]:
    """Options of the trainers that are not those of every trainer of transformers."""
    options = {option for trainer in known_trainers() for option in load_map(trainer)["defaults"]}
    return frozenset(options - set(names().training_arguments) - set(names().other_training_arguments))


def own_names(keys: Iterable[str]) -> set[str]:
    """Names without the split, those that every trainer logs left out."""
    return {_plain(key) for key in keys} - _everywhere()


def is_known(keys: Iterable[str]) -> bool:
    """Whether a trainer of TRL logs one of the names."""
    plain = set(map(_plain, keys))
    own, every = plain - _everywhere(), [period for trainer in known_trainers() for period in periods(trainer, False)]
    return own != plain or any(period.has(name) for period in every for name in own)


def reference_free(logs: Iterable[dict[str, float | None]]) -> bool | None:
    """
    Whether rewards are log-probabilities times a number, so that there is no reference model.

    Args:
        logs (iterable of `dict[str, float | None]`):
            Raw or canonical names with their values.

    Returns:
        `bool` or `None`: `None` where the logs have not both, or too few.
    """
    ratios = []
    for log in logs:
        plain = {_plain(key).replace("/", "_").removesuffix("_per_token"): value for key, value in log.items()}
        for side in ("chosen", "rejected"):
            reward, logp = plain.get(f"rewards_{side}"), plain.get(f"logps_{side}")
            if reward and logp and math.isfinite(reward / logp):
                ratios.append(reward / logp)
    if len(ratios) < FEWEST_RATIOS:
        return None
    beta = median(ratios)
    return beta > 0 and all(abs(ratio - beta) < PROPORTION * beta for ratio in ratios)


def infer(keys: Iterable[str], config: dict[str, Any], partial: bool = False, free: bool | None = None) -> Guess:
    """
    The trainer that a log is of.

    Args:
        keys (iterable of `str`):
            Names of the log, raw or canonical.
        config (`dict[str, Any]`):
            Training arguments, as far as they are known.
        partial (`bool`, *optional*, defaults to `False`):
            Whether names that are missing say nothing, as in the table of a notebook.
        free (`bool`, *optional*):
            As given by [`reference_free`].

    Returns:
        [`Guess`]: its confidence is the share of this trainer among all, each as likely as its names and options are.
    """
    keys = list(keys)
    own = own_names(keys)
    options = _all_options() & set(config)
    options = options if len(options) > 5 else frozenset()  # a few may be anything's, a full list is one trainer's
    best = {trainer: _best(trainer, own, options, partial) for trainer in known_trainers()}
    scores = {trainer: score + _prior(trainer) + _fits(trainer, free) for trainer, (score, _) in best.items()}
    scores["unknown"] = _prior("unknown") + len(own) * math.log(UNKNOWN_HAS) + len(options) * math.log(NEVER)
    trainer = max(scores, key=scores.__getitem__)
    top = scores[trainer]
    confidence = round(min(0.99, 1 / sum(math.exp(score - top) for score in scores.values())), 2)
    if not is_known(keys):
        return Guess("unknown", "nothing in it is a name that a trainer of TRL logs", 0.0)
    if trainer == "unknown":
        return Guess(trainer, "most of its names are not those of a trainer of TRL", confidence)
    period = best[trainer][1]
    # names that every trainer logs tell no release
    return Guess(trainer, _how(trainer, own, options, period), confidence, period.last if own or options else None)


def _prior(trainer: str) -> float:
    return math.log(PRIOR.get(trainer, RARE))


@cache
def _known_names() -> frozenset[str]:
    """Names of all trainers in all releases, those with something in them that the user chose left out."""
    entries = (entry for trainer in known_trainers() for entry in load_map(trainer)["keys"])
    return frozenset(_plain(name) for entry in entries for name in (entry["key"], entry["canonical"]))


def _best(trainer: str, own: set[str], options: frozenset[str], partial: bool) -> tuple[float, Period]:
    """How likely the log is in the period that fits best; of periods that fit as well, the newest."""
    scored = [(_likelihood(period, own, options, partial), period) for period in periods(trainer, bool(options))]
    top = max(score for score, _ in scored)
    return next((top, period) for score, period in reversed(scored) if score > top - 1e-9)


def _likelihood(period: Period, own: set[str], options: frozenset[str], partial: bool) -> float:
    score = sum(math.log(period.chance(name)) for name in own)
    if not partial:
        score += sum(math.log(1 - chance) for chance in period.absent(own))
    if options:
        score += len(options & period.options) * math.log(ALWAYS) + len(options ^ period.options) * math.log(NEVER)
    return score


def _how(trainer: str, own: set[str], options: frozenset[str], period: Period) -> str:
    fitting = sorted(name for name in own if period.has(name))
    more = f" and {len(fitting) - SHOWN} more" if len(fitting) > SHOWN else ""
    if options:
        return f"its training arguments are those of {class_name(trainer)}"
    if fitting:
        return f"{class_name(trainer)} logs {', '.join(fitting[:SHOWN])}{more}"
    return f"it has only names that every trainer logs, and {class_name(trainer)} is the most frequent one"


def model_card(folder: Path) -> Guess | None:
    """
    What the model card that TRL writes beside a model says of the trainer and the release.

    Args:
        folder (`Path`):
            Folder of the model.
    """
    card = folder / "README.md"
    if not card.is_file():
        return None
    with card.open(encoding="utf-8", errors="replace") as file:
        text = file.read(MODEL_CARD)
    head = text.split("\n---", 1)[0] if text.startswith("---") else ""
    tags = [tag.lower().replace("-trainer", "").replace("-", "") for tag in re.findall(r"(?m)^\s*- (\S+)$", head)]
    trainer = next((tag for tag in tags if tag in known_trainers()), None)
    version = re.search(r"(?m)^- TRL: (\d+(?:\.\d+)+)", text)
    if trainer is None or "trl" not in tags:
        return None
    return Guess(trainer, f"the model card beside it says {class_name(trainer)}", 0.95, version and version[1])


def known_version(version: str) -> bool:
    """Whether a text is a version number."""
    return VERSION.fullmatch(version) is not None
