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

"""A `when` entry of a rule goes in, predicates on training arguments come out, and whether an argument satisfies them."""

import math
import re
from typing import Any

from .finding import DiagnosticsError
from .verdict import COMPARE


PREDICATE = re.compile(r"(<=|>=|==|!=|<|>)\s*(.+)")
WORDS = {"null": None, "none": None, "true": True, "false": False}  # after an operator YAML sees only text

Predicate = tuple[str, Any]  # operator and wanted value


def parse_when(value: Any) -> tuple[Predicate, ...]:
    """
    Predicates of one `when` entry, any of which may hold.

    Args:
        value (`Any`):
            A value, a comparison such as `"> 0"`, or a list of these.

    Raises:
        `DiagnosticsError`: for what is neither.
    """
    if value == []:
        raise DiagnosticsError("an empty list never holds")
    return tuple(_predicate(item) for item in _listed(value))


def _predicate(item: Any) -> Predicate:
    if not isinstance(item, str | int | float | bool | None):
        raise DiagnosticsError(f"expected a value, a list of values or a comparison, found {item!r}")
    match = PREDICATE.fullmatch(item) if isinstance(item, str) else None
    if not match:
        if isinstance(item, str) and (number := _as_number(item)) is not None:
            raise DiagnosticsError(f"YAML reads '{item}' as text; write {number!r}")
        return "==", item
    operator, text = match.groups()
    number = _as_number(text)
    if operator not in ("==", "!=") and number is None:
        raise DiagnosticsError(f"'{operator}' needs a number, found '{text}'")
    if number is not None and not math.isfinite(number):
        raise DiagnosticsError(f"expected a finite number, found '{text}'")
    return operator, WORDS.get(text.lower(), text) if number is None else number


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def holds(predicates: tuple[Predicate, ...], actual: Any) -> bool:
    """
    Whether a training argument satisfies any of the predicates. A list satisfies one if an element does; `!=` is the
    opposite of `==`, so that it asks of a list that no element is equal.
    """
    return any(_holds_one(*predicate, _listed(actual)) for predicate in predicates)


def _listed(value: Any) -> list:
    return list(value) if isinstance(value, list | tuple) else [value]


def _holds_one(operator: str, wanted: Any, items: list) -> bool:
    if operator == "==":
        return any(_same(item, wanted) for item in items)
    if operator == "!=":
        return not any(_same(item, wanted) for item in items)
    return any(isinstance(item, int | float) and COMPARE[operator](item, wanted) for item in items)


def _same(actual: Any, wanted: Any) -> bool:
    """Equality in which 1 is not True and the text of an enum is its value."""
    if isinstance(wanted, bool) or wanted is None:
        return actual is wanted
    return str(actual) == wanted if isinstance(wanted, str) else not isinstance(actual, bool) and actual == wanted


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """
    Add how many samples (pairs, completions) one log is the mean of: the noise of a rate depends on it. Completions that
    are trained on several times (`num_iterations`) count once. The default `max_steps` of -1 is no length.
    """
    if config.get("max_steps") == -1:
        config = {**config, "max_steps": None}
    factors = ("per_device_train_batch_size", "gradient_accumulation_steps", "logging_steps")
    if not all(isinstance(config.get(name), int | float) for name in factors):
        return config
    world_size, iterations = (_positive(config.get(name)) for name in ("world_size", "num_iterations"))
    return {**config, "samples_per_log": math.prod(config[n] for n in factors) * world_size / iterations}


def _positive(value: Any) -> float:
    """A number of processes or passes; 1 where an old log has none."""
    return value if isinstance(value, int | float) and value > 0 else 1
