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

"""A log that somebody else saved goes in (trainer state, list, notebook table), its records and arguments come out."""

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trl_diagnostics.engine.finding import Record
from trl_diagnostics.metrics.names import MetricMap


STEP_NAMES = ("step", "_step", "global_step")
# Columns of the table that a notebook shows while it trains.
COLUMNS = {"training_loss": "loss", "validation_loss": "loss"}


@dataclass(frozen=True)
class Log:
    """
    What a file holds.

    Args:
        rows (`list`):
            Optimizer step and raw metrics of each record, in order.
        max_steps (`int`, *optional*):
            Planned length of the run, where the file says it.
    """

    rows: list[tuple[int, dict[str, float | None]]]
    max_steps: int | None = None

    @property
    def config(self) -> dict[str, int]:
        """The training arguments that the rows give away: how far the logs are apart, how long the run is."""
        steps = [step for step, metrics in self.rows if "loss" in metrics] or [step for step, _ in self.rows]
        apart = [after - before for before, after in zip(steps, steps[1:], strict=False) if after > before]
        return {
            "logging_steps": max(1, round(median(apart))) if apart else 1,
            "max_steps": self.max_steps or max(steps),
        }

    def records(self, metric_map: MetricMap) -> list[Record]:
        """The rows under canonical names. Logs of others rarely have the time: a second per step is as good as any."""
        return [
            Record(step, float(step), _phase(metrics, metric_map.logs_loss), metric_map.record(metrics))
            for step, metrics in self.rows
        ]


def _phase(metrics: dict[str, Any], logs_loss: bool) -> str:
    if "loss" in metrics or "train/loss" in metrics:
        return "train"
    if "train_loss" in metrics or "train_runtime" in metrics:
        return "summary"
    if any(key.startswith(("eval_", "eval/")) for key in metrics):
        return "eval"
    return "probe" if logs_loss else "train"


def read_log(path: Path) -> Log:
    """
    Read a file.

    Args:
        path (`Path`):
            `.csv` with a header, or JSON with a list of logs somewhere in it.

    Raises:
        `ValueError`: if there is no log in it.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        max_steps, rows = None, [part for row in csv.DictReader(io.StringIO(text)) for part in _table_row(row)]
    else:
        data = json.loads(text)
        max_steps = int(data.get("max_steps") or 0) if isinstance(data, dict) else 0
        rows = _find_rows(data)
    steps = _with_steps(rows)
    if not steps:
        raise ValueError(f"{path.name}: no rows with numbers in it")
    return Log(steps, max_steps or None)


def _find_rows(data: Any) -> list[dict[str, Any]]:
    """The longest list of dictionaries in it, however deep."""
    if isinstance(data, list):
        return data if data and all(isinstance(row, dict) for row in data) else []
    return max(map(_find_rows, data.values()), key=len, default=[]) if isinstance(data, dict) else []


def _table_row(row: dict[str | None, Any]) -> list[dict[str, Any]]:
    """A row of a notebook's table: with a validation loss, all columns but the training loss are of evaluation."""
    step = row.get("Step")
    plain = {_column(key): value for key, value in row.items() if key and key != "Step"}
    if "Validation Loss" not in row:
        return [{"step": step, **plain}]
    evaluation = {f"eval_{_column(key)}": row[key] for key in row if key and key not in ("Step", "Training Loss")}
    return [{"step": step, "loss": row.get("Training Loss")}, {"step": step, **evaluation}]


def _column(key: str) -> str:
    name = key.strip().lower().replace(" / ", "/").replace(" ", "_")
    return COLUMNS.get(name, name)


def _with_steps(rows: list[dict[str, Any]]) -> list[tuple[int, dict[str, float | None]]]:
    """Rows without a step follow the one before; cells that are no numbers are left out, and rows without any."""
    found, step = [], 0
    for row in rows:
        cells = {key: _number(value) for key, value in row.items() if value is None or _number(value) is not None}
        stated = next((cells[name] for name in STEP_NAMES if cells.get(name) is not None), None)
        step = step + 1 if stated is None or not math.isfinite(stated) else int(stated)
        metrics = {key: value for key, value in cells.items() if key not in STEP_NAMES}
        if metrics:
            found.append((step, metrics))
    return found


def _number(value: Any) -> float | None:
    """A number, also as text: `"0.69"`, `"1,024"`, `"nan"`, `"7/547"` for step 7 of 547."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        value = value.strip().replace(",", "").split("/")[0]
    try:
        return float(value)
    except ValueError:
        return None
