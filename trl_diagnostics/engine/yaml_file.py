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

"""A YAML file with one rule goes in, its fields with their places come out; every YAML trap is explained where it is."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml


Loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

STRING, NUMBER, FLAG, STRINGS, MAP, LIST = (
    "text",
    "a whole number",
    "true or false",
    "text or a list of texts",
    "a map",
    "a list",
)
FIELDS = {
    "name": STRING,
    "description": STRING,
    "trainers": STRINGS,
    "metric": STRING,
    "condition": STRING,
    "window": NUMBER,
    "severity": STRING,
    "message": STRING,
    "reference": STRINGS,
    "min_steps": NUMBER,
    "enabled": FLAG,
    "status": STRING,
    "when": MAP,
    "unless": STRINGS,
    "why": STRING,
    "fix": STRING,
    "false_positives": STRINGS,
    "renamed_from": STRINGS,
    "tests": LIST,
}
REQUIRED = ("name", "trainers", "metric", "condition", "severity", "message")


def suggest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean '...'?"` with the nearest known word, or nothing."""
    close = difflib.get_close_matches(str(word), sorted(known), 1)
    return f"; did you mean '{close[0]}'?" if close else ""


class Document:
    """
    One YAML file read as a mapping, with the place of each field and the problems found so far.

    Args:
        path (`Path`):
            File, as the user named it.
        text (`str`):
            Its content.
    """

    def __init__(self, path: Path, text: str):
        self.path = path
        self.problems: list[str] = []
        self.mapping: dict[str, Any] | None = None
        self.keys: dict[str, yaml.Mark] = {}
        self.values: dict[str, yaml.Node] = {}
        self.bad: set[str] = set()
        self._read(text)

    def _read(self, text: str) -> None:
        try:
            for event in yaml.parse(text, Loader):
                if isinstance(event, yaml.NodeEvent) and event.anchor:
                    self._report(
                        event.start_mark, "anchors (&) and aliases (*) are not allowed; write the value again"
                    )
                    return
            node = yaml.compose(text, Loader)
        except yaml.YAMLError:
            self._explain(text)
            return
        if not isinstance(node, yaml.MappingNode):
            self._report(node.start_mark if node else None, "expected fields such as 'name: ...'")
            return
        self._check_keys(node)
        for key, value in node.value:
            self.keys[str(key.value)], self.values[str(key.value)] = key.start_mark, value
        try:
            self.mapping = yaml.constructor.SafeConstructor().construct_document(node)
        except yaml.MarkedYAMLError as error:  # tags such as !!python/object, unhashable keys
            self._report(error.problem_mark, error.problem)

    def _explain(self, text: str) -> None:
        """Say what the pure-Python parser says: its texts are clearer than libyaml's."""
        try:
            yaml.compose(text, yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = text.splitlines()[mark.line] if mark.line < len(text.splitlines()) else ""
            key, _, value = line.partition(":")
            hint = ""
            if value.strip()[:1] in (">", "|", "%", "@", "`", "!", "*", "&") and key.strip():
                hint = f"; quote the {key.strip()}: '{value.strip()}'"
            elif "\t" in line:
                hint = "; use blanks instead of tabs"
            elif ": " in value or value.rstrip().endswith(":"):
                hint = "; put quotes around a text that contains ': '"
            self._report(mark, f"not valid YAML: {error.problem}{hint}")
        except yaml.YAMLError as error:
            self._report(None, f"not valid YAML: {error}")

    def _check_keys(self, node: yaml.Node) -> None:
        """Duplicate keys, at any depth; YAML itself would silently take the last one."""
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if str(key.value) in seen:
                    self._report(key.start_mark, f"'{key.value}' is given twice")
                seen.add(str(key.value))
                self._check_keys(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check_keys(item)

    def _report(self, mark: yaml.Mark | None, problem: str) -> None:
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(f"{self.path}:{line}:{column}: {problem}")

    def check_fields(self) -> None:
        """Unknown, missing and wrongly typed fields."""
        for name in self.mapping:
            if name not in FIELDS:
                self._report(self.keys.get(str(name)), f"unknown field '{name}'{suggest(name, FIELDS)}")
            else:
                self._check_type(name, FIELDS[name], self.mapping[name])
        for name in REQUIRED:
            if name not in self.mapping:
                self._report(None, f"field '{name}' is missing")

    def _check_type(self, name: str, wanted: str, value: Any) -> None:
        items = value if wanted == STRINGS and isinstance(value, list) else [value]
        good = {STRING: str, STRINGS: str, FLAG: bool, MAP: dict, LIST: list}
        for item in items or [None]:
            right = type(item) is int and item >= 1 if wanted == NUMBER else isinstance(item, good[wanted])
            if not right:
                self.problem(name, f"expected {wanted}, found {item!r}{self._trap(name, wanted, item)}")
                return
        if wanted == STRING and not value.strip():
            self.problem(name, "is empty")

    def _trap(self, name: str, wanted: str, item: Any) -> str:
        """Why YAML read something else than was meant."""
        if wanted in (STRING, STRINGS) and isinstance(item, bool):
            return "; YAML reads on, off, yes and no as true and false: put it in quotes"
        if wanted in (STRING, STRINGS) and isinstance(item, int | float):
            return "; put it in quotes"
        if wanted == NUMBER and isinstance(item, str):
            return "; write it with digits only, YAML reads forms such as 1e3 as text"
        return ""

    def problem(self, name: str, problem: str, column: int | None = None, snippet: str = "") -> None:
        """Add a problem of a field; with `column`, of a place inside of its text."""
        self.bad.add(name)
        self.problems.append(self.at(name, problem, column, snippet))

    def at(self, name: str, problem: str, column: int | None = None, snippet: str = "") -> str:
        """A located error text."""
        node = self.values.get(name)
        if node is None:
            return f"{self.path}:1:1: {name}: {problem}"
        line, start = node.start_mark.line + 1, node.start_mark.column + 1
        if column is None or node.style in ("|", ">"):
            text = f"{self.path}:{line}:{start}: {name}: {problem}"
        else:
            text = f"{self.path}:{line}:{start + (node.style is not None) + column}: {name}: {problem}"
        return text if column is None else f"{text}\n      {snippet}\n      {' ' * column}^"

    def get(self, name: str, default: Any = None) -> Any:
        """Value of a field, unless it is missing or bad."""
        return default if name in self.bad else self.mapping.get(name, default)

    def strings(self, name: str) -> tuple[str, ...]:
        """Value of a field that may be one text or a list of texts."""
        value = self.get(name, [])
        return (value,) if isinstance(value, str) else tuple(value)

    def sorted_problems(self) -> list[str]:
        """The problems found so far, in the order of the file."""
        return sorted(self.problems, key=self._place)

    def _place(self, problem: str) -> tuple[int, int]:
        line, column = problem.removeprefix(f"{self.path}:").split(":")[:2]
        return int(line), int(column)


def read_document(path: Path) -> Document:
    """Read one file."""
    try:
        return Document(path, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        document = Document(path, "{}")
        document.mapping = None
        document.problems.append(f"{path}:1:1: not UTF-8 text: {error.reason} at byte {error.start}")
        return document
