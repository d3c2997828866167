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

"""Faults of reward functions: constant, missing, cancelling, never reached, paying for the wrong thing."""

import math
import random
from collections.abc import Callable

from tiny_data import colour_variety

from failure_lab.recipe import recipes


Reward = Callable[..., list[float | None]]
FLAT = (
    "reward_constant",
    "reward_constant_so_far",
    "groups_all_flat",
    "groups_mostly_flat",
    "policy_not_updated",
    "groups_solved",
)
CUT = ("completions_all_clipped", "completions_rarely_end", "entropy_collapse", "completions_never_end")


def one(completions, **kwargs) -> list[float]:
    """The same for every answer."""
    return [1.0] * len(completions)


def never(completions, **kwargs) -> list[float]:
    """A goal that no answer reaches."""
    return [0.0] * len(completions)


def nothing(completions, **kwargs) -> list[None]:
    """A function that forgets to return a number."""
    return [None] * len(completions)


def against(completions, **kwargs) -> list[float]:
    """The opposite of the reward."""
    return [-reward for reward in colour_variety(completions)]


def long(completions, **kwargs) -> list[float]:
    """Pays for words."""
    return [len(completion.split()) / 24 for completion in completions]


def begins(completions, **kwargs) -> list[float]:
    """A task that the policy has solved before training."""
    return [float(completion.startswith("the")) for completion in completions]


def red(completions, **kwargs) -> list[float]:
    """Pays for one word, however often."""
    return [completion.split().count("red") / max(len(completion.split()), 1) for completion in completions]


def red_and_done(completions, **kwargs) -> list[float]:
    """The same, but only for an answer that ends: the policy must not win by never stopping."""
    ended = [completion.endswith(".") for completion in completions]
    return [reward * end for reward, end in zip(red(completions), ended, strict=True)]


def from_call(start: int, replace: Callable[[list[float]], list]) -> Callable[[int], dict]:
    """A reward function whose results are replaced from a call on."""

    def build(seed: int) -> dict:
        calls = 0

        def judged(completions, **kwargs):
            nonlocal calls
            calls += 1
            rewards = colour_variety(completions)
            return replace(rewards) if calls > start else rewards

        return {"reward_funcs": judged}

    return build


def sometimes(chance: float, value: float | None) -> Callable[[int], dict]:
    """A judge that is down for a whole batch now and then."""

    def build(seed: int) -> dict:
        rng = random.Random(seed)

        def judged(completions, **kwargs):
            rewards = colour_variety(completions)
            return [value] * len(rewards) if rng.random() < chance else rewards

        return {"reward_funcs": judged}

    return build


def rare_jackpot(seed: int) -> dict:
    """A parser that once in a while reads a reward of a thousand."""
    rng = random.Random(seed)

    def parsed(completions, **kwargs):
        return [1000.0 if rng.random() < 0.01 else reward for reward in colour_variety(completions)]

    return {"reward_funcs": parsed}


def coin(seed: int) -> dict:
    """A reward that has nothing to do with the answer."""
    rng = random.Random(seed)

    def thrown(completions, **kwargs):
        return [float(rng.random() < 0.5) for _ in completions]

    return {"reward_funcs": thrown}


RECIPES = [
    *recipes(
        {
            "fault": "reward_constant",
            "cause": "the reward is 1 for every answer: a comparison that is always true",
            "overrides": {"reward_funcs": one},
            "expected": ("reward_constant", "reward_constant_so_far"),
            "symptoms": FLAT,
            "steps": 60,
        },
        *({"trainer": kind} for kind in ("grpo", "rloo")),
        *(
            {"trainer": "grpo", "variant": loss, "overrides": {"reward_funcs": one, "loss_type": loss}}
            for loss in ("grpo", "dr_grpo", "cispo")
        ),
        {"trainer": "grpo", "variant": "beta", "overrides": {"reward_funcs": one, "beta": 0.04}},
        {"trainer": "online_dpo", "expected": ("scores_always_equal",)},
    ),
    *recipes(
        {
            "fault": "reward_never_reached",
            "cause": "the goal is too hard: no answer ever earns anything",
            "overrides": {"reward_funcs": never},
            "expected": ("reward_constant_so_far", "grpo_flat_groups_too_hard"),
            "symptoms": FLAT,
            "steps": 80,
        },
        *({"trainer": kind} for kind in ("grpo", "rloo")),
        {"trainer": "online_dpo", "expected": ("scores_always_equal",)},
    ),
    *recipes(
        {
            "fault": "reward_none",
            "cause": "the reward function has no return for any answer",
            "overrides": {"reward_funcs": nothing},
            "expected": ("reward_null",),
            "symptoms": (*FLAT, "reward_function_null"),
            "steps": 60,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "reward_lost_later",
            "expected": ("reward_null",),
            "symptoms": (*FLAT, "reward_function_null", "reward_variance_lost"),
            "onset": 31,
            "steps": 80,
        },
        {
            "trainer": "grpo",
            "variant": "none",
            "cause": "the judge is gone from step 31 on: None",
            "build": from_call(30, lambda rewards: [None] * len(rewards)),
        },
        {
            "trainer": "grpo",
            "variant": "nan",
            "cause": "the judge is gone from step 31 on: NaN",
            "build": from_call(30, lambda rewards: [math.nan] * len(rewards)),
        },
        {
            "trainer": "rloo",
            "variant": "none",
            "cause": "the judge is gone from step 31 on: None",
            "build": from_call(30, lambda rewards: [None] * len(rewards)),
        },
    ),
    *recipes(
        {
            "fault": "reward_none_sometimes",
            "cause": "the judge is down for four batches in ten",
            "build": sometimes(0.4, None),
            "expected": ("reward_null",),
            "symptoms": (*FLAT, "reward_function_null"),
            "steps": 80,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "rewards_cancel",
            "cause": "two reward functions of opposite sign: nothing is left of either",
            "overrides": {"reward_funcs": [colour_variety, against]},
            "expected": ("reward_functions_cancel",),
            "symptoms": FLAT,
            "steps": 60,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {"fault": "reward_function_dead", "trainer": "grpo", "steps": 100},
        {
            "cause": "one of two reward functions never pays: a pattern that cannot match",
            "overrides": {"reward_funcs": [colour_variety, never]},
            "expected": ("reward_function_never_pays",),
        },
        {
            "variant": "none",
            "cause": "one of two reward functions never returns",
            "overrides": {"reward_funcs": [colour_variety, nothing]},
            "expected": ("reward_function_null",),
        },
    ),
    *recipes(
        {
            "fault": "reward_pays_length",
            "cause": "the reward grows with the number of words, and the policy never stops",
            "overrides": {"reward_funcs": long, "max_completion_length": 48, "learning_rate": 1e-3},
            "expected": ("grpo_length_explosion", "completions_rarely_end"),
            "symptoms": (*CUT, *FLAT, "entropy_explosion"),
            "onset": 10,
            "steps": 150,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "reward_variance_lost",
            "cause": "from step 61 on the judge falls back to one number for all",
            "build": from_call(60, lambda rewards: [0.3] * len(rewards)),
            "expected": ("reward_variance_lost",),
            "symptoms": FLAT,
            "onset": 61,
            "steps": 130,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "task_solved",
            "cause": "the policy solves every prompt before training: nothing is left to learn",
            "overrides": {"reward_funcs": begins},
            "expected": ("groups_solved", "reward_saturated", "groups_mostly_flat", "reward_constant_so_far"),
            "symptoms": FLAT,
            "steps": 100,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "reward_jackpot",
            "cause": "one answer in a hundred gets a reward of 1000: a parser that reads a wrong number",
            "build": rare_jackpot,
            "expected": ("grpo_reward_scale_outlier",),
            "symptoms": ("grad_norm_explosion", "reward_collapse"),
            "steps": 150,
        },
        {"trainer": "grpo"},
    ),
    *recipes(
        {
            "fault": "reward_collapsed",
            "cause": "from step 81 on the judge is another one that scores every answer lower and hardly tells them apart",
            "build": from_call(80, lambda rewards: [reward * 0.1 - 1 for reward in rewards]),
            "expected": ("reward_collapse",),
            "symptoms": FLAT,
            "onset": 81,
            "steps": 150,
        },
        {"trainer": "grpo"},
        {"trainer": "rloo"},
    ),
    *recipes(
        {
            "fault": "reward_random",
            "cause": "the reward does not depend on the answer: results joined by the wrong index",
            "build": coin,
            "expected": ("grpo_reward_no_progress",),
            "steps": 200,
        },
        {"trainer": "grpo"},
    ),
]
