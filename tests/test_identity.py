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

"""Reward functions go in, the same identity comes out as long as they would give the same rewards."""

import dataclasses
import functools
import os
import random
import subprocess
import sys
import time

import pytest
import torch

from trl_diagnostics.sinks.reward_identity import reward_identity


class Length:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, completions, **kwargs):
        return [self.factor * len(completion) for completion in completions]


def test_reward_functions_are_told_by_their_source():
    def good(completions, **kwargs):
        return [1.0 for _ in completions]

    first = reward_identity([good, functools.partial(good, x=1), Length(2.0), len])
    assert [one.split()[0] for one in first.values()] == ["good", "good", "Length", "len"]
    assert first["1"].startswith(first["0"]) and first["3"] == "len"

    def good(completions, **kwargs):  # noqa: F811
        return [0.5 for _ in completions]

    assert reward_identity([good])["0"] != first["0"]
    assert reward_identity(None) is None


def test_a_reward_model_is_told_by_its_weights():
    torch.manual_seed(0)
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    assert reward_identity([model]) == reward_identity([model]) != reward_identity([other])


def paid(completions, weight=1.0, words=(), **kwargs):
    return [weight for _ in completions]


def made(weight, cache):
    def reward(completions, **kwargs):
        cache["last"] = completions
        return [weight for _ in completions]

    return reward


class Judge:
    def __init__(self, **settings):
        vars(self).update(settings)
        self.calls, self.seen, self.api_key = 0, [], object.__repr__(self)

    def __call__(self, completions, **kwargs):
        self.calls += 1
        self.seen.append(completions)
        return [self.weight for _ in completions]

    def score(self, completions, **kwargs):
        return self(completions)


class Plain:
    def __init__(self, weight, log=None):
        self._weight = float(weight or 1)

    def __call__(self, completions, **kwargs):
        return [self._weight for _ in completions]


@dataclasses.dataclass
class Config:
    weight: float
    log_dir: str = dataclasses.field(default_factory=lambda: f"logs-{time.time()}")


CASES = {
    "argument of the class": lambda weight: Plain(weight),
    "dataclass": lambda weight: functools.partial(paid, words=Config(weight)),
    "attribute that is a dataclass": lambda weight: Judge(weight=1, config=Config(weight)),
    "long list": lambda weight: functools.partial(paid, words=[weight] * 10_000),
    "keyword": lambda weight: functools.partial(paid, weight=weight),
    "positional": lambda weight: functools.partial(paid, [], weight),
    "partial of a partial": lambda weight: functools.partial(functools.partial(paid, weight=weight), words=("a",)),
    "attribute": lambda weight: Judge(weight=weight, names={"b", "a"}),
    "in a container": lambda weight: Judge(weight=1, table={"a": [{"b": weight}]}),
    "method": lambda weight: Judge(weight=weight).score,
    "partial of an object": lambda weight: functools.partial(Judge(weight=weight), extra=None),
    "closure": lambda weight: made(weight, {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_a_reward_function_was_given_tells_it(case):
    function = case(2)
    [first] = reward_identity([function]).values()
    assert reward_identity([case(2)]) == {"0": first} != reward_identity([case(3)])
    assert len(first.split()) == 3
    function(["x"])
    assert reward_identity([function]) == {"0": first}  # what it counts and remembers is no setting


def test_models_other_objects_and_passwords_are_no_settings():
    models = [torch.nn.Linear(2, 1) for _ in range(2)]
    first, second = (reward_identity([Judge(weight=1, model=model, of={model: object()})]) for model in models)
    assert first == second


WEIGHT = 2
SCORES_LOG = "x"


def scaled(completions, **kwargs):
    return [sum(WEIGHT for _ in completion) + len(SCORES_LOG) for completion in completions]


def test_a_constant_of_the_module_tells(monkeypatch):
    first = reward_identity([scaled])
    monkeypatch.setitem(globals(), "SCORES_LOG", "y")
    assert reward_identity([scaled]) == first
    monkeypatch.setitem(globals(), "WEIGHT", 3)
    assert reward_identity([scaled]) != first


def count_in(stats):
    stats["n"] = stats.get("n", 0) + 1


class Stateful:
    def __init__(self, weight):
        self.weight, self.stats, self.log, self.n, self.table = weight, {}, [], 0, dict.fromkeys("ab")
        self.started, self.file, self.run = time.time(), f"log_{time.time()}.txt", random.random()

    def __call__(self, completions, **kwargs):
        count_in(self.stats)
        log, table = self.log, self.table
        log.append(completions)
        table["a"] = completions
        self.n = self.n + 1
        return [self.weight for _ in completions]


def around(clock):
    stats = {}

    def reward(completions, **kwargs):
        count_in(stats)
        return [len(stats) + clock for _ in completions]

    return reward


def bound(completions, store=None, **kwargs):
    store = store or {}
    count_in(store)
    return [1.0 for _ in completions]


NEW = {
    "object": lambda: Stateful(2),
    "closure": lambda: around(time.time()),
    "partial": lambda: functools.partial(bound, store={"m": 1}),
    "time": lambda: functools.partial(paid, stamp=f"run-{time.time_ns()}", since=time.time()),
    "path": lambda: functools.partial(paid, out=f"/tmp/{random.random()}", log_dir=str(random.random())),
    "judge": lambda: Judge(weight=2, url=f"node{random.random()}", groq_key=f"a1b2c3d4{random.random()}"),
}


@pytest.mark.parametrize("made_anew", NEW.values(), ids=NEW)
def test_what_every_process_makes_anew_tells_nothing(made_anew):
    function = made_anew()
    first = reward_identity([function])
    assert reward_identity([made_anew()]) == first
    function(["x"])
    assert reward_identity([function]) == first


def test_large_and_endless_settings_are_read_in_part():
    endless = {}
    endless["me"] = endless
    large = dict.fromkeys(range(300_000), "x" * 100)
    start = time.process_time()
    assert reward_identity([functools.partial(paid, words=endless, large=large, names=set(large))])["0"]
    assert time.process_time() - start < 0.5
    more = large | {-1: "y"}
    first, second = (reward_identity([functools.partial(paid, large=one)]) for one in (large, more))
    assert first != second


@pytest.mark.slow
def test_reward_functions_are_the_same_in_another_process():
    script = "from test_identity import *; print(reward_identity([case(2) for case in CASES.values()]))"
    told = subprocess.check_output([sys.executable, "-c", script], cwd=os.path.dirname(__file__), text=True)
    assert told == f"{reward_identity([case(2) for case in CASES.values()])}\n"
