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

"""Faults of rows, tokens and pairs that only a look at them before the first step names."""

from tiny_data import chat_dataset, preference_dataset, prompt_dataset, text_dataset

from failure_lab import hidden_builds as build
from failure_lab.optimisation import DEAD_LETTERS
from failure_lab.recipe import recipes


NAN = (
    "nonfinite_weights",
    "nan_masked_as_zero_loss",
    "nonfinite_grad_norm",
    "nonfinite_loss",
    "nan_in_metrics",
    "nan_logged_as_null",
    "loss_exactly_zero",
    "dpo_loss_exactly_zero",
    "reward_collapse",
    "reward_constant",
    "reward_constant_so_far",
)
UNTRAINED = (
    "weights_do_not_change",
    "adapter_stays_at_zero",
    "grad_norm_zero",
    "policy_not_updated",
    "dpo_policy_equals_reference",
    "kto_policy_equals_reference",
    *DEAD_LETTERS,
)
# What is seen before the first step is in a record of step 0.
BEFORE = {"onset": 0, "steps": 30}

RECIPES = [
    *recipes(
        {**BEFORE, "fault": "rows_without_labels", "trainer": "sft", "overrides": {"max_length": None}},
        {
            "cause": "every label of every row is masked: the response template never matches",
            "build": build.labels_masked(1),
            "expected": ("labels_all_masked",),
            "symptoms": ("sft_no_trainable_tokens", "grad_norm_zero", "loss_exactly_zero", *NAN, *UNTRAINED),
        },
        {
            "variant": "some",
            "cause": "every label of every fourth row is masked",
            "build": build.labels_masked(4),
            "expected": ("labels_often_masked",),
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "end_not_taught",
            "cause": "the chat template closes no turn: the model never sees an end token",
            "expected": ("end_token_missing",),
        },
        {"trainer": "sft", "build": build.without_end},
        {"trainer": "dpo", "build": build.pairs_without_end},
    ),
    *recipes(
        {**BEFORE, "fault": "end_masked", "trainer": "sft", "expected": ("end_token_masked",)},
        {"cause": "pad_token is eos_token, and the collator masks it", "build": build.end_as_padding},
        {
            "variant": "template",
            "cause": "the generation block of the template ends before the end token",
            "build": build.end_outside_the_mask,
            "overrides": {"assistant_only_loss": True},
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "started_twice",
            "cause": "the text brings a start token, and another one is added",
            "expected": ("double_start_token",),
        },
        {"trainer": "sft", "build": build.started_twice(text_dataset, "text")},
        {"trainer": "dpo", "build": build.started_twice(preference_dataset, "prompt")},
        {"trainer": "grpo", "build": build.started_twice(prompt_dataset, "prompt")},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "pairs_partly_equal",
            "cause": "in every fourth pair the rejected answer is the chosen one",
            "expected": ("chosen_equals_rejected",),
            "symptoms": ("preference_pairs_identical", "dpo_pairs_tie"),
            "build": build.pairs_partly_equal,
        },
        *({"trainer": kind} for kind in ("dpo", "reward", "orpo", "cpo")),
        {
            "trainer": "dpo",
            "variant": "when_cut",
            "cause": "every fourth pair differs only beyond max_length",
            "build": build.pairs_equal_when_cut,
            "overrides": {"max_length": 16},
            "expected": ("pairs_equal_after_truncation",),
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "completions_lost",
            "cause": "every fourth prompt fills max_length: its completion is cut away",
            "overrides": {"max_length": 20},
            "expected": ("completions_lost_to_max_length",),
        },
        *({"trainer": kind, "build": build.long_prompts(kind)} for kind in ("sft", "dpo", "kto")),
        {
            "trainer": "orpo",
            "build": build.long_prompts("orpo"),
            "expected": ("orpo_completions_lost_to_max_length",),
            "symptoms": ("gradients_nonfinite", *NAN),
        },
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "eval_leaks",
            "cause": "the evaluation rows were taken from the training rows and left there",
            "overrides": {"eval_strategy": "steps", "eval_steps": 10},
            "expected": ("eval_rows_in_train",),
        },
        {"trainer": "sft", "build": build.rows_in_both(text_dataset)},
        {"trainer": "dpo", "build": build.rows_in_both(preference_dataset)},
    ),
    *recipes(
        {
            **BEFORE,
            "fault": "rows_repeated",
            "trainer": "sft",
            "cause": "eight texts, each of them 64 times: a join that went wrong",
            "build": build.few_texts,
            "expected": ("rows_repeated",),
            "symptoms": ("sft_memorising", "sft_rows_known_by_heart"),
        },
        {},
    ),
    *recipes(
        {**BEFORE, "trainer": "sft"},
        {
            "fault": "token_never_trained",
            "cause": "the embedding of a special token is zero, and it is frozen",
            "build": build.new_token_untrained,
            "expected": ("special_tokens_untrained",),
        },
        {
            "fault": "token_without_embedding",
            "cause": "tokens were added to the tokenizer, and the embedding was not resized",
            "build": build.tokens_added,
            "expected": ("tokens_beyond_embedding",),
        },
        {
            "fault": "mask_without_effect",
            "cause": "assistant_only_loss with rows that came tokenized and without a mask",
            "build": lambda seed: {
                "train_dataset": chat_dataset(512, seed).add_column(
                    "input_ids", list(build.tokenized(seed)["input_ids"][:512])
                )
            },
            "overrides": {"assistant_only_loss": True},
            "expected": ("assistant_only_loss_without_effect",),
        },
    ),
]
