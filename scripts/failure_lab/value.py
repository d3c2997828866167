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

"""Faults of PPO's value head and of the rewards it has to predict."""

from collections.abc import Callable
from typing import Any

import torch

from failure_lab.injections import AtStep
from failure_lab.recipe import recipes


AFTER = (
    "ppo_update_too_large",
    "ppo_ratio_off",
    "sequence_kl_runaway",
    "sequence_kl_jump_at_start",
    "sequence_kl_negative",
    "ppo_no_eos",
)


def scale_at(step: int, part: Callable[[Any], torch.nn.Module], factor: float) -> Callable[[Any], None]:
    """Multiply the head of a part of the trainer after a step."""

    def prepare(trainer: Any) -> None:
        trainer.add_callback(AtStep(step, lambda model: part(trainer).score.weight.mul_(factor)))

    return prepare


def scale_reward_head(trainer: Any) -> None:
    """Rewards of another scale from the start."""
    with torch.no_grad():
        trainer.reward_model.score.weight.mul_(1000.0)


RECIPES = recipes(
    {"trainer": "ppo", "expected": ("value_loss_explosion",), "symptoms": AFTER, "onset": 41, "steps": 80},
    {
        "fault": "value_head_blown_up",
        "cause": "the value head grows a hundredfold after step 40",
        "prepare": scale_at(40, lambda trainer: trainer.value_model, 100.0),
    },
    {
        "fault": "reward_rescaled",
        "cause": "from step 41 on the reward model gives a hundred times as much",
        "prepare": scale_at(40, lambda trainer: trainer.reward_model, 100.0),
    },
    {
        "fault": "reward_scale_too_large",
        "cause": "the reward model gives a thousand times too much and learning_rate is ten times too high",
        "expected": ("value_loss_explosion", "ppo_update_too_large"),
        "symptoms": ("nonfinite_weights", "ppo_policy_entropy_collapse", "sequence_kl_runaway", "ppo_no_eos"),
        "overrides": {"learning_rate": 3e-3},
        "prepare": scale_reward_head,
        "onset": 1,
        "steps": 60,
    },
)
