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

"""A folder of TensorBoard event files goes in, its `Log` comes out."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .protobuf import fields, signed
from .rows import Log, Row, loads


# TensorBoard's own reader takes 50 microseconds for each number and needs protobuf and gRPC; this one takes 5.
LENGTH = struct.Struct("<Q")
CHECKSUM = 4  # bytes after the length and after the content
LONGEST = 2**28  # bytes; a longer record is damage
FLOAT, DOUBLE = 1, 2  # types of a tensor


class Scalar(NamedTuple):
    """A number as TensorBoard keeps it."""

    step: int
    time: float
    tag: str
    value: float


def is_event_file(name: str) -> bool:
    """Whether a file is named like one of TensorBoard's."""
    return ".tfevents." in name


def event_files(folder: Path) -> list[Path]:
    """Event files directly in a folder, in the order of their names, which begin with the time."""
    return sorted(Path(entry) for entry in os.scandir(folder) if is_event_file(entry.name) and entry.is_file())


def read_tensorboard(path: Path) -> Log:
    """
    The runs of one folder as one: where a later file starts again at an earlier step, it takes the place of what the
    earlier file had from there.

    Args:
        path (`Path`):
            The folder, or one event file.
    """
    files = [path] if path.is_file() else event_files(path)
    log = Log("TensorBoard", lambda: _together(spans, log.notes))
    spans: list[tuple[Path, float]] = []  # file, and the step from which on a later one has it
    starts = [(file, *_start(file, log.config)) for file in files]
    holding = [start for start in starts if start[1] is not None]
    holding.sort(key=lambda start: start[2])
    for i, (file, _, _) in enumerate(holding):
        spans.append((file, min((step for _, step, _ in holding[i + 1 :]), default=float("inf"))))
    if len(holding) < len(files):
        log.notes[f"{len(files) - len(holding)} of {len(files)} event files hold no numbers"] = None
    return log


def _start(file: Path, config: dict[str, Any]) -> tuple[int | None, float]:
    """Step and time of the first number, and on the way there the training arguments."""
    for event in events(file, {}):
        if isinstance(event, Scalar):
            return event.step, event.time
        config.update(event)
    return None, 0.0


def _together(spans: list[tuple[Path, float]], notes: dict[str, None]) -> Iterator[Row]:
    for file, until in spans:
        left_out = 0
        for row in rows(file, notes):
            if row.step < until:
                yield row
            else:
                left_out += 1
        if left_out:
            notes[f"{file.name}: {left_out} logs from step {until} on left out, a later file starts there again"] = (
                None
            )


def rows(file: Path, notes: dict[str, None]) -> Iterator[Row]:
    """The numbers of one file, those of one log together."""
    row, group = Row(0, None, {}), ""
    for scalar in events(file, notes):
        if not isinstance(scalar, Scalar):
            continue
        following = (
            group if scalar.tag == "train/epoch" else _group(scalar.tag)
        )  # it ends every log, of evaluation too
        if scalar.step != row.step or scalar.tag in row.metrics or following != group:
            if row.metrics:
                yield row
            row, group = Row(scalar.step, scalar.time, {}), following
        row.metrics[scalar.tag] = scalar.value
    if row.metrics:
        yield row


def _group(tag: str) -> str:
    """Evaluation, the summary of a run, and training come in logs of their own."""
    if tag.startswith("eval/"):
        return "eval"
    return "summary" if tag.startswith(("train/train_", "train/total_flos")) else "train"


def records(file: Path, notes: dict[str, None]) -> Iterator[bytes]:
    """The records of a TFRecord file. Its checksums are not looked at; a record that is no message is damage enough."""
    with file.open("rb") as stream:
        while head := stream.read(LENGTH.size + CHECKSUM):
            length = LENGTH.unpack(head[: LENGTH.size])[0] if len(head) == LENGTH.size + CHECKSUM else LONGEST
            data = stream.read(length) if length < LONGEST else b""
            if len(data) < length or len(stream.read(CHECKSUM)) < CHECKSUM:
                notes[f"{file.name}: cut off or damaged after {stream.tell():,} bytes"] = None
                return
            yield data


def events(file: Path, notes: dict[str, None]) -> Iterator[Scalar | dict[str, Any]]:
    """Numbers of an event file, and the training arguments where they come."""
    for data in records(file, notes):
        try:
            yield from _event(data)
        except (ValueError, TypeError, AttributeError, struct.error):  # bytes where a number belongs, and so on
            notes[f"{file.name}: damaged; what follows is left out"] = None
            return


def _event(data: bytes) -> Iterator[Scalar | dict[str, Any]]:
    time, step, summary = 0.0, 0, b""
    for number, value in fields(data):
        if number == 1:
            time = float(value)
        elif number == 2:
            step = signed(value)
        elif number == 5:
            summary = value
    for number, value in fields(summary):
        if number == 1:
            yield from _value(dict(fields(value)), step, time)


def _value(value: dict[int, Any], step: int, time: float) -> Iterator[Scalar | dict[str, Any]]:
    """One entry of a summary: 1 is its tag, 2 its number; newer writers put number and text into a tensor, 8."""
    tag = value.get(1, b"").decode("utf-8", "replace")
    if 2 in value:
        yield Scalar(step, time, tag, float(value[2]))
    elif 8 in value:
        tensor = dict(fields(value[8]))
        if tag.removesuffix("/text_summary") == "args" and 8 in tensor:
            yield _arguments(tensor[8])
        elif tensor.get(1) in (FLOAT, DOUBLE) and not tensor.get(2):  # a shape without dimensions
            yield from (Scalar(step, time, tag, number) for number in _number(tensor))


def _number(tensor: dict[int, Any]) -> Iterator[float]:
    """The number of a tensor: packed (5 and 6), or as raw content (4)."""
    kind = "<f" if tensor[1] == FLOAT else "<d"
    content = tensor.get(4) or tensor.get(5 if tensor[1] == FLOAT else 6)
    if isinstance(content, float):
        yield content
    elif content:
        yield struct.unpack(kind, content)[0]


def _arguments(text: bytes) -> dict[str, Any]:
    data = loads(text.decode("utf-8", "replace"))
    return data if isinstance(data, dict) else {}
