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

"""An argument of the callback goes in, a `DiagnosticsError` that says what is wrong with it comes out."""

from pathlib import Path
from typing import Any

from .engine.finding import DiagnosticsError


def check_flag(option: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise DiagnosticsError(f"{option}: expected True or False, found {value!r}")


def check_path(option: str, value: Any) -> None:
    """A path, or None."""
    if value is not None and (not isinstance(value, str | Path) or value == ""):
        raise DiagnosticsError(f"{option}: expected a path, found {value!r}")


def check_seconds(option: str, value: Any) -> None:
    """A positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise DiagnosticsError(f"{option}: expected a positive number of seconds, found {value!r}")


def check_choice(option: str, value: Any, choices: tuple[str, ...]) -> None:
    """One of some words."""
    if value not in choices:
        raise DiagnosticsError(f"{option}: {value!r} is not one of {', '.join(choices)}")


def check_function(option: str, value: Any, of: str) -> None:
    """Something that can be called, or None."""
    if value is not None and not callable(value):
        raise DiagnosticsError(f"{option}: expected a function of {of}, found {value!r}")
