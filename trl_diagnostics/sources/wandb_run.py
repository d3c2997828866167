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

"""The folder of a W&B run goes in, its `Log` comes out; wandb is not needed."""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..engine.finding import DiagnosticsError
from .console_log import read_console
from .protobuf import fields
from .rows import Log, loads, to_rows
from .tables import lines, objects


# wandb writes the log format of LevelDB: blocks of 32 KiB with pieces of records, each with checksum, length and kind.
# Its Python package no longer reads it.
MAGIC, BLOCK = b":W&B", 2**15
PIECE = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
# Numbers of the fields of a Record, and of what is in it.
HISTORY, CONFIG, RUN = 2, 5, 17
VERSION = re.compile(r"(?m)^trl==(\S+)$")


def is_wandb_run(names: set[str]) -> bool:
    """Whether a folder holds a run of W&B, from the names in it."""
    return any(name.endswith(".wandb") for name in names) or "wandb-history.jsonl" in names


def read_wandb(path: Path) -> Log:
    """
    A run of W&B: its `.wandb` file, or what other releases leave in `files`.

    Args:
        path (`Path`):
            Its folder, such as `wandb/offline-run-20250101_120000-abcd1234`, or the `.wandb` file.

    Raises:
        [`DiagnosticsError`]: if there are no logs in it.
    """
    folder = path if path.is_dir() else path.parent
    notes: dict[str, None] = {}
    binary = next((file for file in sorted(folder.glob("*.wandb")) if file.stat().st_size), None)
    history = next((file for file in _files(folder, "wandb-history.jsonl")), None)
    printed = next((file for file in _files(folder, "output.log")), None)
    config = _config(folder, notes)
    if binary:
        config.update(_config_of_records(binary))
        log = Log("W&B", lambda: to_rows(_history(binary, notes)), config, notes)
    elif history:
        log = Log("W&B", lambda: to_rows(objects(history, notes)), config, notes)
    elif printed:
        shown = read_console(lambda: lines(printed), printed.name)
        notes.update(shown.notes)
        notes["the .wandb file holds nothing, so the numbers are those that the run printed"] = None
        log = Log("W&B", shown.rows, {**shown.config, **config}, notes)
    else:
        raise DiagnosticsError(f"{path}: no .wandb file, no wandb-history.jsonl and no output.log with numbers in it")
    requirements = next((file for file in _files(folder, "requirements.txt")), None)
    version = VERSION.search("".join(lines(requirements))) if requirements else None
    return Log(log.kind, log.rows, log.config, notes, trl_version=version and version[1])


def _files(folder: Path, name: str) -> list[Path]:
    return [file for file in (folder / "files" / name, folder / name) if file.is_file()]


def _config(folder: Path, notes: dict[str, None]) -> dict[str, Any]:
    """`config.yaml` of an online run: each argument as `{value: ...}`."""
    for file in _files(folder, "config.yaml"):
        try:
            data = yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            notes[f"{file.name}: no YAML, so the training arguments are not known"] = None
            continue
        items = data.items() if isinstance(data, dict) else ()
        return {str(key): item["value"] for key, item in items if isinstance(item, dict) and "value" in item}
    return {}


def records(path: Path, notes: dict[str, None]) -> Iterator[bytes]:
    """The records of a `.wandb` file."""
    with path.open("rb") as stream:
        stream.read(PIECE.size)  # a header of the same length
        parts = b""
        while head := _head(stream):
            _, length, kind = head
            data = stream.read(length)
            if len(data) < length or kind not in (WHOLE, FIRST, MIDDLE, LAST):
                notes[f"{path.name}: cut off or damaged after {stream.tell():,} bytes"] = None
                return
            parts = data if kind in (WHOLE, FIRST) else parts + data
            if kind in (WHOLE, LAST):
                yield parts


def _head(stream) -> tuple[int, int, int] | None:
    """Checksum, length and kind of the next piece; none begins in the last six bytes of a block."""
    left = BLOCK - stream.tell() % BLOCK
    if left < PIECE.size:
        stream.read(left)
    head = stream.read(PIECE.size)
    return PIECE.unpack(head) if len(head) == PIECE.size and any(head) else None


def _history(path: Path, notes: dict[str, None]) -> Iterator[dict[str, Any]]:
    """The cells of each `wandb.log`."""
    for record in records(path, notes):
        try:
            for number, value in fields(record):
                if number == HISTORY:
                    yield dict(_item(item) for field, item in fields(value) if field == 1)
        except (ValueError, TypeError, AttributeError):  # bytes where a number belongs, and so on
            notes[f"{path.name}: some records are damaged, they are left out"] = None


def _config_of_records(path: Path) -> dict[str, Any]:
    """Training arguments: what the run was started with, 17, and what was added later, 5."""
    config: dict[str, Any] = {}
    for record in records(path, {}):
        try:
            for number, value in fields(record):
                if number == RUN:
                    config.update(update for field, data in fields(value) if field == 4 for update in _updates(data))
                elif number == CONFIG:
                    config.update(_updates(value))
                elif number == HISTORY and config:  # the arguments come before the first log
                    return config
        except (ValueError, TypeError, AttributeError):
            continue
    return config


def _updates(data: bytes) -> list[tuple[str, Any]]:
    return [_item(item) for field, item in fields(data) if field == 1]


def _item(data: bytes) -> tuple[str, Any]:
    """A name and its value. 1 and 2 are the name, 8 and 16 JSON, 7 a text, 6 a number, 5 a whole one in zigzag."""
    names, value = [], None
    for number, content in fields(data):
        if number in (1, 2) and content:
            names.append(content.decode("utf-8", "replace"))
        elif number in (8, 16):
            value = loads(content.decode("utf-8", "replace"))
        elif number == 7:
            value = content.decode("utf-8", "replace")
        elif number == 6:
            value = content
        elif number == 5:
            value = (content >> 1) ^ -(content & 1)
    return ".".join(names), value
