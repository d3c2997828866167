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
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from .tree import MAX_POINTS


Loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

MAX_DEPTH = 20
MERGE = "tag:yaml.org,2002:merge"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
DECIMAL = re.compile(r"[-+]?(0|[1-9]\d*)|[-+]?\d*\.\d*([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

ANCHOR = "anchors (&) and aliases (*) are not allowed; write the value again, or put quotes around a text"
BLOCK = "; YAML reads '>' and '|' as the start of a block of text: put quotes around it"
DIGITS = "; write it with digits only, YAML reads forms such as 1e3 as text"

STRING, FLAG, STRINGS, MAP, LIST = "text", "true or false", "text or a list of texts", "a map", "a list"
NUMBER = f"a whole number from 1 to {MAX_POINTS}"
TYPES = {STRING: str, STRINGS: str, FLAG: bool, MAP: dict, LIST: list}
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


def pointer(text: str, column: int) -> str:
    """Two lines: the text, and a caret below the column."""
    return f"      {' '.join(text.splitlines())}\n      {' ' * column}^"


class Document:
    """
    One YAML file read as a mapping, with the place of each field and the problems found so far.

    Args:
        path (`Path`):
            File, as the user named it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.problems: list[str] = []
        self.mapping: dict[str, Any] = {}
        self.keys: dict[str, yaml.Mark] = {}
        self.values: dict[str, yaml.Node] = {}
        self.bad: set[str] = set()

    def read(self, text: str) -> None:
        """Take in the content of the file."""
        try:
            if not self._check_events(text):
                return
            node = yaml.compose(text, Loader)
        except yaml.YAMLError as error:
            self._explain(text, error)
            return
        if not isinstance(node, yaml.MappingNode) or not node.value:
            self.report(node.start_mark if node else None, "expected fields such as 'name: ...'")
            return
        self._check_nodes(node)
        for key, value in node.value:
            self._read_field(key, value)

    def _check_events(self, text: str) -> bool:
        """Refuse what no rule needs: anchors, aliases, tags, and nesting so deep that reading it could end Python."""
        depth = 0
        for event in yaml.parse(text, Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            problem = ""
            if depth > MAX_DEPTH:
                problem = f"more than {MAX_DEPTH} levels deep"
            elif isinstance(event, yaml.NodeEvent) and event.anchor:
                problem = ANCHOR
            elif not isinstance(event, yaml.AliasEvent) and isinstance(event, yaml.NodeEvent) and event.tag:
                problem = "tags (!) are not allowed; put quotes around a text that starts with '!'"
            if problem:
                self.report(event.start_mark, problem)
                return False
        return True

    def _read_field(self, key: yaml.Node, node: yaml.Node) -> None:
        if not isinstance(key, yaml.ScalarNode):
            self.report(key.start_mark, "expected the name of a field")
            return
        self.keys[key.value], self.values[key.value] = key.start_mark, node
        try:
            self.mapping[key.value] = yaml.constructor.SafeConstructor().construct_document(node)
        except yaml.MarkedYAMLError as error:  # for example an unhashable key
            self.bad.add(key.value)
            self.report(error.problem_mark, f"{key.value}: {error.problem}")
        except ValueError as error:  # for example 2024-02-31, a date for YAML
            self.problem(key.value, f"{error}; put it in quotes")

    def _explain(self, text: str, error: yaml.YAMLError) -> None:
        """Say what the pure-Python parser says, if it finds the problem too: its texts are clearer than libyaml's."""
        try:
            yaml.compose(text, yaml.SafeLoader)
        except yaml.YAMLError as clearer:
            error = clearer
        if not isinstance(error, yaml.MarkedYAMLError):
            self.report(None, f"not valid YAML: {' '.join(str(error).split())}")
            return
        mark = error.problem_mark
        self.report(mark, f"not valid YAML: {error.problem}{_hint([*text.splitlines(), ''][mark.line])}")

    def _check_nodes(self, node: yaml.Node) -> None:
        """What YAML would silently read otherwise than it looks, at any depth: repeated keys, `0x40`, `1:30`."""
        if isinstance(node, yaml.ScalarNode) and node.tag in NUMBERS:
            self._check_decimal(node)
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if str(key.value) in seen:
                    self.report(key.start_mark, f"'{key.value}' is given twice")
                if key.tag == MERGE:
                    self.report(key.start_mark, "'<<' is not allowed; write the fields themselves")
                seen.add(str(key.value))
                self._check_nodes(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check_nodes(item)

    def _check_decimal(self, node: yaml.ScalarNode) -> None:
        if not DECIMAL.fullmatch(node.value):
            self.report(
                node.start_mark, f"YAML reads '{node.value}' as a number that is not decimal; put it in quotes"
            )
        elif "n" not in node.value.lower() and math.isinf(float(node.value)):  # neither .inf nor .nan
            self.report(node.start_mark, f"number {node.value} is too large")

    def report(self, mark: yaml.Mark | None, problem: str) -> None:
        """Add a problem at a place; without one, at the start of the file."""
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        self.problems.append(f"{self.path}:{line}:{column}: {problem}")

    def check_fields(self) -> None:
        """Unknown, missing and wrongly typed fields."""
        for name, mark in self.keys.items():
            if name not in FIELDS:
                self.report(mark, f"unknown field '{name}'{suggest(name, FIELDS)}")
            elif name in self.mapping:
                self._check_type(name, FIELDS[name], self.mapping[name])
        for name in REQUIRED:
            if name not in self.keys:
                self.report(None, f"field '{name}' is missing")

    def _check_type(self, name: str, wanted: str, value: Any) -> None:
        if wanted == NUMBER:
            self._check_number(name, value)
            return
        for item in value if wanted == STRINGS and isinstance(value, list) else [value]:
            if not isinstance(item, TYPES[wanted]):
                self.problem(name, f"expected {wanted}, found {item!r}{_trap(wanted, item)}")
                return
            if isinstance(item, str) and not item.strip():
                self.problem(name, f"is empty{BLOCK if self.values[name].style in ('|', '>') else ''}")
                return
        if value == [] and name in REQUIRED:
            self.problem(name, "is empty")

    def _check_number(self, name: str, value: Any) -> None:
        if type(value) is not int or not 1 <= value <= MAX_POINTS:
            self.problem(name, f"expected {NUMBER}, found {value!r}{DIGITS if isinstance(value, str) else ''}")

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
        if column is not None and node.style not in ("|", ">"):
            start += column + (node.style in ("'", '"'))
        text = f"{self.path}:{line}:{start}: {name}: {problem}"
        return text if column is None else f"{text}\n{pointer(snippet, column)}"

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


def _hint(line: str) -> str:
    """What to write instead of a line that is not YAML."""
    key, _, value = line.partition(":")
    key, value = key.strip(), value.strip()
    if key and value[:1] and value[0] in ">|%@`!*&[{":
        return f"; quote the {key}: '{value}'"
    if "\t" in line:
        return "; use blanks instead of tabs"
    if ": " in value or value.endswith(":"):
        return "; put quotes around a text that contains ': '"
    return ""


def _trap(wanted: str, item: Any) -> str:
    """Why YAML read something else than the text that was meant."""
    if wanted not in (STRING, STRINGS) or item is None:
        return ""
    if isinstance(item, bool):
        return "; YAML reads on, off, yes and no as true and false: put it in quotes"
    return "; put it in quotes"


def read_document(path: Path) -> Document:
    """Read one file."""
    document = Document(path)
    try:
        document.read(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        document.report(None, f"not UTF-8 text: {error.reason} at byte {error.start}")
    except OSError as error:
        document.report(None, f"cannot be read: {error.strerror}")
    return document
