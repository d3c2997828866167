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

"""A part of the diagnostics goes in; what it gives comes out, or word of its error, which reaches no training."""

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from .sinks import console
from .sinks.exits import shortened
from .sinks.redact import redact_text


class Guard:
    """
    The one place where errors of our own end: each is logged once, and training goes on. A part that fails is switched
    off. One that cannot read or write is tried again each time: a full disk or a network may come back.
    """

    def __init__(self):
        self.broken: dict[str, str] = {}  # part of the diagnostics -> its last error
        self.retried: Counter[str] = Counter()  # how many times the parts failed that are tried again

    def __call__(self, part: str, function: Callable, *args) -> Any:
        """Call a part with its arguments; `None` where it fails or is switched off."""
        if part in self.broken and part not in self.retried:
            return None
        try:
            return function(*args)
        except OSError as error:
            self._note(part, error)
        except Exception as error:
            self.retried.pop(part, None)
            self.broken[part] = _words(error)
            trace = shortened(traceback.format_exc()).rstrip()  # the logger would print it with its secrets
            said = "TRL diagnostics: %s switched off after an error; training goes on\n%s"
            console.logger.error(said, part, trace)
        return None

    def _note(self, part: str, error: OSError) -> None:
        self.retried[part] += 1
        times = self.retried[part]
        self.broken[part] = f"{times} times {_words(error)}" if times > 1 else _words(error)
        if times == 1:
            said = "TRL diagnostics: %s failed (%s) and is tried again each time; training goes on"
            console.logger.error(said, part, self.broken[part])


def _words(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # what raises is the user's own class
        text = "it cannot be printed"
    return redact_text(f"{type(error).__name__}: {text}")
