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

"""Faults of the policy: it collapses, explodes, or leaves its reference."""

import torch

from failure_lab.injections import shake
from failure_lab.recipe import recipes
from failure_lab.rewards import red_and_done


CUT = ("completions_all_clipped", "completions_rarely_end", "completions_empty", "completions_never_end")
FLAT = ("groups_solved", "groups_all_flat", "groups_mostly_flat", "reward_constant", "reward_variance_lost")
BROKEN = (*CUT, *FLAT, "reward_collapse", "entropy_collapse", "entropy_explosion", "grad_norm_explosion", "kl_runaway")


def move_reference(trainer) -> None:
    """The reference is another checkpoint than the one that training starts from."""
    with torch.no_grad():
        shake(0.1)(trainer.ref_model)


RECIPES = [
    *recipes(
        {
            "fault": "entropy_collapse",
            "cause": "the reward pays one word and learning_rate is ten times too high: one answer is left",
            # the one answer that is left may be one without an end
            "expected": ("entropy_collapse", "completions_all_clipped", "completions_rarely_end"),
            "symptoms": BROKEN,
            "overrides": {"reward_funcs": red_and_done, "learning_rate": 3e-3},
            "onset": 45,  # three quarters of the entropy are gone
            "steps": 150,
        },
        {"trainer": "grpo"},
        {
            "trainer": "rloo",
            "overrides": {"reward_funcs": red_and_done, "learning_rate": 3e-3, "beta": 0.0},
        },
        *(
            {
                "trainer": "grpo",
                "variant": loss,
                "overrides": {"reward_funcs": red_and_done, "learning_rate": 3e-3, "loss_type": loss},
            }
            for loss in ("grpo", "dr_grpo", "cispo")
        ),
    ),
    *recipes(
        {
            "fault": "entropy_explosion",
            "cause": "learning_rate 100 times too high: the policy babbles",
            "expected": ("entropy_explosion", "completions_rarely_end", "lr_far_too_high"),
            "symptoms": (*BROKEN, "reward_constant_so_far", "policy_not_updated"),
            "overrides": {"learning_rate": 3e-2},
            "steps": 100,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "kl_explosion",
            "cause": "learning_rate 30 times too high: the policy leaves the reference in a few steps",
            "expected": ("kl_jump_at_start",),
            "symptoms": (*BROKEN, "reward_constant_so_far"),
            "overrides": {"beta": 0.04, "learning_rate": 1e-2},
            "steps": 100,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
        {
            "trainer": "online_dpo",
            "overrides": {"learning_rate": 1e-2},
            "expected": ("sequence_kl_jump_at_start", "sequence_kl_runaway"),
            "symptoms": (*CUT, "scores_always_equal"),
        },
    ),
    *recipes(
        {
            "fault": "policy_drift",
            "cause": "beta is far too small for a learning rate ten times too high: the policy drifts and earns nothing",
            "expected": ("kl_runaway", "kl_jump_at_start"),
            "symptoms": BROKEN,
            "overrides": {"beta": 0.001, "learning_rate": 3e-3},
            "steps": 200,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "reference_wrong",
            "cause": "the reference is another checkpoint than the one that training starts from",
            "expected": ("kl_nonzero_at_start",),
            "symptoms": ("kl_jump_at_start", "kl_runaway", "reward_collapse"),
            "overrides": {"beta": 0.04},
            "prepare": move_reference,
            "steps": 60,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "ppo_update_too_large",
            "trainer": "ppo",
            "expected": ("ppo_update_too_large",),
            "symptoms": (
                "lr_far_too_high",
                "ppo_ratio_off",
                "sequence_kl_jump_at_start",
                "sequence_kl_runaway",
                "sequence_kl_negative",
                "ppo_no_eos",
                "value_loss_explosion",
                "ppo_policy_entropy_collapse",
            ),
            "steps": 60,
        },
        {"cause": "learning_rate ten times too high", "overrides": {"learning_rate": 3e-3}},
        {
            "variant": "lr_100x",
            "cause": "learning_rate 100 times too high",
            "overrides": {"learning_rate": 3e-2},
            "expected": ("ppo_update_too_large", "lr_far_too_high"),
        },
        {
            "variant": "kl_coef_zero",
            "cause": "kl_coef 0 and a high learning rate",
            "overrides": {"learning_rate": 3e-3, "kl_coef": 0.0},
        },
        {
            "variant": "many_epochs",
            "cause": "ratio spikes: 32 inner epochs over each batch",
            "overrides": {"num_ppo_epochs": 32, "learning_rate": 1e-3},
            "steps": 30,
        },
    ),
]
