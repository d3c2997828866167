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

"""A label and records go in, a small compressed file comes out, and back; and what the rules say about such a run."""

import gzip
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Finding, Record
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.metrics.names import MetricMap


FOLDER = Path(__file__).parents[2] / "tests" / "data" / "runs"
SUFFIX = ".jsonl.gz"
# Thresholds are tuned on seeds below this one. From it on a run is held out: recorded when the rules were finished.
FIRST_HELD_OUT = 9
# As many as float32 has, in which all of TRL's metrics are computed: equal numbers stay equal, different ones differ.
DIGITS = 7


def rounded(value: Any) -> Any:
    """A number with the digits that mean something. Integers, zero and texts such as `"NaN"` stay as they are."""
    if isinstance(value, float) and math.isfinite(value) and not value.is_integer():
        return float(f"{value:.{DIGITS}g}")
    return value


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"


def write_run(path: Path, label: dict[str, Any], records: Iterable[Record]) -> None:
    """
    Write one run: the label in the first line, then one record per line, the time counted from the first.

    Args:
        path (`Path`):
            File; it appears when it is complete.
        label (`dict`):
            See `recipe.label_of`.
        records (`Iterable[Record]`):
            What the callback wrote.
    """
    lines, start = [_line(label)], None
    for record in records:
        start = record.time if start is None else start
        data = record.to_json() | {"time": round(record.time - start, 2)}
        lines.append(_line(data | {"metrics": {key: rounded(value) for key, value in data["metrics"].items()}}))
    part = path.with_suffix(".part")
    # without the time of day in the header the same run gives the same file
    part.write_bytes(gzip.compress("".join(lines).encode(), 9, mtime=0))
    part.replace(path)


def read_run(path: Path) -> tuple[dict[str, Any], list[Record]]:
    """The label and the records of a file written by [`write_run`]."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        label, *records = map(json.loads, lines)
    return label, [Record.from_json(record) for record in records]


def replay(label: dict[str, Any], records: Iterable[Record], rules: Iterable[Rule]) -> list[Finding]:
    """
    What the rules say about a recorded run, as they would have said it live.

    Args:
        label (`dict`):
            Label of the run.
        records (`Iterable[Record]`):
            Its records.
        rules (`Iterable[Rule]`):
            Rules, for example `collect_rules()`.

    Returns:
        `list[Finding]`: findings that start or resolve, in order.
    """
    metric_map = MetricMap(label["trainer"], label["trl_version"])
    engine = Engine(rules, metric_map.trainer, label["config"], metric_map)
    return [finding for record in records for finding in engine.update(record)]
