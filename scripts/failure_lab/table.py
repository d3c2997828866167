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

"""All recipes of the lab, faults first; as text for `--list`."""

from failure_lab import (
    healthy,
    hidden,
    logging10,
    numerics,
    optimisation,
    policy,
    preference_data,
    replayed,
    rewards,
    rollouts,
    supervised_data,
    value,
)
from failure_lab.recipe import Recipe


FAMILIES = (
    optimisation,
    numerics,
    preference_data,
    supervised_data,
    rewards,
    rollouts,
    policy,
    value,
    replayed,
    logging10,
    hidden,
    healthy,
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for family in FAMILIES for recipe in family.RECIPES}
FAULTS = sorted({recipe.fault for recipe in RECIPES.values() if recipe.fault})


def as_text(recipes: list[Recipe]) -> str:
    """One line per recipe: name, steps, onset, right answers, cause."""
    lines = []
    for recipe in recipes:
        answer = ", ".join(recipe.expected) or "-"
        source = "replayed" if recipe.replay else f"{recipe.steps} steps"
        lines.append(f"{recipe.name:44} {source:10} onset {recipe.onset:<4} {answer:50} {recipe.cause}")
    kinds = {recipe.fault for recipe in recipes if recipe.fault}
    runs = {bool(recipe.fault): 0 for recipe in recipes}
    for recipe in recipes:
        runs[bool(recipe.fault)] += len(recipe.all_seeds)
    lines.append(f"{len(kinds)} kinds of fault; {runs.get(True, 0)} faulty and {runs.get(False, 0)} healthy runs")
    return "\n".join(lines)
