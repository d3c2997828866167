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

"""The names a user may import, and that each of them is there."""

import tomllib
from pathlib import Path

import pytest

import trl_diagnostics
from trl_diagnostics import before_training, callback
from trl_diagnostics.engine import alert, condition, engine, finding, rule, rulebook
from trl_diagnostics.metrics import names


def test_exported_names():
    assert sorted(trl_diagnostics.__all__) == [
        "DiagnosticsCallback",
        "DiagnosticsError",
        "Engine",
        "Finding",
        "MetricMap",
        "Record",
        "Rule",
        "Severity",
        "__version__",
        "collect_rules",
        "load_rules",
        "parse_alert",
        "preflight",
    ]
    assert dir(trl_diagnostics) == sorted(trl_diagnostics.__all__)


def test_every_name_is_the_object_of_its_module():
    assert trl_diagnostics.DiagnosticsCallback is callback.DiagnosticsCallback
    assert trl_diagnostics.DiagnosticsError is condition.DiagnosticsError
    assert trl_diagnostics.Engine is engine.Engine
    assert trl_diagnostics.Finding is finding.Finding
    assert trl_diagnostics.MetricMap is names.MetricMap
    assert trl_diagnostics.Record is finding.Record
    assert trl_diagnostics.Rule is rule.Rule
    assert trl_diagnostics.Severity is finding.Severity
    assert trl_diagnostics.collect_rules is rulebook.collect_rules
    assert trl_diagnostics.load_rules is rule.load_rules
    assert trl_diagnostics.parse_alert is alert.parse_alert
    assert trl_diagnostics.preflight is before_training.preflight


def test_every_public_name_is_documented():
    public = set(trl_diagnostics.__all__) - {"__version__"}
    undocumented = [name for name in sorted(public) if not getattr(trl_diagnostics, name).__doc__]
    assert undocumented == []


def test_version_is_that_of_the_distribution():
    pyproject = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    assert trl_diagnostics.__version__ == pyproject["project"]["version"]


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'trl_diagnostics' has no attribute 'DiagnosticCallback'"):
        trl_diagnostics.DiagnosticCallback  # noqa: B018
