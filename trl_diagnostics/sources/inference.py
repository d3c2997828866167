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
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..metrics.catalogue import (
    HOLE,
    defaults_at,
    hole_pattern,
    index,
    load_map,
    names,
    parse_version,
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
# How likely a log holds a name: one that the trainer always logs, one that it logs with some option, one of nobody.
ALWAYS, SOMETIMES, NEVER = 0.95, 0.3, 0.02
UNKNOWN_HAS = 0.1  # a trainer that is not TRL's logs anything
MODEL_CARD = 20_000  # characters; what names trainer and release stands in its first half
SHOWN = 4


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
    """Releases in which a trainer logs the same names and has the same options."""

    last: str | None
    always: frozenset[str]
    sometimes: frozenset[str]
    patterns: tuple[re.Pattern[str], ...]
    options: frozenset[str]

    def has(self, key: str) -> bool:
        return key in self.always or key in self.sometimes or any(p.fullmatch(key) for p in self.patterns)


def class_name(trainer: str) -> str:
    """Trainer as people write it: `"grpo"` is GRPO, `"onlinedpo"` OnlineDPO."""
    return index()["trainers"][trainer]["class"].removesuffix("Trainer")


@cache
def periods(trainer: str) -> list[Period]:
    """The periods of a trainer, the newest last."""
    data, releases = load_map(trainer), index()["releases"]
    about = index()["trainers"][trainer]
    living = [r for r in releases if spans_version(about, r)]
    found: list[Period] = []
    for release in living:
        period = _period(data, release, None if release == releases[-1] else release)
        if found and (found[-1].always, found[-1].sometimes, found[-1].options) == (
            period.always,
            period.sometimes,
            period.options,
        ):
            found.pop()
        found.append(period)
    return found


def _period(data: dict[str, Any], release: str, last: str | None) -> Period:
    entries = [e for e in data["keys"] if not e.get("user") and spans_version(e, release)]
    plain = [entry for entry in entries if not HOLE.search(entry["key"])]
    always = {entry["key"] for entry in plain if entry["when"] is None}
    spellings = {name for e in entries for name in (e["key"], e["canonical"]) if HOLE.search(name)}
    return Period(
        last,
        frozenset(always),
        frozenset({entry["key"] for entry in plain} - always),
        tuple(hole_pattern(name) for name in sorted(spellings)),
        frozenset(defaults_at(data, release)),
    )


@cache
def _canonical(trainer: str) -> dict[str, str]:
    """Canonical names of a trainer's keys, in any release, as the keys."""
    return {entry["canonical"]: entry["key"] for entry in load_map(trainer)["keys"] if not HOLE.search(entry["key"])}


@cache
def _everywhere() -> frozenset[str]:
    """Names that tell nothing about the trainer."""
    base = names().base_keys
    return frozenset({*base["all"], *base["train"], *base["eval"], *names().measured})


@cache
def _all_options() -> frozenset[str]:
    """Options of the trainers that are not those of every trainer of transformers."""
    options = {option for trainer in known_trainers() for option in load_map(trainer)["defaults"]}
    return frozenset(options - set(names().training_arguments) - set(names().other_training_arguments))


def own_names(keys: Iterable[str]) -> set[str]:
    """Names without the split, those that every trainer logs left out."""
    found = set()
    for key in keys:
        split, rest = split_key(key)
        if rest not in _everywhere():
            found.add(f"eval_{rest}" if rest == "accuracy" and split == "eval_" else rest)
    return found


def infer(keys: Iterable[str], config: dict[str, Any], partial: bool = False) -> Guess:
    """
    The trainer that a log is of.

    Args:
        keys (iterable of `str`):
            Names of the log, raw or canonical.
        config (`dict[str, Any]`):
            Training arguments, as far as they are known.
        partial (`bool`, *optional*, defaults to `False`):
            Whether names that are missing say nothing, as in the table of a notebook.

    Returns:
        [`Guess`]: its confidence is the share of this trainer among all, each as likely as its names and options are.
    """
    keys = list(keys)
    own = own_names(keys)
    options = _all_options() & set(config)
    options = options if len(options) > 5 else frozenset()  # a few may be anything's, a full list is one trainer's
    best = {trainer: _best(trainer, own, options, partial) for trainer in known_trainers()}
    scores = {trainer: score + _prior(trainer) for trainer, (score, _) in best.items()}
    scores["unknown"] = _prior("unknown") + len(own | options) * math.log(UNKNOWN_HAS)
    if not any(split_key(key)[1] in _everywhere() for key in keys) and not own & _known_names():
        return Guess("unknown", "nothing in it is a name that a trainer of TRL logs", 0.0)
    trainer = max(scores, key=scores.__getitem__)
    top = scores[trainer]
    confidence = round(min(0.99, 1 / sum(math.exp(score - top) for score in scores.values())), 2)
    if trainer == "unknown":
        return Guess(trainer, "most of its names are not those of a trainer of TRL", confidence)
    period = best[trainer][1]
    return Guess(trainer, _how(trainer, own, options, period), confidence, period.last)


def _prior(trainer: str) -> float:
    return math.log(PRIOR.get(trainer, RARE))


@cache
def _known_names() -> frozenset[str]:
    return frozenset(entry["key"] for trainer in known_trainers() for entry in load_map(trainer)["keys"])


def _best(trainer: str, own: set[str], options: frozenset[str], partial: bool) -> tuple[float, Period]:
    """How likely the log is in the period that fits best; of periods that fit as well, the newest."""
    own = {_canonical(trainer).get(key, key) if key not in _known_names() else key for key in own}
    scored = [(_likelihood(period, own, options, partial), period) for period in periods(trainer)]
    top = max(score for score, _ in scored)
    return next((top, period) for score, period in reversed(scored) if score > top - 1e-9)


def _likelihood(period: Period, own: set[str], options: frozenset[str], partial: bool) -> float:
    score = 0.0
    for key in own:
        score += math.log(ALWAYS if key in period.always else SOMETIMES if period.has(key) else NEVER)
    if not partial:
        score += len(period.always - own) * math.log(1 - ALWAYS)
    if options:
        mine = period.options & _all_options()
        score += len(options & mine) * math.log(ALWAYS) + len(options ^ mine) * math.log(NEVER)
    return score


def _how(trainer: str, own: set[str], options: frozenset[str], period: Period) -> str:
    fitting = sorted(key for key in own if period.has(_canonical(trainer).get(key, key)))
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
    return parse_version(version) != (0, 0, 0)
