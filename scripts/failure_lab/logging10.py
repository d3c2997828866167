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

"""Faults again under TRL's default of one log in ten steps, where every log costs minutes of a real run."""

from collections.abc import Iterable
from dataclasses import replace

from failure_lab import numerics, optimisation, policy, preference_data, rewards, rollouts, supervised_data
from failure_lab.recipe import Recipe


# Each kind of fault that does not need a log of its own at some step, in the trainer in which it is most often met.
AGAIN = """
lr_zero__dpo lr_zero__grpo lr_too_high__sft lr_too_high__dpo lr_too_high__orpo lr_too_high__gkd adapter_frozen__sft
gradients_cut__grpo gradients_cut__reward optimizer_empty__dpo nan_weights__grpo__sampling_goes_on
nan_weights__rloo__sampling_goes_on nan_gradients__sft nan_batch__dpo pairs_identical__dpo pairs_identical__reward
labels_swapped_later__dpo labels_random__dpo labels_random__reward beta_zero__dpo beta_too_low__dpo answers_masked__dpo
one_class__kto__desirable teacher_is_student__distillation reward_constant__grpo reward_constant__rloo
reward_constant__online_dpo reward_none__grpo rewards_cancel__grpo reward_function_dead__grpo reward_variance_lost__grpo
completions_clipped__grpo completions_clipped__rloo completions_empty__grpo entropy_collapse__grpo
entropy_explosion__grpo kl_explosion__grpo kl_explosion__rloo kl_explosion__online_dpo policy_drift__grpo
""".split()
STEPS = 300


def _again(recipe: Recipe) -> Recipe:
    variant = "__".join(filter(None, (recipe.variant, "logging10")))
    first_log = -(-recipe.onset // 10) * 10
    overrides = {**recipe.overrides, "logging_steps": 10}
    return replace(recipe, variant=variant, onset=first_log, steps=max(STEPS, 2 * recipe.onset), overrides=overrides)


def _named(recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    return {recipe.name: recipe for recipe in recipes}


FAMILIES = (optimisation, numerics, preference_data, supervised_data, rewards, rollouts, policy)
ONCE = _named(recipe for family in FAMILIES for recipe in family.RECIPES)
RECIPES = [_again(ONCE[name]) for name in AGAIN]
