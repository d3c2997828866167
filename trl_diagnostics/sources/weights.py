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

"""Safetensors files go in, whether a weight in them is NaN or infinite comes out; no tensor is ever loaded whole."""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path

import numpy as np


CHUNK = 1 << 20  # bytes; measured: larger pieces fall out of the cache and take longer
LARGEST_HEADER = 100_000_000  # bytes, the limit of the format

# Type of a tensor -> how its bits are read, and what turns NaN and infinity, and nothing else, into the highest value.
# In IEEE types and their kin these are the numbers whose exponent bits are all ones; some 8-bit types have one code.
NON_FINITE: dict[str, tuple[type, Callable, int, int]] = {
    "F64": (np.uint64, np.bitwise_and, 0x7FF << 52, 0x7FF << 52),
    "F32": (np.uint32, np.bitwise_and, 0x7F800000, 0x7F800000),
    "C64": (np.uint32, np.bitwise_and, 0x7F800000, 0x7F800000),
    "F16": (np.uint16, np.bitwise_and, 0x7C00, 0x7C00),
    "BF16": (np.uint16, np.bitwise_and, 0x7F80, 0x7F80),
    "F8_E5M2": (np.uint8, np.bitwise_and, 0x7C, 0x7C),
    "F8_E4M3": (np.uint8, np.bitwise_and, 0x7F, 0x7F),
    "F8_E8M0": (np.uint8, np.bitwise_and, 0xFF, 0xFF),
    "F8_E4M3FNUZ": (np.uint8, np.bitwise_xor, 0x7F, 0xFF),  # NaN has the code that would be -0
    "F8_E5M2FNUZ": (np.uint8, np.bitwise_xor, 0x7F, 0xFF),
}
ALWAYS_FINITE = {"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F4", "F6_E2M3", "F6_E3M2"}
PICKLES = ("*model*.bin", "*model*.pt", "*.distcp")  # of weights


@dataclass(frozen=True)
class Weights:
    """
    What is known about the numbers in a checkpoint.

    Args:
        finite (`bool` or `None`):
            Whether all weights are finite; `None` where that cannot be known.
        note (`str`, *optional*):
            The first tensor that is not finite, or why it is not known. Empty for finite weights.
        damaged (`bool`, *optional*, defaults to `False`):
            Whether a file is missing, cut off or not what its name says.
    """

    finite: bool | None
    note: str = ""
    damaged: bool = False


class _Damaged(ValueError):
    """A file that is not what its name says."""


class _TimeIsUp(Exception):
    """The time allowed is used up."""


def check_weights(path: Path, deadline: float = math.inf) -> Weights:
    """
    Whether all weights of a checkpoint are finite, and which tensor is not.

    Memory does not grow with the files. Pickles are never opened, since reading one may run code.

    Args:
        path (`Path`):
            A `.safetensors` file, or a folder with such files: a model, its shards, adapters.
        deadline (`float`, *optional*):
            Value of `time.monotonic()`, in seconds, at which to give up.

    Returns:
        [`Weights`]: what is known; nothing is raised for files that cannot be read.
    """
    try:
        files = _files(path) if path.is_dir() else [path]
        bad = next((f"{tensor} in {file.name}" for file in files for tensor in _nonfinite(file, deadline)), None)
    except _TimeIsUp:
        return Weights(None, "not looked at to the end, the time for it was used up")
    except _Damaged as error:
        return Weights(None, str(error), damaged=True)
    except OSError as error:
        return Weights(None, f"cannot be read: {error.strerror}")
    if bad:
        return Weights(False, f"{bad} is NaN or infinite")
    if not files:
        pickled = any(next(path.rglob(pattern), None) for pattern in PICKLES)
        return Weights(None, "only pickled weights, which are not opened" if pickled else "no weights", not pickled)
    return Weights(True)


def _files(folder: Path) -> list[Path]:
    """All safetensors files below a folder, once it is sure that no shard is missing."""
    files = sorted(folder.rglob("*.safetensors"))
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise _Damaged(f"{index.name} is no index of shards") from None
        if missing := sorted(map(str, named - {file.name for file in files})):
            raise _Damaged(f"{missing[0]} is missing, {index.name} names it")
    return files


def _nonfinite(file: Path, deadline: float) -> Iterator[str]:
    """Names of the tensors of one file that are not finite, in the order of the file."""
    with file.open("rb", buffering=0) as stream:
        start, tensors = _header(stream, file)
        for first, last, kind, name in tensors:
            if kind in NON_FINITE:
                stream.seek(start + first)
                if _any_nonfinite(stream, last - first, kind, deadline):
                    yield name
            elif kind not in ALWAYS_FINITE:
                raise _Damaged(f"{file.name}: numbers of an unknown type, {kind}")


def _header(stream: RawIOBase, file: Path) -> tuple[int, list[tuple[int, int, str, str]]]:
    """Where the data begins; then begin, end (in bytes from there), type and name of each tensor."""
    size = file.stat().st_size
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 + length or length > LARGEST_HEADER:
        raise _Damaged(f"{file.name} is cut off, or no safetensors file")
    try:
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        tensors = [(*map(int, entry["data_offsets"]), str(entry["dtype"]), name) for name, entry in header.items()]
        tensors = sorted((first, last, kind, name) for first, last, kind, name in tensors)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise _Damaged(f"{file.name} is no safetensors file") from None
    if any(not 0 <= first <= last for first, last, *_ in tensors):
        raise _Damaged(f"{file.name} is no safetensors file")
    if tensors and 8 + length + max(last for _, last, *_ in tensors) > size:
        raise _Damaged(f"{file.name} is cut off")
    return 8 + length, tensors


def _any_nonfinite(stream: RawIOBase, n_bytes: int, kind: str, deadline: float) -> bool:
    """Whether one of the numbers in the next bytes of a file is NaN or infinite."""
    dtype, operation, constant, highest = NON_FINITE[kind]
    buffer, bits = np.empty(CHUNK, np.uint8), np.empty(CHUNK // dtype().itemsize, dtype)
    while n_bytes:
        if time.monotonic() > deadline:
            raise _TimeIsUp
        piece = buffer[: min(CHUNK, n_bytes)]
        if (got := _fill(stream, piece)) < len(piece):
            raise _Damaged(f"{n_bytes - got} bytes are missing at the end of a file")
        values = piece[: len(piece) // dtype().itemsize * dtype().itemsize].view(dtype)
        if len(values) and operation(values, dtype(constant), out=bits[: len(values)]).max() == dtype(highest):
            return True
        n_bytes -= len(piece)
    return False


def _fill(stream: RawIOBase, piece: np.ndarray) -> int:
    """Read until the piece is full or the file ends; returns how many bytes were read."""
    filled = 0
    while filled < len(piece) and (got := stream.readinto(memoryview(piece)[filled:])):
        filled += got
    return filled
