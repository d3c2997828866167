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

"""Any Python value goes in, a JSON value comes out that is the same for the same value in every process."""

import dataclasses
import functools
import hashlib
import json
import re
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import numpy as np

from ..engine.finding import json_number


DEEPEST = 20  # containers in containers; one that holds itself ends here
LONGEST = 2_000  # characters of what only Python can show
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def json_value(value: Any, depth: int = 0) -> Any:
    """
    Turn any value into strict JSON.

    Enums become their value, dataclasses dictionaries, sets sorted lists, functions and classes their qualified name,
    numbers of NumPy plain ones, NaN the text `"NaN"`. All else (paths, dtypes, devices ...) becomes text without
    addresses in memory.

    Args:
        value (`Any`):
            Anything.
        depth (`int`, *optional*, defaults to `0`):
            In how many containers it stands. Deeper than 20 they become text.

    Returns:
        `Any`: what `json.dumps(..., allow_nan=False)` takes.
    """
    if isinstance(value, Enum | np.generic):
        return json_value(value.value if isinstance(value, Enum) else value.item(), depth)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else json_number(float(value))
    if isinstance(value, dict | list | tuple | set | frozenset) or dataclasses.is_dataclass(value):
        return _contents(value, depth + 1) if depth < DEEPEST else f"<{_name(type(value))}>"
    if isinstance(value, functools.partial):
        return _contents({"function": value.func, "args": value.args, "keywords": value.keywords}, depth + 1)
    return _text(value)


def _contents(value: Any, depth: int) -> Any:
    if isinstance(value, type):
        return _text(value)
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(json_value(key)): json_value(one, depth) for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [json_value(one, depth) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((json_value(one, depth) for one in value), key=json.dumps)
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    # The quantization configs of transformers keep what they were given beside their fields.
    return _contents(fields | getattr(value, "__dict__", {}), depth)  # with slots there is nothing else


def _text(value: Any) -> str:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, type | FunctionType | BuiltinFunctionType | MethodType):
        return _name(value)
    try:
        text = repr(value)
    except Exception:  # of a class of the user
        return f"<{_name(type(value))}>"
    return f"<{_name(type(value))}>" if ADDRESS.search(text) else text[:LONGEST]


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


def digest(value: Any) -> str:
    """A JSON value as 16 hexadecimal digits that do not depend on the order of keys."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
