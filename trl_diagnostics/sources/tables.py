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

"""A CSV, JSON or JSON-lines file goes in, its `Log` comes out."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from ..engine.finding import NON_FINITE, DiagnosticsError
from ..words import count
from .json_stream import stream
from .rows import Log, Row, loads, to_rows


LONGEST_LINE = 2**26  # characters; a longer one is read in pieces, which are then no JSON
TAIL = 2**18  # bytes at the end of a file, in which its last step is looked for
LARGE = 2**24  # bytes of JSON that take noticeable memory
# Columns of the table that a notebook shows while it trains.
COLUMNS = {"training_loss": "loss", "validation_loss": "loss"}
# A chart of W&B, exported: one column for each run, with the lowest and highest value of each bucket beside it.
CHART = re.compile(r"(?P<run>.+) - (?P<name>[^ ]+?)(?P<bound>__MIN|__MAX)?")


def open_text(path: Path) -> TextIO:
    """A text file in the encoding its first bytes tell of; what is no text becomes a question mark."""
    with path.open("rb") as file:
        wide = file.read(2) in (b"\xff\xfe", b"\xfe\xff")  # what PowerShell writes
    return path.open(encoding="utf-16" if wide else "utf-8-sig", errors="replace", newline="")


def lines(path: Path) -> Iterator[str]:
    """Lines of a text file, one at a time."""
    with open_text(path) as file:
        yield from iter(partial(file.readline, LONGEST_LINE), "")


def tail(path: Path) -> Iterator[str]:
    """The last whole lines of a text file."""
    with path.open("rb") as file:
        start = file.seek(max(0, os.path.getsize(path) - TAIL))
        yield from file.read().decode("utf-8", "replace").splitlines()[start > 0 :]


def read_jsonl(path: Path) -> Log:
    """
    A file of JSON lines: one row each, or a `Record` of ours each.

    Args:
        path (`Path`):
            The file. It is read line by line, and lines that are no JSON object are counted in the notes.
    """
    notes: dict[str, None] = {}
    return Log(
        "JSONL",
        lambda: _lined(objects(path, notes), path, notes),
        notes=notes,
        last_step=lambda: max((row.step for row in _lined(_parsed(tail(path)), path, {})), default=0),
    )


def objects(path: Path, notes: dict[str, None]) -> Iterator[dict[str, Any]]:
    """JSON objects of a file of lines; a note says how many lines are none, once all were seen."""
    bad, first, i, line = 0, 0, 0, ""
    for i, line in enumerate(lines(path), 1):
        data = _object(line)
        if data is not None:
            yield data
        elif line.strip():
            bad, first = bad + 1, first or i
    if bad:
        torn = bad == 1 and first == i and not line.endswith("\n")
        what = "the last line is cut off" if torn else f"{count(bad, 'line')} left out, line {first} first: no JSON"
        notes[f"{path.name}: {what}"] = None


def _object(line: str) -> dict[str, Any] | None:
    try:
        data = loads(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _parsed(texts: Iterator[str]) -> Iterator[dict[str, Any]]:
    return (data for data in map(_object, texts) if data is not None)


def _lined(found: Iterator[dict[str, Any]], path: Path, notes: dict[str, None]) -> Iterator[Row]:
    """Rows of JSON objects; those of a `Record` keep its phase."""
    first = next(found, {})
    together = chain([first], found)
    if isinstance(first.get("metrics"), dict) and "phase" in first:
        return _records(together, path, notes)
    return to_rows(
        {**data, **data.pop("metrics")} if isinstance(data.get("metrics"), dict) else data for data in together
    )


def _records(found: Iterable[dict[str, Any]], path: Path, notes: dict[str, None]) -> Iterator[Row]:
    damaged = 0
    for row in map(_record, found):
        if row is None:
            damaged += 1
        else:
            yield row
    if damaged:
        are = "is damaged, it is" if damaged == 1 else "are damaged, they are"
        notes[f"{path.name}: {count(damaged, 'record')} {are} left out"] = None


def _record(data: dict[str, Any]) -> Row | None:
    """A `Record` as we write it; `None` where it is damaged."""
    try:
        metrics = {key: v if type(v) is float else _exact(v) for key, v in data["metrics"].items()}
        return Row(int(data["step"]), float(data["time"]), metrics, str(data["phase"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None


def _exact(value: Any) -> float | None:
    return value if value is None else NON_FINITE[value] if isinstance(value, str) else float(value)


def read_csv(path: Path) -> Log:
    """
    A file of columns, separated by comma, semicolon or tab.

    Args:
        path (`Path`):
            The file, with its names in the first line. It is read row by row.
    """
    header = next(lines(path), "")
    separator = max(",;\t", key=header.count)
    names = next(csv.reader([header], delimiter=separator), [])
    log = Log(
        "CSV",
        lambda: read(lines(path)),
        partial=is_partial(names),
        last_step=lambda: max((row.step for row in read(_with(header, path))), default=0),
    )
    columns = _columns(names, path, log.notes)

    def read(texts: Iterator[str]) -> Iterator[Row]:
        return to_rows(_cells(texts, separator, columns, path, log.notes))

    return log


def _with(header: str, path: Path) -> Iterator[str]:
    yield header
    yield from (f"{line}\n" for line in tail(path) if line != header.rstrip("\r\n"))


def _cells(texts, separator: str, columns: list[str], path: Path, notes: dict[str, None]) -> Iterator[dict[str, str]]:
    csv.field_size_limit(LONGEST_LINE)  # a completion can be longer than the default of 128 KiB
    reader = csv.reader(texts, delimiter=separator)
    notebook = "Training Loss" in columns
    try:
        next(reader, None)
        for cells in reader:
            row = zip(columns, cells, strict=False)
            yield from table_row({name: cell for name, cell in row if name and (cell or notebook)})
    except csv.Error as error:
        notes[f"{path.name}: stopped at line {reader.line_num}: {error}"] = None


def _columns(names: list[str], path: Path, notes: dict[str, None]) -> list[str]:
    """What the columns hold; the empty text for those that say nothing."""
    if names == ["Wall time", "Step", "Value"]:  # one scalar of TensorBoard: the file is named run-<run>-tag-<tag>.csv
        tag = path.stem.rpartition("-tag-")[2]
        return ["wall_time", "step", tag.replace("train_", "train/", 1).replace("eval_", "eval/", 1)]
    if "Training Loss" in names:
        return [name.strip() for name in names]
    charts = [CHART.fullmatch(name) for name in names]
    runs = list(dict.fromkeys(chart["run"] for chart in charts if chart))
    if len(runs) > 1:
        notes[f"{path.name}: of {len(runs)} runs only the first is read, {runs[0]}"] = None
    found = [
        name if not chart else chart["name"] if chart["run"] == runs[0] and not chart["bound"] else ""
        for name, chart in zip(names, charts, strict=True)
    ]
    return ["step" if name == "Step" else name.strip().replace(" / ", "/") for name in found]


def table_row(row: dict[str, Any]) -> list[dict[str, Any]]:
    """
    A row of a table, in two parts where it is a notebook's and has a validation loss: all columns but the training loss
    are of evaluation then.
    """
    if "Training Loss" not in row:
        return [row]
    step = {"step": row["Step"]} if "Step" in row else {}
    plain = {_column(key): value for key, value in row.items() if key != "Step"}
    if "Validation Loss" not in row:
        return [{**step, **plain}]
    skipped = ("Step", "Epoch", "Training Loss")
    evaluation = {f"eval_{_column(key)}": row[key] for key in row if key not in skipped}
    epoch = {"epoch": row["Epoch"]} if "Epoch" in row else {}
    return [{**step, **epoch, "loss": row["Training Loss"]}, {**step, **epoch, **evaluation}]


def is_partial(names: list[str]) -> bool:
    """Whether a table of a notebook shows the loss only, or what somebody chose; with evaluations it shows all."""
    return "Training Loss" in names and "Validation Loss" not in names


def _column(key: str) -> str:
    name = key.strip().lower().replace(" / ", "/").replace(" ", "_")
    return COLUMNS.get(name, name)


def load_json(path: Path) -> Any:
    """
    A whole file of JSON.

    Raises:
        [`DiagnosticsError`]: if it is not JSON, or not all of it.
    """
    with open_text(path) as file, _no_json(path):
        return loads(file.read())


@contextmanager
def _no_json(path: Path) -> Iterator[None]:
    """Turns what the parser says into the error of the file."""
    try:
        yield
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) - 1 or error.msg.startswith("Unterminated")
        problem = f"cut off in line {error.lineno}" if cut else f"no JSON in line {error.lineno}: {error.msg}"
        raise DiagnosticsError(f"{path}: {problem}") from None
    except RecursionError:
        raise DiagnosticsError(f"{path}: nested too deeply") from None
    except ValueError as error:  # nested too deeply, or a number of thousands of digits
        raise DiagnosticsError(f"{path}: {error}") from None


def read_json(path: Path) -> Log:
    """
    A JSON file with a list of logs somewhere in it: a `trainer_state.json`, an export, a bare list.

    Args:
        path (`Path`):
            The file. If it is large, its log is read row by row, and the rest is loaded.

    Raises:
        [`DiagnosticsError`]: if it is not JSON.
    """
    if os.path.getsize(path) > LARGE:
        return _read_large(path)
    data = load_json(path)
    is_state = isinstance(data, dict) and isinstance(data.get("log_history"), list)
    found = dicts(data["log_history"]) if is_state else find_rows(data)
    log = Log("trainer_state.json" if is_state else "JSON", lambda: to_rows(split_rows(found)))
    log.config.update(_planned(data))
    return log


def _read_large(path: Path) -> Log:
    """As [`read_json`]: once for the rest and for what is wrong with it, then as often as it is asked for its rows."""
    rest: dict[str, Any] = {}
    kinds = Counter(isinstance(row, dict) for row in _streamed(path, rest))
    is_state = isinstance(rest.get("log_history"), list)
    if is_state or kinds[True] and not kinds[False]:
        log = Log(
            "trainer_state.json" if is_state else "JSON",
            lambda: to_rows(split_rows(row for row in _streamed(path, {}) if isinstance(row, dict))),
        )
    else:
        found = find_rows(rest)
        log = Log("JSON", lambda: to_rows(split_rows(found)))
        size = f"{os.path.getsize(path) / 2**20:,.0f} MiB"
        log.notes[f"{path.name}: {size}, loaded whole; JSON lines and CSV are read row by row"] = None
    log.config.update(_planned(rest))
    return log


def _streamed(path: Path, rest: dict[str, Any]) -> Iterator[Any]:
    with open_text(path) as file, _no_json(path):
        yield from stream(file, rest)


def split_rows(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (part for row in found for part in table_row(row))


def _planned(data: Any) -> dict[str, int]:
    """Planned length of the run."""
    steps = data.get("max_steps") if isinstance(data, dict) else None
    return {"max_steps": steps} if isinstance(steps, int) and not isinstance(steps, bool) and steps > 0 else {}


def dicts(data: list[Any]) -> list[dict[str, Any]]:
    return [row for row in data if isinstance(row, dict)]


def find_rows(data: Any) -> list[dict[str, Any]]:
    """The longest table in it, however deep: a list of dictionaries, or a dictionary of lists (columns)."""
    if isinstance(data, list):
        return data if data and all(isinstance(row, dict) for row in data) else []
    if not isinstance(data, dict):
        return []
    return max([*map(find_rows, data.values()), _transposed(data)], key=len, default=[])


def _transposed(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Columns as rows: lists, or what pandas writes, dictionaries by the number of the row."""
    columns = {key: list(value.values()) if isinstance(value, dict) else value for key, value in data.items()}
    columns = {key: value for key, value in columns.items() if isinstance(value, list)}
    if "loss" not in columns:
        return []
    length = len(columns["loss"])
    columns = {key: value for key, value in columns.items() if len(value) == length}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
