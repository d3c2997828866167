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

"""The schema for editors says what the loader says."""

import json

import jsonschema
import pytest
import yaml

from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import STATUSES
from trl_diagnostics.engine.rule_tests import TEST_FIELDS
from trl_diagnostics.engine.rulebook import BUILTIN
from trl_diagnostics.engine.yaml_file import FIELDS, REQUIRED


SCHEMA = json.loads((BUILTIN / "rule.schema.json").read_text(encoding="utf-8"))
FILES = sorted(BUILTIN.rglob("*.yaml"))


def test_fields_are_those_of_the_loader():
    assert list(SCHEMA["properties"]) == list(FIELDS)
    assert SCHEMA["required"] == list(REQUIRED)
    assert SCHEMA["properties"]["severity"]["enum"] == [str(severity) for severity in reversed(Severity)]
    assert SCHEMA["properties"]["status"]["enum"] == list(STATUSES)
    assert list(SCHEMA["properties"]["tests"]["items"]["properties"]) == list(TEST_FIELDS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_built_in_rules_fit(file):
    jsonschema.validate(yaml.safe_load(file.read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize("change", [{"severity": "hihg"}, {"trainer": ["dpo"]}, {"min_steps": 0}, {"tests": []}])
def test_a_wrong_rule_does_not(change):
    rule = yaml.safe_load(FILES[0].read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**rule, **change}, SCHEMA)
