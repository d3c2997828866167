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

"""A saved notebook goes in, the `Log` of the training that it shows comes out."""

from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from .rows import Log, to_rows
from .tables import dicts, is_partial, load_json, split_rows


class _Tables(HTMLParser):
    """Collects the cells of every table."""

    def __init__(self):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.in_cell = tag in ("td", "th") and bool(self.tables)
        if tag == "table":
            self.tables.append([])
        elif self.tables and tag == "tr":
            self.tables[-1].append([])
        elif self.in_cell:
            self.tables[-1] = self.tables[-1] or [[]]
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_cell:
            self.tables[-1][-1][-1] += data


def notebook_outputs(path: Path) -> Iterator[tuple[str, str]]:
    """
    What the cells of a saved notebook show: `"text/html"` or `"text/plain"`, and the text.

    Raises:
        [`DiagnosticsError`]: if it is not JSON.
    """
    data = load_json(path)
    for cell in dicts(_list(data, "cells")):
        for output in dicts(_list(cell, "outputs")):
            shown = output.get("data")
            html = shown.get("text/html") if isinstance(shown, dict) else None
            kind, text = ("text/plain", output.get("text")) if html is None else ("text/html", html)
            yield kind, "".join(map(str, text)) if isinstance(text, list) else str(text or "")


def _list(data: Any, key: str) -> list[Any]:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, list) else []


def html_tables(html: str) -> Iterator[list[dict[str, str]]]:
    """The tables of training in an HTML text, each as rows of cells by column."""
    parser = _Tables()
    parser.feed(html)
    for header, *body in filter(None, parser.tables):
        names = [name.strip() for name in header]
        if "Training Loss" in names or "Validation Loss" in names:
            yield [dict(zip(names, cells, strict=False)) for cells in body]


def read_notebook(path: Path, read_text: Callable[[Iterator[str]], Log]) -> Log:
    """
    A saved notebook: the longest table of training that it shows, or the logs that it printed.

    Args:
        path (`Path`):
            The `.ipynb` file.
        read_text (`Callable[[Iterator[str]], Log]`):
            Reads printed lines.
    """
    outputs = list(notebook_outputs(path))
    tables = [table for kind, text in outputs if kind == "text/html" for table in html_tables(text)]
    if not tables:
        return read_text(line for kind, text in outputs if kind == "text/plain" for line in text.splitlines(True))
    longest = max(tables, key=len)
    log = Log("notebook", lambda: to_rows(split_rows(longest)), partial=is_partial([*longest[0]]) if longest else True)
    if len(tables) > 1:
        log.notes[f"{path.name}: of {len(tables)} tables only the longest is read, {len(longest)} rows"] = None
    return log
