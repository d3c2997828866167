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

"""Runs in which nothing is wrong: every trainer and variant, common recipes, and health that looks odd."""

import tiny
from tiny_data import chat_dataset, colour_variety, preference_dataset, text_dataset, unpaired_dataset

from failure_lab.injections import AtStep, shake
from failure_lab.optimisation import lora
from failure_lab.recipe import Recipe, recipes


DEFAULT_LR = {
    "sft": 2e-5,
    "dpo": 1e-6,
    "kto": 1e-6,
    "reward": 1e-4,
    "orpo": 1e-6,
    "cpo": 1e-6,
    "distillation": 1e-6,
    "gkd": 2e-5,
    "grpo": 1e-6,
    "rloo": 1e-6,
    "online_dpo": 5e-7,
    "ppo": 3e-6,
}
HALF = {"seeds": (0, 2, 4, 6, 9, 11, 13, 15)}  # half of them held out: users meet logging_steps 10 first
LEARNS = "learns for real"
SLOW = "TRL's default learning rate: barely moves on so small a model"


def stops(completions, **kwargs) -> list[float]:
    """A second reward, for format."""
    return [float(completion.endswith(".")) for completion in completions]


def nearly_always(completions, **kwargs) -> list[float]:
    """A task that is solved within a hundred steps: name any colour."""
    return [float(reward > 0) for reward in colour_variety(completions)]


def adapter(seed: int) -> dict:
    """A fresh adapter on the model that has learned the language halfway."""
    return {"model": tiny.saved_model(), "peft_config": lora()}


def rarely(completions, **kwargs) -> list[float]:
    """A task that pays seldom at first: name three colours."""
    return [float(reward >= 0.6) for reward in colour_variety(completions)]


def _every_trainer() -> list[Recipe]:
    """Each trainer at a rate at which it learns, and at TRL's own."""
    return [
        Recipe(trainer=kind, variant=variant, cause=cause, overrides=overrides, steps=200)
        for kind, rate in DEFAULT_LR.items()
        for variant, cause, overrides in (("", LEARNS, {}), ("default_lr", SLOW, {"learning_rate": rate}))
    ]


RECIPES = [
    *_every_trainer(),
    *recipes(
        {"trainer": "sft", "cause": LEARNS, "steps": 300},
        {
            "variant": "lora",
            "cause": "LoRA at learning_rate 1e-4",
            "build": adapter,
            "overrides": {"learning_rate": 1e-4},
        },
        {
            "variant": "three_epochs",
            "cause": "three epochs over the same rows",
            "build": lambda seed: {"train_dataset": text_dataset(800, seed)},
        },
        {
            **HALF,
            "variant": "logging10",
            "cause": "TRL's logging_steps 10, with gradient accumulation",
            "overrides": {"logging_steps": 10, "gradient_accumulation_steps": 2},
            "steps": 2000,
        },
        {
            "variant": "cosine",
            "cause": "cosine schedule after a warm-up",
            "overrides": {"lr_scheduler_type": "cosine", "warmup_steps": 30},
        },
        {
            "variant": "chat",
            "cause": "conversations, loss on the assistant's tokens only",
            "build": lambda seed: {"train_dataset": chat_dataset(seed=seed)},
            "overrides": {"assistant_only_loss": True},
            "steps": 200,
        },
        {
            "variant": "spike",
            "cause": "one loss spike that recovers within a few steps",
            "callbacks": (lambda: AtStep(150, shake(0.04)),),
        },
        {
            "variant": "eval",
            "cause": "evaluation every 20 steps",
            "build": lambda seed: {"eval_dataset": text_dataset(32, seed + 100)},
            "overrides": {"eval_strategy": "steps", "eval_steps": 20},
            "steps": 200,
        },
        {
            "variant": "batch2",
            "cause": "tiny batches: everything is noisy",
            "overrides": {"per_device_train_batch_size": 2},
        },
    ),
    *recipes(
        {"trainer": "dpo", "cause": LEARNS},
        *({"variant": loss, "overrides": {"loss_type": [loss]}} for loss in ("ipo", "hinge", "apo_zero")),
        {"variant": "robust", "overrides": {"loss_type": ["robust"], "label_smoothing": 0.1}},
    ),
    *recipes(
        {"trainer": "dpo", "cause": LEARNS},
        {"variant": "lora", "cause": "LoRA", "build": adapter, "overrides": {"learning_rate": 1e-3}},
        {"variant": "slow", "cause": "learns slowly", "overrides": {"learning_rate": 1e-5}, "steps": 300},
        {
            "variant": "chosen_falls",
            "cause": "clean labels and a high rate: the log-probabilities of chosen answers fall while margins grow",
            "build": lambda seed: {"train_dataset": preference_dataset(seed=seed, noise=0.0)},
            "overrides": {"learning_rate": 1e-3},
        },
        {
            **HALF,
            "variant": "logging10",
            "cause": "TRL's logging_steps 10",
            "overrides": {"logging_steps": 10},
            "steps": 2000,
        },
        {
            "variant": "batch2",
            "cause": "tiny batches: everything is noisy",
            "overrides": {"per_device_train_batch_size": 2},
            "steps": 300,
        },
        {
            "variant": "eval",
            "cause": "evaluation every 20 steps",
            "build": lambda seed: {"eval_dataset": preference_dataset(32, seed + 100)},
            "overrides": {"eval_strategy": "steps", "eval_steps": 20},
        },
    ),
    *recipes(
        {"trainer": "kto", "cause": LEARNS},
        {
            "variant": "imbalanced",
            "cause": "one desirable answer in five",
            "build": lambda seed: {"train_dataset": unpaired_dataset(seed=seed, desirable=0.2)},
        },
        {"variant": "lora", "cause": "LoRA", "build": adapter, "overrides": {"learning_rate": 1e-3}},
        {
            **HALF,
            "variant": "logging10",
            "cause": "TRL's logging_steps 10",
            "overrides": {"logging_steps": 10},
            "steps": 2000,
        },
    ),
    *recipes(
        {"trainer": "reward", "cause": LEARNS},
        {"variant": "centred", "overrides": {"center_rewards_coefficient": 0.01}},
        {
            **HALF,
            "variant": "logging10",
            "cause": "TRL's logging_steps 10",
            "overrides": {"logging_steps": 10},
            "steps": 2000,
        },
    ),
    *recipes(
        {"trainer": "cpo", "cause": LEARNS},
        {"variant": "simpo", "overrides": {"loss_type": "simpo", "cpo_alpha": 0.0}},
        {
            "variant": "simpo_default_lr",
            "cause": SLOW,
            "overrides": {"loss_type": "simpo", "cpo_alpha": 0.0, "learning_rate": 1e-6},
        },
    ),
    *recipes(
        {"trainer": "grpo", "cause": LEARNS},
        *({"variant": loss, "overrides": {"loss_type": loss}} for loss in ("grpo", "dr_grpo", "cispo")),
        {"variant": "beta", "cause": "KL grows while the reward grows", "overrides": {"beta": 0.04}},
    ),
    *recipes(
        {"trainer": "grpo", "cause": LEARNS},
        {"variant": "lora", "cause": "LoRA", "build": adapter, "overrides": {"learning_rate": 1e-3}},
        {"variant": "two_iterations", "cause": "rewards only in every second log", "overrides": {"num_iterations": 2}},
        {
            "variant": "two_rewards",
            "cause": "a reward for content and one for format",
            "overrides": {"reward_funcs": [colour_variety, stops]},
        },
        {
            "variant": "solves",
            "cause": "solves its task: groups turn flat because all are right",
            "overrides": {"reward_funcs": nearly_always, "learning_rate": 1e-3},
        },
    ),
    *recipes(
        {"trainer": "rloo", "cause": LEARNS},
        {"variant": "beta_zero", "cause": "no KL penalty", "overrides": {"beta": 0.0}},
    ),
    *recipes(
        {
            **HALF,
            "variant": "logging10",
            "cause": "TRL's logging_steps 10",
            "overrides": {"logging_steps": 10},
            "steps": 2000,
        },
        *({"trainer": kind} for kind in ("orpo", "cpo")),
        *(
            # short answers and half as many logs, for the time it takes
            {"trainer": kind, "overrides": {"logging_steps": 10, length: 12}, "steps": 1000}
            for length, kinds in (
                ("max_completion_length", ("grpo", "rloo", "distillation")),
                ("max_new_tokens", ("gkd", "online_dpo")),
            )
            for kind in kinds
        ),
    ),
    *recipes(
        {**HALF, "variant": "default_lr_logging10", "cause": SLOW, "steps": 2000},
        *(
            {"trainer": kind, "overrides": {"logging_steps": 10, "learning_rate": DEFAULT_LR[kind]}}
            for kind in ("dpo", "kto", "reward")
        ),
    ),
    *recipes(
        {**HALF, "variant": "bf16", "cause": "bfloat16 autocast", "overrides": {"bf16": True}, "steps": 200},
        *({"trainer": kind} for kind in ("sft", "dpo", "reward")),
    ),
    *recipes(
        {"trainer": "grpo", "cause": LEARNS},
        {
            "variant": "one_group",
            "cause": "one prompt per step: a group is flat or it is not",
            "overrides": {"per_device_train_batch_size": 8},
        },
        {"variant": "sparse", "cause": "pays seldom at first", "overrides": {"reward_funcs": rarely}},
    ),
    *recipes(
        {"trainer": "dpo", "cause": LEARNS},
        {
            **HALF,
            "variant": "batch32",
            "cause": "large batches by accumulation, after a warm-up",
            "overrides": {"gradient_accumulation_steps": 4, "warmup_steps": 20, "logging_steps": 5},
            "steps": 1000,
        },
    ),
]
