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

"""Faults of supervised data: labels, tokens, texts and the teacher."""

import random

import tiny
import torch
from datasets import Dataset
from tiny_data import text_dataset, tiny_tokenizer

from failure_lab.injections import change_batches
from failure_lab.recipe import recipes


DIVERGES = ("loss_and_gradients_diverge", "loss_divergence", "grad_norm_explosion")


def mask_labels(batch: dict) -> None:
    """No token counts."""
    batch["labels"] = torch.full_like(batch["labels"], -100)


def hide_tokens(batch: dict) -> None:
    """The attention mask is empty although there are tokens."""
    batch["attention_mask"] = torch.zeros_like(batch["attention_mask"])


def scramble(batch: dict) -> None:
    """Random tokens instead of text, as in a damaged file."""
    noise = torch.randint_like(batch["input_ids"], 7, 50)
    batch["labels"] = torch.where(batch["labels"] == -100, batch["labels"], noise)
    batch["input_ids"] = torch.where(batch["labels"] == -100, batch["input_ids"], noise)


def unknown_words(seed: int) -> dict:
    """Texts of a language that the tokenizer does not know."""
    lengths = random.Random(seed).choices(range(5, 20), k=1024)
    return {"train_dataset": Dataset.from_list([{"text": " ".join(["ein"] * length)} for length in lengths])}


def tokens_without_end(seed: int) -> dict:
    """Token ids instead of texts, to which TRL does not append the EOS token."""
    tokenizer = tiny_tokenizer()
    rows = [{"input_ids": tokenizer(row["text"])["input_ids"]} for row in text_dataset(seed=seed)]
    assert all(tokenizer.eos_token_id not in row["input_ids"] for row in rows)
    return {"train_dataset": Dataset.from_list(rows)}


RECIPES = [
    *recipes(
        {
            "fault": "labels_masked",
            "trainer": "sft",
            "expected": ("sft_no_trainable_tokens",),
            "symptoms": ("grad_norm_zero", "loss_exactly_zero", "sft_not_learning"),
            "steps": 80,
        },
        {"cause": "every label is -100: the response template never matches", "prepare": change_batches(mask_labels)},
        {
            "variant": "later",
            "cause": "every label is -100 from batch 51 on",
            "prepare": change_batches(mask_labels, start=50),
            "onset": 51,
            "steps": 100,
        },
        {
            "variant": "logging10",
            "cause": "every label is -100 from batch 56 on",
            "prepare": change_batches(mask_labels, start=55),
            "overrides": {"logging_steps": 10},
            "onset": 60,
            "steps": 200,
        },
    ),
    *recipes(
        {
            "fault": "overfit",
            "trainer": "sft",
            "cause": "thirty-two rows over seventy epochs; the evaluation loss rises",
            "build": lambda seed: {
                "train_dataset": text_dataset(32, seed),
                "eval_dataset": text_dataset(64, seed + 100),
            },
            "overrides": {"eval_strategy": "steps", "eval_steps": 10},
            "expected": ("eval_loss_rising", "sft_memorising"),
            "symptoms": ("eval_train_gap", "sft_leakage_early"),
            "onset": 60,
            "steps": 280,
        },
        {},
    ),
    *recipes(
        {
            "fault": "eos_missing",
            "trainer": "sft",
            "cause": "the texts were tokenised elsewhere, without EOS at their end: the model never learns to stop",
            "build": tokens_without_end,
            "expected": ("sft_eos_not_learned_risk",),
            "steps": 100,
        },
        {},
    ),
    *recipes(
        {
            "fault": "tokens_unknown",
            "trainer": "sft",
            "cause": "the tokenizer of another model: every word is the unknown token",
            "build": unknown_words,
            "expected": ("sft_leakage_early",),
            "symptoms": ("sft_memorising",),
            "steps": 150,
        },
        {},
    ),
    *recipes(
        {
            "fault": "data_damaged",
            "cause": "a damaged file: from batch 121 on the texts are random tokens",
            "prepare": change_batches(scramble, start=120),
            "expected": ("loss_and_gradients_diverge", "loss_divergence", "sft_loss_above_start"),
            "symptoms": (*DIVERGES, "sft_not_learning"),
            "onset": 121,
            "steps": 250,
        },
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "tokens_stalled",
            "cause": "the attention mask is empty from batch 61 on, so no token is counted",
            "prepare": change_batches(hide_tokens, start=60),
            "expected": ("num_tokens_stalled",),
            "symptoms": (*DIVERGES, "sft_loss_above_start"),
            "onset": 61,
            "steps": 120,
        },
        {"trainer": "sft"},
    ),
    *recipes(
        {
            "fault": "teacher_is_student",
            "cause": "the teacher is the model that is trained: a path that was copied",
            "build": lambda seed: {"teacher_model": tiny.saved_model()},
            "expected": ("teacher_equals_student",),
            "symptoms": ("grad_norm_zero", "loss_exactly_zero"),
            "steps": 60,
        },
        {"trainer": "distillation"},
        {"trainer": "gkd", "overrides": {"lmbda": 0.0}},
    ),
    *recipes(
        {
            "fault": "teacher_random",
            "cause": "the teacher was never trained: its weights were not loaded",
            "build": lambda seed: {"teacher_model": tiny.tiny_model(seed=seed + 50)},
            "expected": ("teacher_unlike_student",),
            "symptoms": ("distillation_completions_clipped",),
            "steps": 100,
        },
        {"trainer": "distillation"},
        {"trainer": "gkd"},
    ),
]
