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

"""The reward functions of a run go in, what tells them from others comes out, without calling them."""

import ast
import builtins
import dataclasses
import functools
import inspect
import json
import re
from enum import Enum
from itertools import islice
from pathlib import PurePath
from types import CodeType
from typing import Any

import torch

from .identity import fingerprint
from .json_value import digest, json_value
from .redact import is_secret


FILLS = set("add append appendleft clear discard extend insert pop popitem remove setdefault sort update".split())
CONVERSIONS = set("bool dict float frozenset int list max min set sorted str tuple".split())
ENTRIES = 1000  # of what a reward function was given
PLACE_OR_TIME = re.compile(
    r"(?i)(?:^|_)(?:(?:cache|date|device|dir|directory|file|filename|folder|gpu|host|id|log|logger|output|path|pid|port|rank"
    r"|start|started|time|timestamp|url|uuid|verbose|debug|workers?)s?|(?:run|experiment)_?name|world_size)$"
)
# a path, the name of a file, an address, a date, a time of day, a number that some clock or generator gave
FLEETING = re.compile(
    r"^[~/.]|^[^\s/]*/[^\s/]*/|\\|://|^\S+\.[a-z][a-z0-9]{0,4}$|\d{6}|\d{4}-\d\d-|\d\d:\d\d"
    r"|(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{8}"
)


def reward_identity(functions: list | None) -> dict[str, Any] | None:
    """
    What tells the reward functions of a run from others.

    Args:
        functions (`list`, *optional*):
            Functions, callable objects and reward models.

    Returns:
        `dict` or `None`: by place, the name of each, a hash of its source (of a model: of its weights), where there is
        one, and a hash of what it was given: arguments that `functools.partial` binds, attributes of an object, variables
        around a function, constants of its module. What the code itself changes or makes, such as a counter, a cache or a
        time, is left out, and so are places and secrets: what is told must be the same in another process.
    """
    if functions is None:
        return None
    return {str(i): _reward_identity(function) for i, function in enumerate(functions)}


def _reward_identity(function: Any) -> str:
    if isinstance(function, torch.nn.Module):
        return f"{type(function).__name__} {digest(fingerprint(function))}"
    given = _given(function)
    settings = f" {digest(given)}" if any(given) else ""
    while isinstance(function, functools.partial):
        function = function.func
    code = function if inspect.isroutine(function) else type(function)
    try:
        return f"{code.__name__} {digest(inspect.getsource(code))}{settings}"
    except (OSError, TypeError):  # written at a prompt, or in C
        return f"{code.__name__}{settings}"


def _given(function: Any) -> list:
    """What a function was given before it is called, as JSON; hashed, for it may hold a secret."""
    if isinstance(function, functools.partial):
        keywords = _settings(function.keywords, [function.func], ast.Name)
        return [_setting(function.args), keywords, *_given(function.func)]
    if inspect.ismethod(function):
        return _given(function.__self__)
    if inspect.isfunction(function):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        closure = _settings({name: cell.cell_contents for name, cell in cells}, [function], ast.Name)
        return [closure, _setting(function.__defaults__), _setting(function.__kwdefaults__), _constants([function])]
    if inspect.isroutine(function) or isinstance(function, type):
        return []
    methods = {name: method for kind in reversed(type(function).__mro__) for name, method in vars(kind).items()}
    code = [method for method in methods.values() if inspect.isfunction(method)]
    attributes = getattr(function, "__dict__", {})  # with slots there are none
    return [_settings(attributes, code, ast.Attribute), _constants(code)]


def _settings(values: dict[str, Any], code: list, kind: type[ast.Name] | type[ast.Attribute]) -> dict[str, Any]:
    """Without what the code changes, and without containers that it hands on to where they may be filled."""
    found = [_changed(one, kind) for one in code]
    changed = set().union(*(bound for bound, _ in found))
    lent = set().union(*(lent for _, lent in found))
    changed |= {name for name in lent if isinstance(values.get(name), dict | list | set)}
    return {name: _setting(one) for name, one in values.items() if name not in changed and _tells(name, one)}


def _constants(code: list) -> dict[str, Any]:
    """What the code reads of its modules: another `WEIGHT` pays something else."""
    known = {name: one.__globals__[name] for one in code for name in _names(one.__code__) & one.__globals__.keys()}
    plain = {name: one for name, one in known.items() if name.isupper() and isinstance(one, bool | int | float | str)}
    return _settings(plain, code, ast.Name)


def _names(code: CodeType) -> set[str]:
    inner = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*inner)


def _tells(name: str, value: Any) -> bool:
    """Whether a reward may depend on a setting: another password, place or time pays the same."""
    return not is_secret(name, value) and not PLACE_OR_TIME.search(name)


def _setting(value: Any, most: int = ENTRIES) -> Any:
    """Numbers, texts and the first entries of what holds them as JSON, of anything else the class."""
    from transformers import TrainingArguments

    if dataclasses.is_dataclass(value) and not isinstance(value, type | TrainingArguments):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    few: Any = []
    if isinstance(value, dict):
        named = {str(_setting(key)): one for key, one in islice(value.items(), most)}
        few = {name: _setting(one, most // 5) for name, one in named.items() if _tells(name, one)}
    elif isinstance(value, list | tuple):
        few = [_setting(one, most // 5) for one in value[:most]]
    elif not isinstance(value, set | frozenset):
        return _plain(value)
    elif len(value) <= most:
        few = sorted((_setting(one, most // 5) for one in value), key=json.dumps)
    return few if len(value) <= most else [len(value), few]


def _plain(value: Any) -> Any:
    is_moment = isinstance(value, int | float) and abs(value) >= 1e9  # a time, an address or a drawn seed
    if is_moment or isinstance(value, PurePath) or isinstance(value, str) and FLEETING.search(value):
        return type(value).__name__
    is_plain = value is None or isinstance(value, bool | int | float | str | Enum) or inspect.isfunction(value)
    return json_value(value) if is_plain else type(value).__name__


def _changed(function: Any, kind: type[ast.Name] | type[ast.Attribute]) -> tuple[set[str], set[str]]:
    """The variables, or attributes, that code binds anew or fills, and those that it hands on."""
    try:
        source = inspect.getsource(function)
        tree = ast.parse(f"if True:\n{source}" if source[0].isspace() else source)
    except (OSError, TypeError, SyntaxError):  # made at run time, an object, or a lambda amid a line
        return set(), set()
    arguments = set(inspect.signature(function).parameters)
    changed, lent, given = set(), set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILLS:
            changed |= _targets([node.func.value], kind)
        elif isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in vars(builtins)):
            lent |= _targets([*node.args, *(keyword.value for keyword in node.keywords)], kind)
        elif isinstance(node, ast.Assign) and function.__name__ == "__init__" and _is_given(node.value, arguments):
            given |= _targets(node.targets, kind)
        elif isinstance(node, ast.Assign):
            lent |= _targets([node.value], kind)
        elif isinstance(node, ast.Name) and node.id in arguments:  # bound anew, it is another value under that name
            continue
        elif isinstance(vars(node).get("ctx"), ast.Store | ast.Del):
            changed |= _targets([node], kind)
    return changed - given, lent


def _targets(nodes: list[ast.expr], kind: type[ast.Name] | type[ast.Attribute]) -> set[str]:
    names = set()
    for node in nodes:
        while isinstance(node, ast.Subscript):
            node = node.value
        if isinstance(node, kind):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


def _is_given(value: ast.expr, arguments: set[str]) -> bool:
    """Whether a value depends on arguments alone: `self.started = time.time()` differs in every process."""
    nodes = list(ast.walk(value))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = [node.func for node in nodes if isinstance(node, ast.Call)]
    is_converted = all(isinstance(one, ast.Name) and one.id in CONVERSIONS for one in called)
    return is_converted and bool(names & arguments) and names <= (arguments - {"self"}) | CONVERSIONS
