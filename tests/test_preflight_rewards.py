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

"""Reward functions with a fault are planted in real trainers; what they do in the preflight stays there."""

import asyncio
import functools
import math
import os
import random
import subprocess
import sys
import time
from itertools import count

import pytest
import torch
from datasets import Dataset
from preflight_kit import begin, report, said, seen
from tiny import make_trainer
from tiny_data import colour_variety, prompt_dataset
from trl.rewards import get_soft_overlong_punishment, think_format_reward

from trl_diagnostics.sources import preflight_rewards
from trl_diagnostics.sources.forked import Call, forked_calls
from trl_diagnostics.sources.preflight_rewards import _text, reward_functions
from trl_diagnostics.sources.unseen import Unseen


SUMS = Dataset.from_list([{"prompt": f"count from {n}", "solution": str(n)} for n in ("one", "two", "three", "four")])
CHATS = Dataset.from_list([{"prompt": [{"role": "user", "content": "count from one"}], "answer": "one"}] * 8)
KINDS = ["grpo", "rloo", "online_dpo"]


def right(completions, solution, **kwargs):
    return [float(a == b) for a, b in zip(completions, solution, strict=True)]


def number_of(folder, what, name):
    return seen(folder)[f"reward_function_{what}/{name}"]


async def patient(completions, **kwargs):
    await asyncio.sleep(0.001)
    return [len(completion) / 100 for completion in completions]


class Length:
    def __call__(self, completions, **kwargs):
        return [float(len(completion)) for completion in completions]


def asks_for_all(prompts, completions, completion_ids, trainer_state, log_extra, log_metric, **kwargs):
    log_extra("length", [len(ids) for ids in completion_ids])
    log_metric("rows", len(prompts))
    return [float(trainer_state.global_step + len(ids)) for ids in completion_ids]


def some_tasks(completions, **kwargs):
    return [None if i % 2 else float(len(completion)) for i, completion in enumerate(completions)]


def with_tensors(completions, **kwargs):
    return torch.tensor([len(completion) / 10 for completion in completions])


def loses_for_a_wrong_format(completions, **kwargs):
    return [1.0 if "box" in completion else -1.0 for completion in completions]


HEALTHY = [
    loses_for_a_wrong_format,
    [get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20), think_format_reward],
    [colour_variety, patient],
    [lambda completions, **kwargs: [float(len(c)) for c in completions], colour_variety],
    [Length(), functools.partial(colour_variety, extra=1)],
    asks_for_all,
    some_tasks,
    with_tensors,
]


@pytest.mark.parametrize("functions", HEALTHY)
def test_healthy_functions_are_silent(tmp_path, functions):
    prompts = {"train_dataset": CHATS} if isinstance(functions, list) and think_format_reward in functions else {}
    assert said(begin(tmp_path, "grpo", reward_funcs=functions, **prompts)) == []
    assert report(tmp_path)["unseen"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_is_paid(tmp_path, kind):
    assert said(begin(tmp_path, kind, reward_funcs=right, train_dataset=SUMS)) == []
    assert number_of(tmp_path, "gold", "right") == 1.0
    assert number_of(tmp_path, "spread", "right") == 1.0


def test_conversations(tmp_path):
    def says_one(completions, answer, **kwargs):
        return [float(c[0]["content"] == a) for c, a in zip(completions, answer, strict=True)]

    assert said(begin(tmp_path, "grpo", reward_funcs=says_one, train_dataset=CHATS)) == []
    assert number_of(tmp_path, "gold", "says_one") == 1.0


def test_functions_of_one_name(tmp_path):
    functions = [lambda completions, **kwargs: [0.0 for _ in completions] for _ in range(2)]
    begin(tmp_path, "grpo", reward_funcs=functions)
    assert number_of(tmp_path, "highest", "<lambda>_0") == number_of(tmp_path, "highest", "<lambda>_1") == 0.0


def no_keywords(completions):
    return [0.0 for _ in completions]


def missing_column(completions, **kwargs):
    return [float(a == b) for a, b in zip(completions, kwargs["answer"], strict=True)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("function", "error"), [(no_keywords, "TypeError: "), (missing_column, "KeyError: 'answer'")])
def test_a_function_that_always_raises(tmp_path, kind, function, error):
    name = function.__name__
    assert said(begin(tmp_path, kind, reward_funcs=[colour_variety, function], train_dataset=SUMS)) == [
        (
            "reward_function_raises",
            f"{name} raises an error in each of its calls, with data of this run: training will end at its first step.",
        )
    ]
    why = report(tmp_path)["unseen"]["reward functions"]
    assert why.startswith(f"{name}: {error}")
    assert [kind in why for kind in ("(empty)", "(random)", "(gold)")] == [True, True, True]


def names_each(prompts, completions, completion_ids, trainer_state):
    return [float(len(completion)) for completion in completions]


@pytest.mark.parametrize(("kind", "share"), [("online_dpo", 0), ("grpo", 1), ("rloo", 1)])
def test_functions_get_what_their_trainer_hands_over(tmp_path, kind, share):
    """Only GRPO and RLOO have `log_extra` and `log_metric`."""
    begin(tmp_path, kind, reward_funcs=names_each)
    assert number_of(tmp_path, "raises", "names_each") == share


def last_word(completions, **kwargs):
    return [float(completion.split()[-1] == ".") for completion in completions]


def test_a_function_that_raises_for_an_empty_completion(tmp_path):
    assert said(begin(tmp_path, "grpo", reward_funcs=last_word)) == [
        (
            "reward_function_raises_at_times",
            "last_word raises an error for 50% of an empty, a random and a right completion: a model can write these.",
        )
    ]
    assert report(tmp_path)["unseen"] == {"reward functions": "last_word: IndexError: list index out of range (empty)"}


def one_for_all(completions, **kwargs):
    return [float(sum(map(len, completions)))]


def test_a_wrong_number_of_rewards(tmp_path):
    assert said(begin(tmp_path, "grpo", reward_funcs=one_for_all)) == [
        (
            "reward_function_wrong_count",
            "one_for_all returns 0.25 rewards per completion instead of one: training will end at its first step.",
        )
    ]


def forgets_to_return(completions, **kwargs):
    return [None for _ in completions]


def test_nothing_but_none(tmp_path):
    assert said(begin(tmp_path, "grpo", reward_funcs=[colour_variety, forgets_to_return])) == [
        (
            "reward_function_returns_none",
            "forgets_to_return returned None for every completion of the first prompts: it may have no part in this "
            "training.",
        )
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rewards_that_are_not_finite(tmp_path, value):
    def per_letter(completions, **kwargs):
        return [1 / len(completion) if completion else value for completion in completions]

    assert said(begin(tmp_path, "grpo", reward_funcs=per_letter)) == [
        (
            "reward_function_nonfinite",
            "per_letter returned NaN or infinity for 50% of an empty, a random and a right completion.",
        )
    ]


def reads_the_prompt(prompts, **kwargs):
    return [0.5 for prompt in prompts]


def test_the_same_for_everything(tmp_path):
    assert said(begin(tmp_path, "grpo", reward_funcs=reads_the_prompt)) == [
        (
            "reward_function_pays_everything_the_same",
            "reads_the_prompt pays 0.5 for an empty completion and for any other: does it look at them?",
        )
    ]


def wants_a_box(completions, **kwargs):
    return [float("box" in completion) for completion in completions]


def test_a_format_around_the_right_answer_is_normal(tmp_path):
    callback = begin(tmp_path, "grpo", reward_funcs=wants_a_box, train_dataset=SUMS)
    assert said(callback) == []
    assert [(finding.rule, finding.severity) for finding in callback.findings] == [
        ("reward_function_pays_no_gold", "info")
    ]


def judge(completions, **kwargs):
    time.sleep(60)


def test_a_function_that_does_not_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_rewards, "SECONDS_EACH", 2.2)
    began = time.monotonic()
    callback = begin(tmp_path, "grpo", reward_funcs=[judge, colour_variety])
    assert time.monotonic() - began < 20
    assert said(callback) == [
        (
            "reward_function_slow",
            "judge takes 2.2 s or more for four completions; generation waits for it in each step.",
        )
    ]
    assert report(tmp_path)["unseen"] == {"reward functions": "judge: did not come back within 2.2 s"}
    assert number_of(tmp_path, "highest", "colour_variety") == 0.0


def test_no_time_is_left_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_rewards, "SECONDS", 0.3)
    monkeypatch.setattr(preflight_rewards, "SECONDS_EACH", 0.4)
    trainer = make_trainer("grpo", tmp_path, reward_funcs=[judge, colour_variety])
    with pytest.raises(Unseen, match="^judge: did not come back within 0.3 s; colour_variety: no time left$"):
        reward_functions(trainer)


def test_errors_of_the_surroundings_are_no_verdict(tmp_path):
    def server(completions, **kwargs):
        raise ConnectionError("no route to token=abcdefghijklmnop1234567890")

    assert said(begin(tmp_path, "grpo", reward_funcs=[colour_variety, server])) == []
    why = report(tmp_path)["unseen"]["reward functions"]
    assert why.startswith("server: ConnectionError: no route to") and "abcdefghijklmnop" not in why


def test_a_crash_stays_in_the_other_process(tmp_path):
    def crashes(completions, **kwargs):
        os.abort()

    callback = begin(tmp_path, "grpo", reward_funcs=[colour_variety, crashes])
    assert report(tmp_path)["unseen"] == {"reward functions": "crashes: its process crashed"}
    assert said(callback) == []
    crash = tmp_path / "diagnostics" / "crash.log"
    assert not crash.exists() or "Abort" not in crash.read_text()


def test_environments_are_not_built(tmp_path):
    trainer = make_trainer("grpo", tmp_path)
    trainer.environment_factories = {None: object}
    with pytest.raises(
        Unseen, match="^rewards depend on environments, tools or a rollout function, which come with a batch$"
    ):
        reward_functions(trainer)


def test_no_data(tmp_path):
    trainer = make_trainer("grpo", tmp_path)
    trainer.train_dataset = None
    with pytest.raises(Unseen, match="^the training data is no dataset of rows$"):
        reward_functions(trainer)


def test_data_that_cannot_be_read(tmp_path):
    def broken(rows):
        raise OSError("the mount is gone")

    trainer = make_trainer("grpo", tmp_path)
    trainer.train_dataset = prompt_dataset().with_transform(broken)
    with pytest.raises(Unseen, match=r"^colour_variety: OSError: the mount is gone \(data\)$"):
        reward_functions(trainer)


def test_data_that_do_not_come_are_no_slow_function(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight_rewards, "SECONDS_EACH", 0.5)
    trainer = make_trainer("grpo", tmp_path)
    trainer.train_dataset = prompt_dataset().with_transform(lambda rows: time.sleep(60))
    with pytest.raises(Unseen, match="^colour_variety: did not come back within 0.5 s$") as unseen:
        reward_functions(trainer)
    assert unseen.value.seen == {}


def test_trainers_without_rewards(tmp_path):
    assert reward_functions(make_trainer("sft", tmp_path)) == {}


def test_columns_that_the_trainer_removes_are_not_handed_over(tmp_path):
    assert (
        reward_functions(make_trainer("grpo", tmp_path / "a", reward_funcs=right, train_dataset=SUMS))[
            "reward_function_raises/right"
        ]
        == 0
    )
    trainer = make_trainer("grpo", tmp_path / "b", reward_funcs=right, train_dataset=SUMS, remove_unused_columns=True)
    with pytest.raises(Unseen, match="missing 1 required positional argument: 'solution'"):
        reward_functions(trainer)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), (7, "7"), (0.5, "0.5"), ([{"content": "b"}], "b"), (None, ""), ([], ""), ({"a": 1}, "")],
)
def test_text_of_an_answer(value, text):
    assert _text(value) == text


class TestForkedCalls:
    def test_values_and_errors(self):
        def jobs():
            yield "good", lambda: [1.0, None]
            yield "bad", lambda: [][1]
            yield "odd", lambda: sys.exit("left")

        calls, lost = forked_calls(jobs, 5.0)
        assert lost is None
        assert [(call.name, call.value, call.error, call.of_the_code) for call in calls] == [
            ("good", [1.0, None], None, False),
            ("bad", None, "IndexError: list index out of range", True),
            ("odd", None, "SystemExit: left", False),
        ]

    def test_nothing_is_left_behind(self):
        """Neither changes nor processes, also of those that the calls have started."""
        numbers, state = count(), random.getstate()
        pid = []

        def start():
            pid.append(next(numbers) + random.random())
            return subprocess.Popen(["sleep", "60"]).pid

        def jobs():
            yield "start", start
            yield "wait", lambda: time.sleep(60)

        (call,), lost = forked_calls(jobs, 0.5)
        assert lost == "did not come back within 0.5 s"
        assert pid == [] and next(numbers) == 0 and random.getstate() == state
        deadline = time.monotonic() + 5
        while _runs(call.value) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not _runs(call.value)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)

    def test_nothing_is_written(self, capfd):
        def jobs():
            yield "print", lambda: (sys.stdout.write("out"), os.write(1, b"out"), os.write(2, b"err"))[0]

        assert forked_calls(jobs, 5.0)[1] is None
        assert capfd.readouterr() == ("", "")

    def test_a_value_that_is_no_json(self):
        (call,), _ = forked_calls(lambda: iter([("set", lambda: {1})]), 5.0)
        assert call == Call("set", call.seconds, None, "TypeError: Object of type set is not JSON serializable", True)

    @pytest.mark.parametrize("system", ["win32", "darwin"])
    def test_systems_without_a_safe_fork(self, monkeypatch, system):
        monkeypatch.setattr(sys, "platform", system)
        with pytest.raises(Unseen, match=f"^on {system} no process can be forked safely$"):
            forked_calls(lambda: iter([]), 1.0)

    def test_no_memory_for_a_fork(self, monkeypatch):
        def fork():
            raise OSError(12, "Cannot allocate memory")

        monkeypatch.setattr(os, "fork", fork)
        with pytest.raises(Unseen, match=r"^no process could be forked \(Cannot allocate memory\)$"):
            forked_calls(lambda: iter([]), 1.0)


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
