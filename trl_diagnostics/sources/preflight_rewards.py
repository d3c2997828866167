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

"""A trainer goes in, numbers about what its reward functions give for a few prompts come out."""

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Iterator
from copy import deepcopy
from itertools import islice
from random import Random
from time import monotonic
from typing import Any

from datasets import Dataset, IterableDataset
from torch import nn
from transformers import Trainer

from .forked import CRASHED, Call, forked_calls
from .unseen import Unseen


ROWS = 4
DATA = "data"
KINDS = EMPTY, RANDOM, RIGHT = "empty", "random", "gold"
RANDOM_TOKENS = 24
SECONDS, SECONDS_EACH = 6.0, 4.0  # for all reward functions together, for one
GOLD = ("solution", "answer", "ground_truth", "gold", "target", "completion", "chosen")
OWN_COLUMNS = ("prompt", "completion", "completion_ids")  # those of the data are not handed over
LOGS = {"log_extra": "_log_completion_extra", "log_metric": "_log_metric"}  # GRPO and RLOO hand these over
IMAGES = ("image", "images")


def reward_functions(trainer: Trainer) -> dict[str, float]:
    """
    Call each reward function with a few prompts and an empty, a random and, where the data has one, a right completion.
    That happens in a process of its own, so that its counters, caches and random generators stay as they are.
    """
    functions = vars(trainer).get("reward_funcs")
    if not functions:
        return {}
    if any(vars(trainer).get(name) for name in ("environment_factories", "rollout_func", "tools")):
        raise Unseen("rewards depend on environments, tools or a rollout function, which come with a batch")
    if not isinstance(trainer.train_dataset, Dataset | IterableDataset):
        raise Unseen("the training data is no dataset of rows")
    found, unseen, end = {}, [], monotonic() + SECONDS
    for name, function in zip(_names(trainer), functions, strict=True):
        seconds = round(min(SECONDS_EACH, end - monotonic()), 1)
        if isinstance(function, nn.Module):
            unseen.append(f"{name} is a model")
        elif seconds < SECONDS_EACH / 2:
            unseen.append(f"{name}: no time left")
        else:
            calls, lost = forked_calls(lambda function=function: _calls(trainer, function), seconds)
            found |= _numbers(name, calls, seconds, lost)
            unseen += [f"{name}: {reason}" for reason in _reasons(calls, lost)]
    if unseen:
        raise Unseen("; ".join(unseen), found)
    return found


def _names(trainer: Trainer) -> list[str]:
    """Names of the reward functions as TRL logs them; those that several have get a number."""
    names = [name.replace("/", "_") for name in trainer.reward_func_names]
    return [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _calls(trainer: Trainer, function: Callable) -> Iterator[tuple[str, Callable[[], Any]]]:
    rows: list[dict[str, Any]] = []
    yield DATA, lambda: rows.extend(islice(iter(trainer.train_dataset), ROWS))  # a stream may take its time, or hang
    tokenizer = vars(trainer.processing_class).get("tokenizer", trainer.processing_class)
    for kind, texts in _texts(rows, tokenizer).items() if rows else ():
        arguments = _arguments(trainer, deepcopy(rows), texts, tokenizer)
        yield kind, lambda arguments=arguments: _rewards(function, arguments)


def _texts(rows: list[dict[str, Any]], tokenizer: Any) -> dict[str, list[str]]:
    """Completions of the rows, by what kind they are."""
    random = Random(0)
    draws = [random.choices(range(len(tokenizer)), k=RANDOM_TOKENS) for _ in rows]
    words = [tokenizer.decode(draw, skip_special_tokens=True) for draw in draws]
    texts = {EMPTY: ["" for _ in rows], RANDOM: words}
    column = next((name for name in GOLD if all(_text(row.get(name)) for row in rows)), None)
    return texts | ({RIGHT: [_text(row[column]) for row in rows]} if column else {})


def _text(value: Any) -> str:
    """The text of an answer in the data: a text, a number or the last message of a conversation."""
    match value:
        case str():
            return value
        case int() | float():
            return str(value)
        case [*_, {"content": str(content)}]:
            return content
    return ""


def _arguments(trainer: Trainer, rows: list[dict[str, Any]], texts: list[str], tokenizer: Any) -> dict[str, Any]:
    """What TRL calls a reward function with."""
    chat = isinstance(rows[0]["prompt"], list)
    handed = IMAGES if trainer.args.remove_unused_columns else set(rows[0])
    return {
        "prompts": [row["prompt"] for row in rows],
        "completions": [[{"role": "assistant", "content": text}] if chat else text for text in texts],
        "completion_ids": [[*tokenizer.encode(t, add_special_tokens=False), tokenizer.eos_token_id] for t in texts],
        **{name: [row[name] for row in rows] for name in rows[0] if name in handed and name not in OWN_COLUMNS},
        "trainer_state": trainer.state,
        **{name: _log_nothing for name, method in LOGS.items() if method in dir(trainer)},
    }


def _log_nothing(name: str, value: Any) -> None:
    """What a reward function logs before training is not part of the training."""


def _rewards(function: Callable, arguments: dict[str, Any]) -> dict[str, Any]:
    rewards = function(**arguments)
    if inspect.isawaitable(rewards):
        rewards = asyncio.run(_awaited(rewards))
    rewards = [None if reward is None else float(reward) for reward in rewards]
    return {"rewards": rewards, "completions": len(arguments["completions"])}


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result


def _reasons(calls: list[Call], lost: str | None) -> list[str]:
    """What a person has to know beside the numbers."""
    errors = [f"{call.error} ({call.name})" for call in calls if call.error]
    return [*errors, *([lost] if lost else [])]


def _numbers(name: str, calls: list[Call], seconds: float, lost: str | None) -> dict[str, float]:
    """What the calls tell about one function."""
    found: dict[str, float] = {}
    own = [call for call in calls if call.name in KINDS]
    raised = [call for call in own if call.of_the_code]
    came = {call.name: call.value for call in own if call.error is None}
    if came or raised:
        found["raises"] = len(raised) / (len(raised) + len(came))
    if came:  # the fastest call: the first one may have to import something
        found["seconds"] = min(call.seconds for call in own if call.error is None)
    elif lost and lost != CRASHED and [call.name for call in calls if call.error is None] == [DATA]:
        found["seconds"] = seconds
    if came:
        ratios = [len(value["rewards"]) / value["completions"] for value in came.values()]
        found["rewards_per_completion"] = max(ratios, key=lambda ratio: abs(ratio - 1))
        found |= _scores([reward for value in came.values() for reward in value["rewards"]])
    if {EMPTY, RANDOM} <= set(came) and not raised:
        found |= _spread({kind: value["rewards"] for kind, value in came.items()})
    return {f"reward_function_{what}/{name}": number for what, number in found.items()}


def _scores(rewards: list[float | None]) -> dict[str, float]:
    """How many of the rewards are none: TRL leaves out a None, and means it by NaN."""
    count = max(len(rewards), 1)
    broken = sum(reward is not None and not math.isfinite(reward) for reward in rewards)
    return {"none": rewards.count(None) / count, "nonfinite": broken / count}


def _spread(rewards: dict[str, list[float | None]]) -> dict[str, float]:
    """How far the rewards are apart over all completions, and what right ones get."""
    finite = {kind: [r for r in values if r is not None and math.isfinite(r)] for kind, values in rewards.items()}
    every = [reward for values in finite.values() for reward in values]
    found = {"spread": max(every) - min(every), "highest": max(every)} if every else {}
    if finite.get(RIGHT):
        found["gold"] = max(finite[RIGHT])
    return found


REWARD_CHECKS: dict[str, Callable[[Trainer], dict[str, float]]] = {"reward functions": reward_functions}
