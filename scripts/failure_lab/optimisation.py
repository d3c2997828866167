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

"""Faults of the optimizer: its learning rate, its parameters, the loss it gets."""

import time

import tiny
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_data import colour_variety, text_dataset

from failure_lab.injections import AtStep, cut_gradients, scale_loss, shake
from failure_lab.recipe import recipes


LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
DEAD_LETTERS = ("dpo_stuck_at_start", "kto_stuck_at_start", "reward_stuck_at_chance", "sft_not_learning")
LR_HIGH = (
    "lr_far_too_high",
    "lr_high_for_sft",
    "lr_high_for_preference",
    "lr_high_for_rl",
    "lr_high_for_reward_model",
)
UNSTABLE = ("grad_norm_explosion", "loss_and_gradients_diverge", "loss_divergence")


def lora(alpha: int = 16) -> LoraConfig:
    """An adapter on all linear layers."""
    return LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=alpha, target_modules=LAYERS)


def adapter_for_inference(seed: int) -> dict:
    """A model whose adapter was saved and loaded again without `is_trainable=True`."""
    torch.manual_seed(seed)
    with tiny.tempfile.TemporaryDirectory() as folder:
        get_peft_model(tiny.saved_model(), lora()).save_pretrained(folder)
        return {"model": PeftModel.from_pretrained(tiny.saved_model(), folder)}


def optimizer_of_another_model(seed: int) -> dict:
    """An optimizer that was built before the model was replaced."""
    lost = torch.nn.Parameter(torch.zeros(1))
    return {"optimizers": (torch.optim.AdamW([lost], lr=3e-4), None)}


def schedule_of_a_third(trainer) -> None:
    """The schedule ends after a third of the run, as when `max_steps` is raised and the scheduler is not."""
    inner = trainer.create_scheduler
    trainer.create_scheduler = lambda num_training_steps, optimizer=None: inner(num_training_steps // 3, optimizer)


def slower_and_slower(seed: int) -> dict:
    """A judge behind the reward function whose queue grows."""
    calls = 0

    def judged(completions, **kwargs):
        nonlocal calls
        calls += 1
        time.sleep(min(0.002 * calls, 0.3))
        return colour_variety(completions)

    return {"reward_funcs": judged}


RECIPES = [
    *recipes(
        {
            "fault": "lr_zero",
            "cause": "learning_rate is 0: a config value that was cut to an integer",
            "expected": ("lr_zero",),
            "symptoms": (*DEAD_LETTERS, "dpo_policy_equals_reference", "kto_policy_equals_reference"),
            "overrides": {"learning_rate": 0.0},
            "steps": 80,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "reward", "orpo", "cpo", "gkd")),
        *({"trainer": kind, "steps": 60} for kind in ("grpo", "rloo", "online_dpo", "distillation", "ppo")),
    ),
    *recipes(
        {
            "fault": "lr_too_high",
            "cause": "learning_rate 100 times too high",
            "symptoms": (*UNSTABLE, *DEAD_LETTERS),
            "overrides": {"learning_rate": 3e-2},
            "steps": 150,
        },
        {"trainer": "sft", "overrides": {"learning_rate": 3e-1}, "expected": ("sft_loss_above_start", *LR_HIGH)},
        {
            "trainer": "dpo",
            "expected": ("chosen_likelihood_destroyed", *LR_HIGH),
            "symptoms": ("dpo_margin_collapse", *UNSTABLE),
        },
        {
            "trainer": "kto",
            "expected": ("chosen_likelihood_destroyed", *LR_HIGH),
            "symptoms": ("kto_margin_negative", *UNSTABLE),
        },
        {
            "trainer": "reward",
            "overrides": {"learning_rate": 3.0, "lr_scheduler_type": "constant"},
            "expected": (
                "loss_divergence",
                "loss_and_gradients_diverge",
                "reward_loss_worse_than_guessing",
                "reward_stuck_at_chance",
                "nonfinite_grad_norm",
                *LR_HIGH,
            ),
            "symptoms": (
                "nonfinite_weights",
                "nan_masked_as_zero_loss",
                "reward_scores_collapsed",
                "reward_constant_output",
            ),
        },
        {"trainer": "orpo", "expected": ("chosen_likelihood_lost", *LR_HIGH)},
        {"trainer": "cpo", "expected": ("chosen_likelihood_lost", *LR_HIGH)},
        {
            "trainer": "cpo",
            "variant": "simpo",
            "overrides": {"learning_rate": 3e-2, "loss_type": "simpo", "cpo_alpha": 0.0},
            "expected": ("chosen_likelihood_lost", "simpo_chosen_collapse", *LR_HIGH),
        },
        *(
            {"trainer": kind, "overrides": {"learning_rate": 1e-1}, "expected": ("distillation_diverges", *LR_HIGH)}
            for kind in ("distillation", "gkd")
        ),
        {
            "trainer": "online_dpo",
            "expected": ("sequence_kl_jump_at_start", *LR_HIGH),
            "symptoms": ("completions_never_end", "scores_always_equal", "sequence_kl_runaway"),
        },
    ),
    *recipes(
        {
            "fault": "lr_zero_too_early",
            "cause": "the schedule was made for a third of the steps, the learning rate is 0 from then on",
            "expected": ("lr_zero_late", "lr_zero"),
            "prepare": schedule_of_a_third,
            "steps": 150,
            "onset": 51,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "reward", "grpo")),
    ),
    *recipes(
        {
            "fault": "adapter_frozen",
            "cause": "PeftModel.from_pretrained without is_trainable=True; gradient checkpointing hides the error",
            "expected": ("grad_norm_zero",),
            "symptoms": (*DEAD_LETTERS, "dpo_policy_equals_reference"),
            "build": adapter_for_inference,
            "overrides": {"gradient_checkpointing": True},
            "steps": 80,
        },
        {"trainer": "sft"},
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "adapter_scale_zero",
            "cause": "lora_alpha is 0, so the adapter never reaches the output",
            "expected": ("grad_norm_zero",),
            "symptoms": ("dpo_policy_equals_reference", *DEAD_LETTERS),
            "build": lambda seed: {"peft_config": lora(alpha=0)},
            "steps": 80,
        },
        {"trainer": "dpo"},
        {"trainer": "kto"},
    ),
    *recipes(
        {
            "fault": "gradients_cut",
            "cause": "the graph is cut: a custom layer whose backward returns zeros",
            "expected": ("grad_norm_zero", "policy_not_updated"),
            "symptoms": ("dpo_policy_equals_reference", "kto_policy_equals_reference", *DEAD_LETTERS),
            "prepare": cut_gradients,
            "steps": 80,
        },
        *({"trainer": kind} for kind in ("sft", "kto", "reward", "orpo", "grpo")),
        {"trainer": "rloo", "steps": 60},
    ),
    *recipes(
        {
            "fault": "optimizer_empty",
            "cause": "the optimizer holds the parameters of another copy of the model",
            "build": optimizer_of_another_model,
            "symptoms": DEAD_LETTERS,
            "steps": 120,
        },
        {"trainer": "sft", "expected": ("sft_not_learning",)},
        {
            "trainer": "sft",
            "variant": "eval",
            "build": lambda seed: {
                **optimizer_of_another_model(seed),
                "model": tiny.saved_model(),
                "eval_dataset": text_dataset(32, seed + 100),
            },
            "overrides": {"eval_strategy": "steps", "eval_steps": 20},
            "expected": ("eval_loss_never_moves",),
            "onset": 40,
        },
        {"trainer": "dpo", "expected": ("dpo_policy_equals_reference",)},
        {"trainer": "kto", "expected": ("kto_policy_equals_reference",)},
        {"trainer": "reward", "expected": ("reward_scores_never_move", "reward_stuck_at_chance")},
        {
            "trainer": "grpo",
            "overrides": {"beta": 0.04},
            "expected": ("grpo_policy_equals_reference", "policy_not_updated"),
            "steps": 80,
        },
    ),
    *recipes(
        {
            "fault": "accumulation_unscaled",
            "cause": "a compute_loss of one's own does not divide by gradient_accumulation_steps",
            "expected": ("sft_loss_unscaled", "sft_bad_start"),
            "symptoms": UNSTABLE,
            "prepare": scale_loss(lambda call: 8.0),
            "overrides": {"gradient_accumulation_steps": 8, "per_device_train_batch_size": 2},
            "steps": 150,
        },
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "weights_shaken",
            "cause": "one far too large update throws the weights about, and the run does not recover",
            "callbacks": (lambda: AtStep(100, shake(0.3)),),
            "onset": 101,
        },
        {"trainer": "sft", "expected": ("sft_loss_above_start", "loss_and_gradients_diverge"), "symptoms": UNSTABLE},
        {
            "trainer": "dpo",
            "expected": ("chosen_likelihood_destroyed",),
            "symptoms": ("dpo_margin_collapse", *UNSTABLE),
        },
        {
            "trainer": "orpo",
            "expected": ("chosen_likelihood_lost", "loss_and_gradients_diverge", "loss_divergence"),
            "symptoms": UNSTABLE,
        },
    ),
    *recipes(
        {
            "fault": "divergence_unclipped",
            "cause": "max_grad_norm 0 and learning_rate 1000 times too high",
            "expected": ("sft_loss_above_start", "grad_norm_explosion", *LR_HIGH),
            "symptoms": (
                "nan_masked_as_zero_loss",
                "nonfinite_weights",
                "nonfinite_grad_norm",
                "sft_not_learning",
                *UNSTABLE,
            ),
            "overrides": {"learning_rate": 3.0, "max_grad_norm": 0.0},
            "steps": 150,
        },
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "weight_decay_huge",
            "cause": "weight_decay 100 instead of 0.1 pulls every weight to 0",
            "expected": ("weight_decay_dominates",),
            "symptoms": ("sft_not_learning", "sft_loss_above_start", *UNSTABLE),
            "overrides": {"weight_decay": 100.0},
            "steps": 150,
        },
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "slow_down",
            "cause": "each call of the reward function takes longer: a judge whose queue grows",
            "expected": ("step_time_drift", "training_slows_down"),
            "build": slower_and_slower,
            "onset": 40,
            "steps": 120,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
]
