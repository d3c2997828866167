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

"""The bytes of a protocol buffer go in, its numbered fields come out."""

import struct
from collections.abc import Iterator


FIXED = {1: struct.Struct("<d"), 5: struct.Struct("<f")}
VARINT, BYTES = 0, 2


def fields(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """
    The fields of a message: number and value. Bytes, texts and messages inside are bytes.

    Raises:
        `ValueError`: if these bytes are no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind == BYTES:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in FIXED:
            after = at + FIXED[kind].size
            value = FIXED[kind].unpack(data[at:after])[0] if after <= end else None
            at = after
        else:
            raise ValueError("no message")
        if at > end:
            raise ValueError("cut off")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("cut off")


def signed(value: int) -> int:
    """A negative number is stored as its 64-bit complement."""
    return value - 2**64 if value >= 2**63 else value
