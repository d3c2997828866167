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

"""A public name of `trl_diagnostics` goes in, the object comes out, and only then is the module behind it loaded."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING


try:
    __version__ = version("trl-diagnostics")
except PackageNotFoundError:
    __version__ = "unknown"

_MODULE_OF = {
    "DiagnosticsCallback": ".callback",
    "DiagnosticsError": ".engine.finding",
    "Engine": ".engine.engine",
    "Finding": ".engine.finding",
    "MetricMap": ".metrics.names",
    "Record": ".engine.finding",
    "Rule": ".engine.rule",
    "Severity": ".engine.finding",
    "collect_rules": ".engine.rulebook",
    "load_rules": ".engine.rule",
    "parse_alert": ".engine.alert",
    "preflight": ".before_training",
}

__all__ = ["__version__", *_MODULE_OF]

if TYPE_CHECKING:
    from .before_training import preflight
    from .callback import DiagnosticsCallback
    from .engine.alert import parse_alert
    from .engine.engine import Engine
    from .engine.finding import DiagnosticsError, Finding, Record, Severity
    from .engine.rule import Rule, load_rules
    from .engine.rulebook import collect_rules
    from .metrics.names import MetricMap


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = vars(import_module(_MODULE_OF[name], __name__))[name]
    globals()[name] = value  # the next access does not come here again
    return value


def __dir__():
    return sorted(__all__)
