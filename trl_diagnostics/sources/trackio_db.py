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

"""A project of trackio (a local database) goes in, the names of its runs and the `Log` of one come out."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from ..engine.finding import DiagnosticsError
from .rows import Log, loads, to_rows


SUFFIXES = (".db", ".sqlite")


def _connect(path: Path) -> sqlite3.Connection:
    """Opened for reading only: a run that is being recorded is not disturbed."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def _rows(path: Path, query: str, *values: str) -> Iterator[tuple]:
    try:
        with closing(_connect(path)) as database:
            database.text_factory = lambda data: data.decode("utf-8", "replace")
            yield from database.execute(query, values)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
        raise DiagnosticsError(f"{path}: no database of trackio: {error}") from None


def runs_of(path: Path) -> dict[str, str]:
    """
    The runs in a project, the latest last: their names by what stands for them in a path.

    Raises:
        [`DiagnosticsError`]: if it is not a database of trackio.
    """
    found = _rows(path, "SELECT run_name, max(id) FROM metrics GROUP BY run_name ORDER BY max(id)")
    return {name.replace("/", "_"): name for name, _ in found if isinstance(name, str)}


def read_trackio(path: Path, run: str | None = None) -> Log:
    """
    A run of a project.

    Args:
        path (`Path`):
            The database, such as `~/.cache/huggingface/trackio/my-project.db`.
        run (`str`, *optional*):
            Name of the run. Defaults to the latest.

    Raises:
        [`DiagnosticsError`]: if it is not a database of trackio, or has no such run.
    """
    names = runs_of(path)
    known = run or next(reversed(names), "")
    if known not in names:
        raise DiagnosticsError(f"{path}: no run {known!r}, it has {', '.join(names) or 'none'}")
    name, notes = names[known], {}
    if run is None and len(names) > 1:
        notes[
            f"of {len(names)} runs the latest is read; for another one give {path.name}/{next(iter(names))}, say"
        ] = None
    return Log("trackio", lambda: to_rows(_cells(path, name, notes)), _config(path, name), notes)


def _cells(path: Path, name: str, notes: dict[str, None]) -> Iterator[dict[str, Any]]:
    found = _rows(path, "SELECT timestamp, step, metrics FROM metrics WHERE run_name = ? ORDER BY id", name)
    for time, step, metrics in found:
        cells = _object(metrics)
        if cells is None:
            notes[f"{path.name}: some logs are no JSON, they are left out"] = None
        else:
            yield {"_timestamp": _unix(time), "_step": step, **cells}


def _config(path: Path, name: str) -> dict[str, Any]:
    """The training arguments; releases before 0.5 do not keep any."""
    try:
        found = list(_rows(path, "SELECT config FROM configs WHERE run_name = ? ORDER BY id", name))
    except DiagnosticsError:
        return {}
    return next(filter(None, (_object(config) for (config,) in reversed(found))), {})


def _object(text: Any) -> dict[str, Any] | None:
    try:
        data = loads(text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text))
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _unix(time: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
