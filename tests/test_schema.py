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

import copy
import json

import jsonschema
import pytest
import yaml

from trl_diagnostics.engine.finding import Severity
from trl_diagnostics.engine.rule import STATUSES
from trl_diagnostics.engine.rule_tests import TEST_FIELDS
from trl_diagnostics.engine.rulebook import BUILTIN
from trl_diagnostics.engine.yaml_file import FIELDS, REQUIRED
from trl_diagnostics.rule_files import check


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


RULE = {
    "name": "boom",
    "trainers": ["grpo"],
    "metric": "kl",
    "condition": "> 5 for 3 steps",
    "severity": "high",
    "message": "KL at {value:.1f}.",
    "tests": [{"name": "jumps", "series": "0.1~0.05x40 9~0.5x10", "fires": 43}],
}
QUIET = {"series": "1", "fires": "never"}
RIGHT = [
    {},
    {"trainers": "grpo"},
    {"metric": "`my own`", "condition": "> 5 for 3 steps"},
    {"unless": [], "reference": [], "renamed_from": [], "false_positives": "New data."},
    {"when": {"beta": ["> 0", 0.1], "use_vllm": True}},
    {"tests": [QUIET | {"name": 3, "config": {"beta": 1}, "trainer": "grpo"}, {"series": None, "fires": []}]},
    {"tests": [{"series": {"kl": [1, 2]}, "fires": "never"}]},
]
WRONG = [
    {"severity": "hihg"},
    {"severity": None},
    {"name": "Boom"},
    {"description": ""},
    {"message": " "},
    {"trainers": []},
    {"trainers": ["GRPO"]},
    {"metric": "k l"},
    {"condition": "> 5 and" * 100},
    *({"window": value} for value in (0, 20_000, True, "3")),
    *({"min_steps": value} for value in (0, 20_000, "3")),
    {"enabled": 1},
    {"status": "new"},
    *({"when": value} for value in ([], None, {"beta": []}, {"beta": {"a": 1}})),
    {"unless": ""},
    {"renamed_from": [1]},
    {"fix": None},
    {"trainer": "grpo"},
    *({"tests": value} for value in ([], None, ["a"], [{"name": "a"}], [QUIET | {"x": 1}])),
    *({"tests": [QUIET | {"fires": value}]} for value in (0, [1, 0], True, "sometimes")),
    *({"tests": [QUIET | {"series": value}]} for value in ({}, True)),
    {"tests": [QUIET | {"config": [1]}]},
]


def problems_of(rule, folder):
    (folder / "boom.yaml").write_text(yaml.safe_dump(rule, sort_keys=False))
    return check([str(folder)])[1]


@pytest.mark.parametrize("change", RIGHT, ids=str)
def test_schema_and_check_agree_on_what_is_right(change, tmp_path):
    rule = copy.deepcopy(RULE | change)
    jsonschema.validate(rule, SCHEMA)
    assert [problem for problem in problems_of(rule, tmp_path) if "fires" not in problem] == []


@pytest.mark.parametrize("change", WRONG, ids=lambda change: str(change)[:40])
def test_schema_and_check_agree_on_what_is_wrong(change, tmp_path):
    rule = copy.deepcopy(RULE | change)
    assert problems_of(rule, tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rule, SCHEMA)
