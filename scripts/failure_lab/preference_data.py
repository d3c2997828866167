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

"""Faults of preference data and of what it is compared with: labels, pairs, beta, the reference model."""

import tiny
import torch
from datasets import Dataset
from tiny_data import preference_dataset, unpaired_dataset

from failure_lab.injections import change_batches
from failure_lab.recipe import recipes


STUCK = ("dpo_stuck_at_start", "kto_stuck_at_start", "reward_stuck_at_chance")
DIVERGES = ("loss_and_gradients_diverge", "loss_divergence", "grad_norm_explosion")
IN_ORDER = {"train_sampling_strategy": "sequential"}


def swap(row: dict) -> dict:
    """A pair with its answers exchanged."""
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


def swapped_after(rows: int, seed: int) -> Dataset:
    """Pairs whose labels are the wrong way round from a row on: a second file with the other convention."""
    pairs = preference_dataset(4096, seed, noise=0.0)
    return pairs.map(lambda row, i: row if i < rows else swap(row), with_indices=True)


def judged_wrongly_after(rows: int, seed: int) -> Dataset:
    """The same for single answers."""
    answers = unpaired_dataset(4096, seed, noise=0.0)
    return answers.map(lambda row, i: {**row, "label": row["label"] == (i < rows)}, with_indices=True)


def leaked(rows: int, seed: int) -> Dataset:
    """Pairs whose chosen answers carry a mark of the tool that wrote them."""
    return preference_dataset(rows, seed).map(lambda row: {**row, "chosen": " <|system|>" + row["chosen"]})


def mask_answers(batch: dict) -> None:
    """No token of an answer counts."""
    batch["completion_mask"] = torch.zeros_like(batch["completion_mask"])


def identical(seed: int) -> dict:
    """Pairs whose two answers are the same text."""
    return {"train_dataset": preference_dataset(seed=seed).map(lambda row: {**row, "rejected": row["chosen"]})}


def half_identical(seed: int) -> dict:
    """Every second pair holds the same text twice."""
    pairs = preference_dataset(seed=seed)
    tied = pairs.map(lambda row, i: row if i % 2 else {**row, "rejected": row["chosen"]}, with_indices=True)
    return {"train_dataset": tied}


def random_pairs(seed: int) -> dict:
    """Pairs whose labels are thrown with a coin."""
    return {"train_dataset": preference_dataset(seed=seed, noise=0.5)}


def few_rows_often(seed: int) -> dict:
    """Sixteen noisy pairs, again and again, and an evaluation on others."""
    return {
        "train_dataset": preference_dataset(16, seed, noise=0.25),
        "eval_dataset": preference_dataset(64, seed + 100, noise=0.25),
    }


RECIPES = [
    *recipes(
        {
            "fault": "pairs_identical",
            "cause": "chosen and rejected are the same text: a column was copied",
            "expected": ("preference_pairs_identical",),
            "symptoms": (*STUCK, "grad_norm_zero"),
            "build": identical,
            "steps": 100,
        },
        *({"trainer": kind} for kind in ("dpo", "orpo", "cpo")),
        *({"trainer": "dpo", "variant": loss, "overrides": {"loss_type": [loss]}} for loss in ("ipo", "hinge")),
        {"trainer": "cpo", "variant": "simpo", "overrides": {"loss_type": "simpo", "cpo_alpha": 0.0}},
        {"trainer": "reward", "expected": ("reward_pairs_identical",)},
    ),
    *recipes(
        {
            "fault": "pairs_half_identical",
            "cause": "in half of the pairs both answers are the same text: ties that were not dropped",
            "expected": ("dpo_pairs_tie",),
            "build": half_identical,
        },
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "labels_swapped_later",
            "cause": "the second data file has chosen and rejected the other way round",
            "symptoms": DIVERGES,
            "build": lambda seed: {"train_dataset": swapped_after(1200, seed)},
            "overrides": IN_ORDER,
            "onset": 151,
            "steps": 300,
        },
        {
            "trainer": "dpo",
            "expected": ("dpo_margin_collapse", "loss_and_gradients_diverge", "loss_divergence"),
            "symptoms": ("dpo_accuracy_below_chance", *DIVERGES),
        },
        {
            "trainer": "reward",
            "expected": ("reward_accuracy_below_chance", "loss_and_gradients_diverge", "loss_divergence"),
        },
        {
            "trainer": "kto",
            "expected": ("kto_margin_negative", "loss_and_gradients_diverge", "loss_divergence"),
            "build": lambda seed: {"train_dataset": judged_wrongly_after(1200, seed)},
        },
    ),
    *recipes(
        {
            "fault": "labels_random",
            "cause": "labels without information: annotators who guess, or columns joined by the wrong key",
            "build": random_pairs,
            "expected": ("dpo_stuck_at_start",),
            "symptoms": ("dpo_accuracy_below_chance", "reward_accuracy_below_chance"),
        },
        {"trainer": "dpo"},
        *(
            {"trainer": "dpo", "variant": loss, "overrides": {"loss_type": [loss], **more}}
            for loss, more in (("ipo", {}), ("hinge", {}), ("apo_zero", {}), ("robust", {"label_smoothing": 0.1}))
        ),
        {"trainer": "reward", "expected": ("reward_stuck_at_chance",)},
        *(
            {"trainer": kind, "expected": ("preference_at_chance",), "symptoms": ("orpo_preference_not_learned",)}
            for kind in ("orpo", "cpo")
        ),
        {
            "trainer": "kto",
            "expected": ("kto_stuck_at_start",),
            "symptoms": ("kto_margin_negative",),
            "build": lambda seed: {"train_dataset": unpaired_dataset(seed=seed, noise=0.5)},
        },
    ),
    *recipes(
        {
            "fault": "labels_all_swapped",
            "cause": "chosen and rejected are exchanged in the whole training set, not in the evaluation",
            "build": lambda seed: {
                "train_dataset": preference_dataset(seed=seed, noise=0.9),
                "eval_dataset": preference_dataset(64, seed + 100),
            },
            "overrides": {"eval_strategy": "steps", "eval_steps": 10},
            "steps": 150,
        },
        {"trainer": "dpo", "expected": ("dpo_eval_accuracy_gap", "eval_loss_rising"), "symptoms": ("eval_train_gap",)},
        {
            "trainer": "reward",
            "expected": ("reward_eval_inverted", "reward_overfit", "eval_loss_rising"),
            "symptoms": ("eval_train_gap",),
        },
        {
            "trainer": "orpo",
            "expected": ("orpo_prefers_rejected",),
            "symptoms": ("eval_loss_rising", "eval_train_gap"),
        },
    ),
    *recipes(
        {
            "fault": "label_leaked",
            "cause": "every chosen answer carries a mark that no rejected one has",
            "build": lambda seed: {"train_dataset": leaked(1024, seed)},
            "steps": 150,
        },
        {"trainer": "dpo", "expected": ("dpo_saturated_early",)},
        {"trainer": "reward", "expected": ("reward_accuracy_too_good",)},
    ),
    *recipes(
        {
            "fault": "overfit",
            "cause": "sixteen rows over a hundred epochs; the evaluation loss rises",
            "build": few_rows_often,
            "overrides": {"eval_strategy": "steps", "eval_steps": 10},
            "expected": ("eval_loss_rising", "dpo_eval_accuracy_gap", "reward_overfit"),
            "symptoms": (
                "eval_train_gap",
                "dpo_saturated_early",
                "reward_accuracy_too_good",
            ),
        },
        {"trainer": "dpo"},
        {"trainer": "reward"},
    ),
    *recipes(
        {"fault": "beta_zero", "cause": "beta is 0: no reward, no gradient", "overrides": {"beta": 0.0}, "steps": 80},
        {"trainer": "dpo", "expected": ("dpo_beta_zero",)},
        {"trainer": "kto", "expected": ("kto_beta_zero",), "symptoms": ("grad_norm_zero",)},
    ),
    *recipes(
        {
            "fault": "beta_negative",
            "cause": "beta is -0.1: a sign that was lost when a formula was copied",
            "overrides": {"beta": -0.1},
            "expected": ("beta_below_zero",),
            "symptoms": ("chosen_likelihood_destroyed", *STUCK, *DIVERGES),
            "steps": 150,
        },
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "beta_too_high",
            "cause": "beta 10 instead of 0.1: a confusion of beta with its inverse",
            "overrides": {"beta": 10.0},
            "expected": ("dpo_margin_explosion",),
            "symptoms": DIVERGES,
        },
        {"trainer": "dpo"},
    ),
    *recipes(
        {
            "fault": "beta_too_low",
            "cause": "beta 0.001 and ten times the learning rate: nothing holds the policy near the reference",
            "overrides": {"beta": 0.001, "learning_rate": 1e-2},
            "expected": ("chosen_likelihood_destroyed", "dpo_likelihood_displacement", "dpo_sequence_drift"),
            "symptoms": ("dpo_margin_collapse", *DIVERGES),
        },
        {"trainer": "dpo"},
        {"trainer": "kto"},
    ),
    *recipes(
        {
            "fault": "reference_wrong",
            "cause": "the reference is another model than the one that training starts from",
            "build": lambda seed: {"ref_model": tiny.tiny_model(seed=seed + 5)},
            "expected": ("dpo_reference_differs_at_start",),
            "symptoms": DIVERGES,
            "steps": 100,
        },
        {"trainer": "dpo"},
        {"trainer": "dpo", "variant": "teacher", "build": lambda seed: {"ref_model": tiny.saved_model("teacher")}},
    ),
    *recipes(
        {
            "fault": "answers_masked",
            "cause": "a collator of one's own masks the answers: prompts fill max_length",
            "prepare": change_batches(mask_answers),
            "expected": ("dpo_no_completion_tokens",),
            "symptoms": ("dpo_policy_equals_reference", "grad_norm_zero", "preference_pairs_identical", *STUCK),
            "steps": 60,
        },
        {"trainer": "dpo"},
        {
            "trainer": "orpo",
            "cause": "prompts are longer than max_length, nothing is left of the answers: a mean over no tokens",
            "prepare": None,
            "overrides": {"max_length": 3},
            "expected": ("nonfinite_weights", "nan_masked_as_zero_loss"),
            "symptoms": ("nonfinite_grad_norm", "nan_in_metrics"),
        },
    ),
    *recipes(
        {
            "fault": "one_class",
            "expected": ("kto_one_class_only",),
            "symptoms": ("kto_stuck_at_start", "chosen_likelihood_destroyed"),
            "steps": 120,
        },
        *(
            {
                "trainer": "kto",
                "variant": variant,
                "cause": f"every answer is {variant}",
                "build": lambda seed, share=share: {"train_dataset": unpaired_dataset(seed=seed, desirable=share)},
            }
            for variant, share in (("desirable", 1.0), ("undesirable", 0.0))
        ),
    ),
]
