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

"""Faults that TRL's logs hide or show late: only a look at data, model, gradients, weights, time and memory names them."""

import math

import tiny
from tiny_data import colour_variety

from failure_lab import hidden_builds as build
from failure_lab import hidden_data
from failure_lab.hidden_data import BEFORE, NAN, UNTRAINED
from failure_lab.injections import scale_loss
from failure_lab.optimisation import DEAD_LETTERS, adapter_for_inference
from failure_lab.recipe import recipes
from failure_lab.rewards import FLAT


RECIPES = [
    *recipes(
        {
            **BEFORE,
            "fault": "optimizer_of_a_copy",
            "cause": "the optimizer holds the parameters of another copy of the model",
            "expected": ("optimizer_without_the_model",),
            "symptoms": ("optimizer_holds_strangers", *UNTRAINED),
            "build": build.optimizer_of_a_copy,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "grpo")),
        {
            "trainer": "sft",
            "variant": "adapter",
            "cause": "the optimizer was built before the adapter was put on the model",
            "build": build.optimizer_before_the_adapter,
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "optimizer_in_part",
            "cause": "the parameter groups hold only what a pattern of names finds: one layer",
            "expected": ("optimizer_misses_parameters",),
            "build": build.optimizer_of_one_layer,
        },
        {"trainer": "sft"},
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "all_frozen",
            "cause": "PeftModel.from_pretrained without is_trainable=True; gradient checkpointing hides the error",
            "expected": ("nothing_trainable",),
            "symptoms": UNTRAINED,
            "build": adapter_for_inference,
            "overrides": {"gradient_checkpointing": True},
        },
        {"trainer": "sft"},
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "other_adapter_active",
            "cause": "a second adapter is to be trained, and the first one is active",
            "build": build.two_adapters(frozen=True),
            "expected": ("adapter_stays_at_zero", "grad_norm_zero", "gradients_missing"),
            "symptoms": UNTRAINED,
            "overrides": {"gradient_checkpointing": True},
            "steps": 40,
        },
        {"trainer": "sft"},
        {"trainer": "dpo"},
        {
            "trainer": "sft",
            "variant": "both_trained",
            "build": build.two_adapters(frozen=False),
            "expected": ("gradients_missing",),
            "overrides": {},
        },
    ),
    *recipes(
        {
            "fault": "checkpointing_cuts_the_graph",
            "cause": "reentrant gradient checkpointing with frozen embeddings: no layer gets a gradient, only the head",
            "build": build.adapter_and_head,
            "callbacks": (build.CutAtTheEmbeddings,),
            "overrides": {
                "gradient_checkpointing": True,
                "gradient_checkpointing_kwargs": {"use_reentrant": True},
                "learning_rate": 1e-3,
            },
            "expected": ("adapter_stays_at_zero", "gradients_missing"),
            "steps": 40,
        },
        {"trainer": "sft"},
        {"trainer": "orpo"},
    ),
    *recipes(
        {
            "fault": "updates_undone",
            "cause": "a callback puts the weights back after each step",
            "callbacks": (build.UndoUpdates,),
            "expected": ("weights_do_not_change",),
            "symptoms": UNTRAINED,
            "steps": 40,
        },
        *({"trainer": kind} for kind in ("sft", "reward", "grpo")),
        {"trainer": "dpo", "expected": ("weights_do_not_change", "dpo_policy_equals_reference")},
        {
            "trainer": "sft",
            "variant": "never_made",
            "cause": "a wrapper around the optimizer never calls it",
            "callbacks": (),
            "prepare": build.skip_updates,
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "updates_rounded",
            "cause": "weights in bfloat16 and a small learning rate: most updates are rounded away",
            "build": build.in_bfloat16,
            "overrides": {"learning_rate": 1e-6},
            "expected": ("bf16_rounds_updates_away", "updates_rounded_away"),
            "symptoms": UNTRAINED,
            "steps": 40,
        },
        *({"trainer": kind} for kind in ("sft", "dpo")),
    ),
    *recipes(
        {
            "fault": "nan_in_a_batch",
            "cause": "the loss of one batch is NaN: a row that divides by zero",
            "expected": ("gradients_nonfinite",),
            "symptoms": NAN,
            "prepare": scale_loss(lambda call: math.nan if call == 20 else 1.0),
            "onset": 20,
            "steps": 40,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "grpo", "rloo")),
    ),
    *recipes(
        {
            "fault": "infinite_gradient",
            "cause": "the gradient of one parameter overflows in one step; the loss stays finite",
            "expected": ("gradients_nonfinite",),
            "symptoms": NAN,
            "prepare": build.infinite_gradient(20),
            "onset": 20,
            "steps": 40,
        },
        {"trainer": "sft"},
        {"trainer": "orpo"},
    ),
    *recipes(
        {**BEFORE, "overrides": {"max_completion_length": 12}},
        *(
            {
                "fault": "reward_raises",
                "trainer": kind,
                "cause": "the reward function takes the first word of an answer that may be empty",
                "build": lambda seed: {"reward_funcs": build.first_word},
                "expected": ("reward_function_raises_at_times",),
            }
            for kind in ("grpo", "rloo")
        ),
        {
            "fault": "reward_raises",
            "variant": "always",
            "trainer": "grpo",
            "cause": "the reward function wants a column that the data does not have",
            "build": lambda seed: {"reward_funcs": build.missing_column},
            "expected": ("reward_function_raises",),
        },
        {
            "fault": "reward_raises",
            "variant": "one_for_all",
            "trainer": "grpo",
            "cause": "the reward function returns one reward for the whole batch",
            "build": lambda seed: {"reward_funcs": build.one_for_all},
            "expected": ("reward_function_wrong_count",),
        },
        *(
            {
                "fault": "reward_blind",
                "trainer": kind,
                "cause": "one of two reward functions does not look at the completion",
                "build": lambda seed: {"reward_funcs": [colour_variety, build.always_one]},
                "expected": ("reward_function_pays_everything_the_same", "reward_function_constant"),
                "symptoms": FLAT,
            }
            for kind in ("grpo", "rloo")
        ),
        {
            "fault": "reward_silent",
            "trainer": "grpo",
            "cause": "one of two reward functions returns None for everything",
            "build": lambda seed: {"reward_funcs": [colour_variety, build.forgets_to_return]},
            "expected": ("reward_function_returns_none", "reward_function_null"),
        },
        {
            "fault": "reward_slow",
            "trainer": "grpo",
            "cause": "the reward function waits two seconds for a judge",
            "build": lambda seed: {"reward_funcs": build.slow},
            "expected": ("reward_function_slow",),
            "steps": 8,
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "reference_of_other_weights",
            "cause": "the reference was loaded from another checkpoint than the policy",
            "build": lambda seed: {"ref_model": tiny.saved_model("teacher")},
            "expected": ("reference_is_another_model",),
            "symptoms": (
                "dpo_reference_differs_at_start",
                "kto_reference_differs_at_start",
                "dpo_unstable_start",
                "kto_kl_saturates_sigmoid",
            ),
        },
        {"trainer": "dpo"},
        {"trainer": "kto"},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "reference_is_the_policy",
            "cause": "copy.copy of the policy as reference: both have the same weights",
            "build": build.shallow_copy,
            "expected": ("reference_shares_weights",),
            "symptoms": UNTRAINED,
        },
        {"trainer": "dpo"},
        {"trainer": "kto"},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "teacher_is_the_student",
            "cause": "teacher and student are the same checkpoint",
            "build": lambda seed: {"teacher_model": tiny.saved_model()},
            "expected": ("teacher_is_the_student",),
            "symptoms": ("teacher_equals_student", "distillation_no_progress", "loss_exactly_zero", *UNTRAINED),
        },
        {"trainer": "gkd"},
        {"trainer": "distillation"},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "adapter_rate_too_low",
            "cause": "the learning rate of a full fine-tuning, and an adapter",
            "build": lambda seed: {"model": tiny.saved_model(), "peft_config": build.lora()},
            "symptoms": DEAD_LETTERS,
        },
        {"trainer": "sft", "overrides": {"learning_rate": 2e-5}, "expected": ("sft_lora_lr_too_low",)},
        {"trainer": "dpo", "overrides": {"learning_rate": 1e-6}, "expected": ("preference_lora_lr_too_low",)},
    ),
    *recipes(
        {
            "fault": "waits_for_data",
            "cause": "the collator takes ten times as long as the step, and nothing is prepared ahead",
            "prepare": build.slow_collator,
            "expected": ("training_waits_for_data",),
            "steps": 35,
        },
        {"trainer": "sft"},
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "host_memory_leak",
            "trainer": "sft",
            "cause": "a callback keeps something of every batch",
            "callbacks": (build.HostMemoryLeak,),
            "overrides": {"logging_steps": 10, "per_device_train_batch_size": 2},
            "expected": ("cpu_memory_grows",),
            "onset": 10,
            "steps": 1100,
        },
        {},
    ),
    *hidden_data.RECIPES,
]
