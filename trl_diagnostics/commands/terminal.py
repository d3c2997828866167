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

"""Text, tables and JSON of the commands go in, standard output that fits the terminal comes out; plain when piped."""

import json
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from ..engine.finding import json_number
from ..explain import CEILING, FLOOR, wrapped


UNLIMITED = 1000  # columns: a file has no edge
STYLES = {
    "critical": "bold red",
    "high": "red",
    "crashed": "red",
    "killed": "red",
    "hung": "red",
    "out of memory": "red",
    "medium": "yellow",
    "low": "cyan",
    "resolved": "green",
    "healthy": "green",
    "unreadable": "bold red",
    "too short": "dim",
}
TAG = r"\[(CRITICAL|HIGH|CRASHED|KILLED|HUNG|OUT OF MEMORY|MEDIUM|LOW|RESOLVED|HEALTHY|TOO SHORT)\]"


def width() -> int:
    """Columns of a paragraph: those of the terminal, 119 at most and where nobody looks on."""
    return min(columns(CEILING), CEILING)


def columns(unknown: int) -> int:
    """Columns of the terminal, or `unknown` where there is none."""
    return max(FLOOR, shutil.get_terminal_size((unknown, 24)).columns)


def terminal(stderr: bool = False) -> Console:
    """What is written to: colours only where a person looks on, and nothing in a text means anything to it."""
    return Console(width=columns(UNLIMITED), highlight=False, markup=False, emoji=False, stderr=stderr)


def colored(text: str) -> Text:
    """A text with its severities in colour."""
    shown = Text(text)
    shown.highlight_regex(TAG, lambda tag: STYLES[tag[1:-1].lower()])
    return shown


def say(text: str) -> None:
    """Print lines that are as long as they should be."""
    terminal().print(colored(text), soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[str | Text]], right: Iterable[str] = ()) -> Table:
    """
    Aligned columns without lines between them. What is too long for the terminal goes on below, nothing is cut off.

    Args:
        columns (`Iterable[str]`):
            Headings.
        rows (`Iterable[Iterable[str | Text]]`):
            Cells.
        right (`Iterable[str]`, *optional*):
            Headings of the columns of numbers.
    """
    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in columns:
        number = heading in right
        shown.add_column(heading, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    return shown


def show(thing: RenderableType) -> None:
    """Print a table or several things; lines end where their text ends."""
    console = terminal()
    if console.is_terminal:
        console.print(thing)
        return
    with console.capture() as printed:
        console.print(thing)
    print(*(line.rstrip() for line in printed.get().splitlines()), sep="\n")


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and what they are, below each other; those without a text are left out, and no path is broken."""
    shown = [(name, text) for name, text in pairs if text]
    space = max(len(name) for name, _ in shown) + 2
    for name, text in shown:
        say(wrapped(text, name.ljust(space), " " * space))


def cut(text: str, most: int) -> str:
    """The end of a text that is too long: of a path it tells most."""
    return text if len(text) <= most else f"…{text[len(text) - most + 1 :]}"


def broken(name: str, most: int) -> str:
    """A name in lines that end after a `_` or a `/`, as far as it is too long."""
    lines = [""]
    for part in re.findall(r"[^_/]+[_/]*|[_/]+", name):
        lines += [""] if lines[-1] and len(lines[-1] + part) > most else []
        lines[-1] += part
    return "\n".join(lines)


def print_json(document: dict[str, Any]) -> None:
    """Print one strict JSON document."""
    json.dump(plain(document), sys.stdout, indent=1, allow_nan=False)
    print()


def plain(value: Any) -> Any:
    """A value as JSON can hold it: paths as text, NaN as `"NaN"`, dataclasses as dictionaries."""
    match value:
        case bool() | int() | str() | None:
            return value
        case float():
            return json_number(value)
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case Path():
            return str(value)
        case _ if is_dataclass(value):
            return plain(asdict(value))
        case _:
            return [plain(item) for item in value]
