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

"""Faults of arithmetic: NaN and infinity in weights, gradients, batches and logits."""

import math

import tiny
import torch

from failure_lab.injections import AtStep, NanBetweenMicroBatches, NanGradients, fill_with_nan, scale_loss
from failure_lab.recipe import recipes


NAN = (
    "nan_masked_as_zero_loss",
    "nonfinite_grad_norm",
    "nonfinite_loss",
    "nan_in_metrics",
    "nan_logged_as_null",
)
RUINED = ("nonfinite_weights",)
AFTER = ("loss_exactly_zero", "dpo_loss_exactly_zero", "reward_collapse", "reward_constant", "reward_constant_so_far")


def overflow(model: torch.nn.Module) -> None:
    """The output layer grows until float32 cannot hold a logit."""
    model.lm_head.weight.mul_(1e38)


def overflow_of_the_score(model: torch.nn.Module) -> None:
    """The same for a reward model."""
    model.score.weight.mul_(1e38)


def token_without_a_value(seed: int) -> dict:
    """A model whose vocabulary was resized with memory that nobody initialised."""
    model = tiny.saved_model()
    with torch.no_grad():
        model.lm_head.weight[-1] = math.nan
    return {"model": model}


RECIPES = [
    *recipes(
        {
            "fault": "nan_weights",
            "cause": "an overflow writes NaN into every weight after step 10",
            "expected": RUINED,
            "symptoms": (*NAN, *AFTER),
            "callbacks": (lambda: AtStep(10, fill_with_nan),),
            "onset": 10,  # the log of a step is written after it
            "steps": 40,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "reward", "orpo", "cpo", "gkd")),
        # nothing can be sampled from NaN: these end with an error in the next step
        *({"trainer": kind} for kind in ("grpo", "rloo", "online_dpo", "distillation")),
        *(
            {
                "trainer": kind,
                "variant": "sampling_goes_on",
                "overrides": {"generation_kwargs": {"remove_invalid_values": True}},
            }
            for kind in ("grpo", "rloo")
        ),
        {"trainer": "grpo", "variant": "steps_per_generation", "overrides": {"steps_per_generation": 4}},
        {
            "trainer": "grpo",
            "variant": "beta",
            "overrides": {"beta": 0.04, "generation_kwargs": {"remove_invalid_values": True}},
        },
        *(
            {
                "trainer": kind,
                "variant": "logging10",
                "overrides": {"logging_steps": 10},
                "callbacks": (lambda: AtStep(105, fill_with_nan),),
                "onset": 110,
                "steps": 200,
            }
            for kind in ("sft", "dpo")
        ),
    ),
    *recipes(
        {
            "fault": "nan_gradients",
            "cause": "the gradients of one step are NaN after clipping",
            "expected": RUINED,
            "symptoms": (*NAN, *AFTER),
            "callbacks": (lambda: NanGradients(20),),
            "onset": 21,
            "steps": 60,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "reward", "cpo")),
    ),
    *recipes(
        {
            "fault": "nan_batch",
            "cause": "the loss of one batch is NaN: a row that divides by zero",
            "expected": RUINED,
            "symptoms": (*NAN, *AFTER),
            "prepare": scale_loss(lambda call: math.nan if call == 30 else 1.0),
            "onset": 30,
            "steps": 70,
        },
        *({"trainer": kind} for kind in ("sft", "dpo", "kto", "reward", "orpo")),
    ),
    *recipes(
        {
            "fault": "inf_logits",
            "cause": "the output layer grows until a float32 logit is infinite",
            "expected": (*RUINED, "nan_masked_as_zero_loss", "nonfinite_loss", "nonfinite_grad_norm"),
            "symptoms": (*NAN, *AFTER, "sft_loss_above_start", "chosen_likelihood_destroyed"),
            "onset": 41,
            "steps": 80,
        },
        {"trainer": "sft", "callbacks": (lambda: AtStep(40, overflow),)},
        {"trainer": "dpo", "callbacks": (lambda: AtStep(40, overflow),)},
        {"trainer": "reward", "callbacks": (lambda: AtStep(40, overflow_of_the_score),)},
    ),
    *recipes(
        {
            "fault": "nan_between_micro_batches",
            "cause": "the weights are overwritten while gradients are still accumulated",
            "expected": RUINED,
            "symptoms": (*NAN, *AFTER),
            "callbacks": (lambda: NanBetweenMicroBatches(10),),
            "overrides": {"gradient_accumulation_steps": 2},
            "onset": 11,
            "steps": 40,
        },
        {"trainer": "grpo"},
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "nan_token",
            "cause": "a token that was added to the vocabulary has no values yet",
            "expected": (*RUINED, "nan_masked_as_zero_loss"),
            "symptoms": (*NAN, *AFTER),
            "build": token_without_a_value,
            "steps": 40,
        },
        {"trainer": "sft"},
        {"trainer": "cpo"},
    ),
]
