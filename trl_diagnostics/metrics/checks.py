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

"""The names in a rule or alert go in, what is wrong with them comes out, with the nearest right one."""

import difflib
import re
from collections.abc import Iterable
from functools import cache

from ..engine.rule import ANY_TRAINER, Rule
from .catalogue import names
from .names import MetricMap, known_trainers


def _maps(trainers: tuple[str, ...] | list[str]) -> list[MetricMap]:
    plain = [trainer.lower().replace("_", "") for trainer in trainers]
    wanted = known_trainers() if any(name in ANY_TRAINER for name in plain) else plain
    return [_any_version(name) for name in wanted]


@cache
def _any_version(trainer: str) -> MetricMap:
    return MetricMap(trainer)


def suggest(metric: str, trainers: tuple[str, ...] | list[str]) -> str | None:
    """
    The known name nearest to a misspelt one.

    Args:
        metric (`str`):
            What the user wrote.
        trainers (`tuple[str, ...]`):
            Trainers whose metrics are meant; `all` and `common` mean every trainer.

    Returns:
        `str` or `None`: such as `"'rewards/margins' (reward_margin)"`.
    """
    spellings: dict[str, str] = {}
    for metrics in _maps(trainers):
        for text in (*metrics._keys, *metrics._logged, *(item["name"] for item in metrics.derived)):
            spellings.setdefault(text, metrics.canonical(text))
    nearest = difflib.get_close_matches(metric, spellings, n=1)
    if not nearest:
        return None
    name = spellings[nearest[0]]
    return f"'{nearest[0]}'" + (f" ({name})" if name != nearest[0] else "")


def check_metric(metric: str, trainers: tuple[str, ...] | list[str]) -> str | None:
    """
    The problem with a metric's name in a rule.

    Args:
        metric (`str`):
            Name, key, alias or glob.
        trainers (`tuple[str, ...]`):
            Trainers of the rule.

    Returns:
        `str` or `None`: `None` when one of the trainers logs it in some release.
    """
    maps = _maps(trainers)
    if any(metrics.is_logged(metric) for metrics in maps):
        return None
    text = f"'{metric}' is not logged by any of [{', '.join(trainers)}]"
    first = re.split(r"[-/*]", metric)[0]
    if first != metric and any(metrics.is_logged(first) for metrics in maps):
        return f"{text}; operators need blanks on both sides"
    if hint := suggest(metric, trainers):
        return f"{text}; did you mean {hint}?"
    return f"{text}; put it in backticks if your own code logs it"


def check_rule(rule: Rule) -> list[tuple[str, str, str]]:
    """
    What is wrong with a rule beside its metrics: trainers that TRL does not have, training arguments that no trainer of
    the rule has, empty words.

    Args:
        rule ([`Rule`]):
            Rule or inline alert.

    Returns:
        `list[tuple[str, str, str]]`: a field, its problem, and the word in the field.
    """
    problems = []
    known = [*known_trainers(), *ANY_TRAINER]
    for trainer in rule.trainers:
        if trainer.replace("_", "") not in known:
            problems.append(("trainers", f"TRL has no trainer '{trainer}'{_nearest(trainer, known)}", trainer))
    if any(text.strip().lower() == "unknown" for text in rule.false_positives):
        problems.append(("false_positives", "say when, or leave it out", ""))
    options = _options(rule.trainers)
    for field, used, start in (("condition", rule.condition.configs, "config."), ("when", rule.when, "")):
        for name in used:
            if name not in options:
                problems.append((field, f"no training argument '{name}'{_nearest(name, options)}", f"{start}{name}"))
    return problems


def _nearest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def _options(trainers: tuple[str, ...]) -> set[str]:
    """Training arguments of the trainers in any release, and what the engine adds to them."""
    found = {*names().training_arguments, *names().other_training_arguments, "samples_per_log", "world_size"}
    return found.union(*(metrics._map["defaults"] for metrics in _maps(trainers) if metrics._known))
