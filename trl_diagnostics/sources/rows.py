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

"""The cells of somebody else's log go in, rows come out: an optimizer step, a time, and numbers under their raw names."""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple


STEP_NAMES = (
    "step",
    "train/global_step",
    "global_step",
    "_step",
)  # the best first: W&B's own `_step` counts its calls
TIME_NAMES = ("_timestamp", "timestamp", "wall_time", "time")
UNIX = 1e8  # a smaller number under one of these names is a duration
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?")
LOSSES = ({"loss", "train/loss"}, {"eval_loss", "eval/loss"}, {"train_loss", "train/train_loss"})


def section(data: dict[str, Any], key: str) -> dict[str, Any]:
    """A dictionary within another; `{}` where it is missing or something else, as in a file of another release."""
    part = data.get(key)
    return part if isinstance(part, dict) else {}


class Row(NamedTuple):
    """
    One logged event as it was found.

    Args:
        step (`int`):
            Optimizer step.
        time (`float` or `None`):
            Unix time in seconds, where the file has it.
        metrics (`dict[str, float | None]`):
            Raw name to value.
        phase (`str`, *optional*):
            Phase, where the file says it.
    """

    step: int
    time: float | None
    metrics: dict[str, float | None]
    phase: str | None = None


@dataclass(frozen=True)
class Log:
    """
    What a reader knows of a file.

    Args:
        kind (`str`):
            Format, in words.
        rows (`Callable[[], Iterator[Row]]`):
            Starts reading from the first row; may be called again.
        config (`dict[str, Any]`, *optional*):
            Training arguments that the file holds.
        notes (`dict[str, None]`, *optional*):
            What could not be read, in words and in order. Grows while rows are read.
        last_step (`Callable[[], int]`, *optional*):
            Highest step at the end of the file, for files too long to be read for it.
        partial (`bool`, *optional*, defaults to `False`):
            Whether the file shows only some of the metrics, as the table of a notebook does.
        trl_version (`str`, *optional*):
            TRL release, where the file says it.
        metadata (`dict[str, Any]`, *optional*):
            What the run itself wrote about its start.
    """

    kind: str
    rows: Callable[[], Iterator[Row]]
    config: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    last_step: Callable[[], int] | None = None
    partial: bool = False
    trl_version: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def number(value: Any) -> float | None:
    """
    The number in a cell, also as text: `"0.69"`, `"1,024.5"`, `"0,69"`, `"nan"`, `"7/547"` for step 7 of 547.

    Returns:
        `float` or `None`: `None` for truth values, texts and anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except OverflowError:
        return None
    except ValueError:
        return _spelled(value.split("/")[0].strip())


def _spelled(text: str) -> float | None:
    try:
        return float(text.replace(",", "") if THOUSANDS.fullmatch(text) else text.replace(",", "."))
    except ValueError:
        return None


def to_rows(cells: Iterable[dict[str, Any]]) -> Iterator[Row]:
    """
    Rows of a table. One without a step follows the one before; cells that are no numbers are left out, and rows without
    any.

    Args:
        cells (iterable of `dict[str, Any]`):
            Cells by the name of their column.
    """
    step, best = 0, len(STEP_NAMES)
    for row in cells:
        padded = _is_padded(row)
        metrics: dict[str, float | None] = {}
        for key, value in row.items():
            if type(value) is not float and value is not None:
                value = number(value)
                if value is None:
                    continue
            elif value is None and padded:
                continue
            metrics[key] = value
        stated = [metrics.pop(name, None) for name in STEP_NAMES]
        time = _time(metrics)
        if not metrics:
            continue
        found = next((i for i, value in enumerate(stated) if value is not None and math.isfinite(value)), None)
        if found is None:
            step += 1
        elif found <= best:
            step, best = int(stated[found]), found
        yield Row(step, time, metrics)


def _is_padded(row: dict[str, Any]) -> bool:
    """Whether the row has cells of other rows too: a data frame has every column in every row, and so has W&B."""
    return "_step" in row or sum(not names.isdisjoint(row) for names in LOSSES) > 1


def _time(metrics: dict[str, float | None]) -> float | None:
    """Take the time out of a row, and W&B's seconds since the start."""
    metrics.pop("_runtime", None)
    for name in TIME_NAMES:
        value = metrics.get(name)
        if value is not None and UNIX < value < math.inf:
            return metrics.pop(name)
    return None


def loads(text: str) -> Any:
    """
    JSON as others write it, NaN and Infinity included.

    Raises:
        `ValueError`: if it is no JSON.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # half a surrogate pair is legal in JSON, and no file or terminal takes it
    return without_surrogates(data) if "\\ud" in text or "\\uD" in text else data


def without_surrogates(data: Any) -> Any:
    """The same data, in their texts a question mark for each half of a surrogate pair."""
    match data:
        case str():
            return data.encode("utf-8", "replace").decode()
        case list():
            return [without_surrogates(item) for item in data]
        case dict():
            return {without_surrogates(key): without_surrogates(value) for key, value in data.items()}
    return data
