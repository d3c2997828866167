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

"""Paths of rule files go in, the rules that can be read come out, and everything that is wrong in the files."""

from .engine.rule import ANY_TRAINER, Rule, read_rules, unknown_causes
from .engine.rule_tests import at_test, check_entry, check_tests
from .engine.rulebook import BUILTIN, located
from .engine.yaml_file import suggest
from .metrics.checks import check_metric, check_rule
from .metrics.names import MetricMap, known_trainers


def check(paths: list[str]) -> tuple[list[Rule], list[str]]:
    """
    Everything that is wrong in rule files: how they are written, the names in them, their tests.

    Args:
        paths (`list[str]`):
            Files and folders. In the folder of the built-in rules, these must be fit to be built in, too.

    Returns:
        `tuple[list[Rule], list[str]]`: the rules that could be read, and the problems.
    """
    rules, problems = read_rules(paths, check_metric)
    others, unreadable = read_rules(BUILTIN)
    if not problems and not unreadable:  # what cannot be read may be what `unless` names
        problems = unknown_causes(rules, others + rules)
    for rule in rules:
        problems += located(rule, check_rule(rule)) + _unknown_trainers(rule) + check_tests(rule, MetricMap)
        if rule.document.get("tests") == []:
            problems.append(rule.document.at("tests", "is empty"))
        if rule.document.path.resolve().is_relative_to(BUILTIN.resolve()):
            problems += check_entry(rule, MetricMap)
    return rules, list(dict.fromkeys(problems))


def _unknown_trainers(rule: Rule) -> list[str]:
    """Tests for a trainer that neither TRL nor the rule has."""
    known = [*known_trainers(), *ANY_TRAINER, *(trainer.replace("_", "") for trainer in rule.trainers)]
    named = [(i, test["trainer"]) for i, test in enumerate(rule.tests) if isinstance(test, dict) and "trainer" in test]
    return [
        at_test(rule, i, f"trainer: TRL has no trainer '{trainer}'{suggest(trainer, known)}")
        for i, trainer in named
        if isinstance(trainer, str) and trainer.replace("_", "") not in known
    ]
