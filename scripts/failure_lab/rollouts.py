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

"""Faults of what the policy writes: cut, empty, all alike, or too old."""

from tiny_data import WORDS

from failure_lab.recipe import recipes
from failure_lab.rewards import red


EOS = WORDS.index("<eos>")
FLAT = (
    "reward_constant",
    "reward_constant_so_far",
    "groups_all_flat",
    "groups_mostly_flat",
    "groups_solved",
    "policy_not_updated",
)
SHORT = {"max_completion_length": 4}
NO_EOS = {"suppress_tokens": [EOS]}
ONLY_EOS = {"suppress_tokens": [i for i in range(len(WORDS)) if i != EOS]}


def ends(completions, **kwargs) -> list[float]:
    """Pays for a full stop."""
    return [float(completion.endswith(".")) for completion in completions]


RECIPES = [
    *recipes(
        {
            "fault": "completions_clipped",
            "cause": "max_completion_length is shorter than any answer",
            "overrides": SHORT,
            "expected": ("completions_all_clipped", "completions_rarely_end"),
            "symptoms": FLAT,
            "steps": 60,
        },
        *({"trainer": kind} for kind in ("grpo", "rloo")),
        *(
            {"trainer": "grpo", "variant": loss, "overrides": {**SHORT, "loss_type": loss}}
            for loss in ("grpo", "dr_grpo", "cispo")
        ),
        {
            "trainer": "online_dpo",
            "overrides": {"max_new_tokens": 4},
            "expected": ("completions_never_end",),
            "symptoms": ("scores_always_equal",),
        },
        {
            "trainer": "ppo",
            "overrides": {"response_length": 4},
            "expected": ("ppo_no_eos",),
            "symptoms": ("ppo_update_too_large",),
        },
    ),
    *recipes(
        {
            "fault": "completions_clipped_masked",
            "cause": "every answer is cut, and mask_truncated_completions takes all of them out of the loss",
            "overrides": {"mask_truncated_completions": True, "generation_kwargs": NO_EOS, "reward_funcs": red},
            "expected": ("completions_all_clipped_masked",),
            "symptoms": (*FLAT, "completions_all_clipped", "entropy_collapse"),
            "steps": 60,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "completions_endless",
            "cause": "EOS is never sampled (a wrong eos_token_id), but the reward does not need an end",
            "overrides": {"generation_kwargs": NO_EOS, "reward_funcs": red},
            "expected": ("completions_rarely_end",),
            "symptoms": ("completions_all_clipped", "entropy_collapse", *FLAT),
            "steps": 80,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "completions_empty",
            "cause": "the prompt already ends the turn, so the policy answers with EOS at once",
            "overrides": {"generation_kwargs": ONLY_EOS},
            "expected": ("completions_empty",),
            "symptoms": (*FLAT, "entropy_collapse"),
            "steps": 60,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "two_generations",
            "cause": "num_generations 2 and a reward of 0 or 1: most groups are flat",
            "overrides": {"num_generations": 2, "reward_funcs": ends, "max_completion_length": 12},
            "expected": ("groups_mostly_flat", "groups_all_flat", "num_generations_too_small"),
            "symptoms": FLAT,
            "steps": 100,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "sampling_greedy",
            "cause": "a temperature near 0: all answers of a group are the same",
            "overrides": {"temperature": 0.01},
            "expected": (
                "sampling_nearly_greedy",
                "groups_all_flat",
                "reward_constant_so_far",
                "reward_variance_lost",
            ),
            "symptoms": (*FLAT, "entropy_collapse"),
            "steps": 100,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "sampling_too_hot",
            "cause": "a temperature of 5: completions are nearly random tokens",
            "overrides": {"temperature": 5.0},
            "expected": ("sampling_too_hot",),
            "symptoms": (*FLAT, "completions_rarely_end", "completions_all_clipped"),
            "steps": 100,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "rollouts_stale",
            "cause": "one rollout feeds many large updates: num_iterations 8, ten times the learning rate",
            "overrides": {"num_iterations": 8, "learning_rate": 3e-3},
            "expected": ("grpo_clip_high",),
            "symptoms": (
                *FLAT,
                "entropy_collapse",
                "entropy_explosion",
                "completions_rarely_end",
                "completions_all_clipped",
                "grad_norm_explosion",
            ),
            "steps": 160,
        },
        {"trainer": "grpo"},
        {
            "trainer": "grpo",
            "variant": "cispo",
            "overrides": {"num_iterations": 8, "learning_rate": 3e-3, "loss_type": "cispo"},
            "expected": ("cispo_clip_high",),
        },
    ),
]
