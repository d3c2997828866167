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

"""A JSON file of any size goes in, the elements of its log come out one by one; only the rest of it is kept in memory."""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from .rows import without_surrogates


CHUNK = 2**20  # characters
TOKEN = 16  # characters at the end of a piece, in which a word or a number may be cut
SPACE = re.compile(r"[ \t\n\r]*")
DECODER = json.JSONDecoder()
LOG = "log_history"


def stream(file: TextIO, rest: dict[str, Any]) -> Iterator[Any]:
    """
    The elements of `log_history` in a JSON object, or those of a JSON array.

    Args:
        file (`TextIO`):
            The text, read in pieces.
        rest (`dict[str, Any]`):
            Receives the other members of the object, and an empty list in the place of the log.

    Raises:
        `json.JSONDecodeError`: where the text is no JSON; what came before has been given out.
    """
    text = _Text(file)
    if text.peek() == "[":
        yield from text.array()
    elif text.peek() == "{":
        for _ in text.members("}"):
            key = text.value()
            if not isinstance(key, str):
                raise text.error("Expecting property name enclosed in double quotes")
            text.expect(":")
            if key == LOG and text.peek() == "[":
                rest[key] = []
                yield from text.array()
            else:
                rest[key] = text.value()
    else:
        text.value()
    if text.peek():
        raise text.error("Extra data")


class _Text:
    """What has been read of a file and not yet been parsed."""

    def __init__(self, file: TextIO):
        self.file, self.text, self.at, self.lines = file, "", 0, 0

    def more(self) -> bool:
        """Read on; as much as there is, for a value that is longer than a piece is parsed from its start again."""
        self.lines += self.text.count("\n", 0, self.at)
        piece = self.file.read(max(CHUNK, len(self.text) - self.at))
        self.text, self.at = self.text[self.at :] + piece, 0
        return bool(piece)

    def error(self, what: str, at: int | None = None) -> json.JSONDecodeError:
        error = json.JSONDecodeError(what, self.text, self.at if at is None else at)
        error.lineno += self.lines
        return error

    def peek(self) -> str:
        """The next character that is no space; empty at the end."""
        self.at = SPACE.match(self.text, self.at).end()
        while self.at == len(self.text) and self.more():
            self.at = SPACE.match(self.text).end()
        return self.text[self.at : self.at + 1]

    def expect(self, characters: str) -> str:
        if (found := self.peek()) not in characters or not found:
            raise self.error(f"Expecting '{characters[0]}' delimiter")
        self.at += 1
        return found

    def members(self, closing: str) -> Iterator[None]:
        """Stops before each member of an object or array, from its opening bracket up to its closing one."""
        self.at += 1
        if self.peek() == closing:
            self.at += 1
            return
        yield
        while self.expect("," + closing) == ",":
            yield

    def array(self) -> Iterator[Any]:
        for _ in self.members("]"):
            yield self.value()

    def value(self) -> Any:
        """The value that comes next."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                torn = error.msg.startswith("Unterminated") or error.pos >= len(self.text) - TOKEN
                offset = error.pos - self.at
                if not torn or not self.more():
                    raise self.error(error.msg, self.at + offset) from None
                continue
            length = end - self.at
            if end < len(self.text) - TOKEN or not self.more():  # a number may go on in the next piece
                break
        raw = self.text[self.at : self.at + length]
        self.at += length
        return without_surrogates(value) if "\\u" in raw else value
