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

"""Syntax trees of functions go in, the keys that they write into a log come out, with the options they depend on."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from key_texts import HOLE, Scope, Texts, last_name, option_texts, variables


# Containers whose keys reach the log. A leading underscore before `logs` marks the table of completions instead.
SINK = re.compile(r"^(\w*_)?(metrics|stats)$|^logs$|^_(counters|rates)$")
# `container[mode][key]`: the first subscript is train or eval, not a key.
BY_MODE = re.compile(r"^_(stored_)?metrics$")
# Filled by `log_metric(name, value)`, which TRL passes to reward functions: any name, at the user's choice.
USER_SINK = "_pending_metrics"
# Calls that take a dict of numbers to log.
LOG_CALL = re.compile(r"^_?(push|store|log|record)_(\w+_)?metrics$|^log$")
# Container of keys that `flatten_dict` makes out of nested dicts.
FLATTENED = "flattened"


@dataclass(frozen=True)
class Event:
    """A key written to (`add`) or taken out of (`remove`) a container, or all its keys copied (`copy`) with a prefix."""

    action: str
    key: str
    container: str
    conditions: tuple[str, ...] = ()


class KeyScan:
    """
    What a set of functions logs.

    Args:
        constants (`dict[str, str]`):
            String attributes of the class, for keys such as `f"{self._name}/loss"`.
        groups (`list[list[ast.AST]]`):
            The functions, by class: the methods of the trainer, those of each helper class beside it.
    """

    def __init__(self, constants: dict[str, str], groups: list[list[ast.AST]]):
        self.events: list[Event] = []
        for functions in groups:
            scope = Scope(constants, functions)
            self.events += [event for function in functions for event in FunctionScan(function, scope).run()]

    def keys(self) -> dict[str, tuple[str | None, bool]]:
        """Key or pattern -> (the options it depends on or `None`, whether the user chooses the name)."""
        removed = {event.key for event in self.events if event.action == "remove"}
        found: dict[str, list[tuple[str, ...]]] = {}
        for event in self._logged(removed):
            if HOLE.sub("", event.key) or event.container == USER_SINK:
                found.setdefault(event.key, []).append(event.conditions)
        # `eval_` is the same quantity on the other split; only a key that exists nowhere else keeps it.
        names = [key for key in found if not (key.startswith("eval_") and key.removeprefix("eval_") in found)]
        return {key: (_condense(found[key]), HOLE.sub("", key) == "") for key in sorted(names)}

    def _logged(self, removed: set[str]) -> Iterator[Event]:
        """Copy loops undone: `stats[f"ppo/{k}"] for k in train_stats` logs each key of train_stats with `ppo/`."""
        copies = [event for event in self.events if event.action == "copy" and event.key not in ("", "eval_")]
        sources = {event.container for event in copies} | ({FLATTENED} if copies else set())
        # `store_metrics(metrics)` files the local dict under its mode.
        sources |= {"metrics"} if any(BY_MODE.match(source) for source in sources) else set()
        for event in self.events:
            if event.action != "add" or event.key in removed:
                continue
            if event.container not in sources:
                yield event
            else:
                for copy in copies:
                    yield Event("add", copy.key + event.key, "", event.conditions + copy.conditions)


def _condense(groups: list[tuple[str, ...]]) -> str | None:
    """`None` when some place logs the key without a condition; else the alternatives, shortest first."""
    texts = {" and ".join(dict.fromkeys(group)) for group in groups}
    always = "" in texts or any(f"not ({text})" in texts or f"not {text}" in texts for text in texts)
    return None if always else " or ".join(sorted(texts, key=lambda text: (len(text), text)))


class FunctionScan:
    """
    A walk through one function.

    Args:
        function (`ast.AST`):
            The function.
        scope (`Scope`):
            What it shares with the other functions of its class.
    """

    def __init__(self, function: ast.AST, scope: Scope):
        self.function = function
        self.scope = scope
        self.texts = Texts(function, scope)
        self.events: list[Event] = []
        self.branches = 0
        self.sinks = _logged_names(function)

    def run(self) -> list[Event]:
        self._body(self.function.body, ())
        return self.events

    def _body(self, statements: Iterable[ast.AST], conditions: tuple[str, ...]) -> None:
        for statement in statements:
            self._statement(statement, conditions)

    def _statement(self, node: ast.AST, conditions: tuple[str, ...]) -> None:
        if isinstance(node, ast.If):
            self._if(node, conditions)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._loop(node.target, node.iter)
            self._expression(node.iter, conditions)
            self._body(node.body + node.orelse, conditions)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._body(node.body, conditions)
        else:
            self._simple(node, conditions)

    def _if(self, node: ast.If, conditions: tuple[str, ...]) -> None:
        tests = tuple(option_texts(node.test, self.scope.switches))
        self._expression(node.test, conditions)
        self.branches += 1
        self._body(node.body, conditions + tests)
        # An `elif` carries its own test; only a plain `else` is told by what it is not.
        plain_else = len(tests) == 1 and not (len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If))
        self._body(node.orelse, conditions + ((f"not ({tests[0]})",) if plain_else else ()))
        self.branches -= 1

    def _loop(self, target: ast.AST, iterable: ast.AST) -> None:
        names = self.texts.bind_loop(target, iterable)
        if names and USER_SINK in {node.attr for node in ast.walk(iterable) if isinstance(node, ast.Attribute)}:
            self.events.append(Event("add", f"{{{names[0]}}}", USER_SINK))

    def _simple(self, node: ast.AST, conditions: tuple[str, ...]) -> None:
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                self._assign(target, node.value, conditions)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                self._store(target, conditions, "remove")
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._expression(child, conditions)
            elif isinstance(child, ast.withitem):
                self._expression(child.context_expr, conditions)
            else:
                self._statement(child, conditions)

    def _assign(self, target: ast.AST, value: ast.AST | None, conditions: tuple[str, ...]) -> None:
        if isinstance(target, ast.Subscript) and not _is_no_number(value):
            self._store(target, conditions, "add")
        elif isinstance(target, ast.Name) and value is not None:
            self.texts.assign(target.id, value, in_branch=self.branches > 0)
        if value is not None and self._is_sink(target) and not BY_MODE.match(last_name(target)):
            self._dicts(value, last_name(target), conditions)

    def _expression(self, node: ast.AST, conditions: tuple[str, ...]) -> None:
        for call in [item for item in ast.walk(node) if isinstance(item, ast.Call)]:
            for keyword in call.keywords:
                if keyword.arg is not None and SINK.match(keyword.arg):  # RolloutSample(metrics={...})
                    self._dicts(keyword.value, keyword.arg, conditions)
            if isinstance(call.func, ast.Attribute):
                self._call(call, call.func.value, call.func.attr, conditions)

    def _call(self, call: ast.Call, owner: ast.AST, method: str, conditions: tuple[str, ...]) -> None:
        if method in ("append", "extend") and isinstance(owner, ast.Subscript):
            self._store(owner, conditions, "add")
        elif (method == "update" and self._is_sink(owner)) or _is_log_call(call):
            for argument in call.args:
                self._dicts(argument, last_name(owner), conditions)

    def _store(self, target: ast.AST, conditions: tuple[str, ...], action: str) -> None:
        subscripts = []
        while isinstance(target, ast.Subscript):
            if not (isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, int)):
                subscripts.append(target.slice)
            target = target.value
        container = last_name(target)
        if self._is_sink(target) and self._ends_in_key(subscripts, bool(BY_MODE.match(container))):
            self._emit(subscripts[0], container, conditions, action)

    def _ends_in_key(self, subscripts: list[ast.AST], by_mode: bool) -> bool:
        if not by_mode or len(subscripts) != 1:
            return len(subscripts) == (2 if by_mode else 1)
        # GRPO until 0.15 has no modes yet: `self._metrics["kl"]`, where later releases have `self._metrics[mode]["kl"]`.
        texts = self.texts.of(subscripts[0]) or ["train"]
        return not isinstance(subscripts[0], ast.Name) and {"train", "eval"}.isdisjoint(texts)

    def _emit(self, node: ast.AST, container: str, conditions: tuple[str, ...], action: str = "add") -> None:
        copied = variables(node) & set(self.texts.copied)
        for key in self.texts.of(node) or []:
            hole = next((name for name in copied if key.endswith(f"{{{name}}}")), None)
            if hole and action == "add":
                self.events.append(Event("copy", key.removesuffix(f"{{{hole}}}"), self.texts.copied[hole], conditions))
            else:
                self.events.append(Event(action, key, container, conditions))

    def _dicts(self, node: ast.AST, container: str, conditions: tuple[str, ...]) -> None:
        """Keys of dict displays in value position."""
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if key is None:
                    self._dicts(value, container, conditions)
                elif not _is_no_number(value):
                    self._emit(key, container, conditions)
        elif isinstance(node, ast.DictComp):
            for generator in node.generators:
                self._loop(generator.target, generator.iter)
            self._emit(node.key, container, conditions)
        elif isinstance(node, ast.Call) and last_name(node.func) == "dict":
            for key in _flatten(node):
                self.events.append(Event("add", key, FLATTENED if "/" in key else container, conditions))
        else:
            for part in _alternatives(node):
                self._dicts(part, container, conditions)

    def _is_sink(self, node: ast.AST) -> bool:
        name = last_name(node)
        if name == USER_SINK or (isinstance(node, ast.Name) and name in self.scope.arguments):
            return False
        return bool(SINK.match(name)) or name in self.sinks


def _alternatives(node: ast.AST) -> list[ast.AST]:
    """Expressions whose value the node can have or hold: `a if x else b`, `[a] * n`, `[a for ...]`."""
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.List):
        return node.elts
    return [node.elt] if isinstance(node, ast.ListComp) else []


def _logged_names(function: ast.AST) -> set[str]:
    """Local names handed to `.log(name)` or merged by `logs.update(name)`: dicts that the function logs."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            merged = node.func.attr == "update" and SINK.match(last_name(node.func.value))
            if node.func.attr == "log" or merged:
                names |= {argument.id for argument in node.args if isinstance(argument, ast.Name)}
    return names


def _is_no_number(value: ast.AST | None) -> bool:
    """A table of texts; or an empty list, which keeps a place free whose numbers come by append."""
    is_table = isinstance(value, ast.Call) and last_name(value.func) == "Table"
    return is_table or (isinstance(value, ast.List) and not value.elts)


def _flatten(node: ast.Call) -> Iterator[str]:
    for keyword in node.keywords:
        if isinstance(keyword.value, ast.Call) and last_name(keyword.value.func) == "dict":
            yield from (f"{keyword.arg}/{key}" for key in _flatten(keyword.value))
        elif keyword.arg is not None:
            yield keyword.arg


def _is_log_call(call: ast.Call) -> bool:
    """`self.log(...)`, `self.accelerator.log(...)`, `self._push_metrics(...)`; not `wandb.log(...)` of a table."""
    return bool(LOG_CALL.match(call.func.attr)) and ast.unparse(call.func.value).startswith(("self", "super("))
