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

"""The signal budget: what groups of completions teach, against groups that were made by hand and real trainings."""

import math
from collections import Counter, defaultdict, deque
from types import SimpleNamespace

import pytest
import tiny
import torch
from callback_kit import lines

from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.sources.signal_budget import KINDS, SignalBudget, add_up, sentence


NAN = math.nan


def words(text, add_special_tokens):
    return {"input_ids": text.split()}


class Generating(SimpleNamespace):
    """What the trainer keeps of its generations, in groups of 4 and with a limit of 10 words."""

    def __init__(self, weights=(1.0,)):
        metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        super().__init__(_logs={"rewards": {}, "completion": deque()}, _metrics=metrics, num_generations=4)
        self.reward_weights, self.max_completion_length, self.processing_class = torch.tensor(weights), 10, words

    def generate(self, *columns, lengths=None):
        self._logs["rewards"] = {f"f{i}": deque(column) for i, column in enumerate(columns)}
        lengths = lengths or [3] * len(columns[0])
        self._logs["completion"] = deque("x " * length for length in lengths)
        self._metrics["train"]["frac_reward_zero_std"].append(0.0)


def sort(*generations, weights=(1.0,)):
    trainer = Generating(weights)
    budget = SignalBudget(trainer)
    for generation in generations:
        columns, lengths = (generation, None) if not isinstance(generation, dict) else generation.values()
        trainer.generate(*columns, lengths=lengths)
        budget.look()
    return {name: int(count) for name, count in budget.take().items() if count}


MIXED = [0.0, 1.0, 0.0, 1.0]


def test_groups_that_differ_are_useful():
    assert sort([MIXED * 3]) == {"groups": 3, "groups_useful": 3}


def test_all_wrong_and_all_right():
    rewards = [*MIXED, *[0.0] * 4, *[0.0] * 4, *[1.0] * 4]
    assert sort([rewards]) == {"groups": 4, "groups_useful": 1, "groups_all_low": 2, "groups_all_high": 1}


def test_wrong_and_right_are_not_known_before_rewards_differ():
    assert sort([[1.0] * 8], [[*MIXED, *[1.0] * 4]]) == {
        "groups": 4,
        "groups_useful": 1,
        "groups_all_high": 1,
        "groups_equal": 2,
    }


def test_the_same_reward_in_between():
    assert sort([[*MIXED, *[0.5] * 4]]) == {"groups": 2, "groups_useful": 1, "groups_equal": 1}


def test_rewards_that_cancel_each_other():
    right, short = [*MIXED, *MIXED], [*MIXED, 1.0, 0.0, 1.0, 0.0]
    assert sort([right, short], weights=(1.0, 1.0)) == {"groups": 2, "groups_useful": 1, "groups_cancelling": 1}


def test_weights_count():
    right, short = MIXED, [1.0, 0.0, 1.0, 0.0]
    assert sort([right, short], weights=(1.0, 2.0)) == {"groups": 1, "groups_useful": 1}
    assert sort([right, [0.0] * 4], weights=(0.0, 1.0)) == {"groups": 1, "groups_cancelling": 1}


def test_completions_without_a_reward():
    assert sort([[NAN] * 4]) == {"groups": 1, "groups_unscored": 1}
    assert sort([[NAN, 1.0, NAN, 0.0]]) == {"groups": 1, "groups_useful": 1}
    assert sort([[*MIXED, NAN, 0.0, NAN, 0.0]]) == {"groups": 2, "groups_useful": 1, "groups_all_low": 1}


def test_wrong_because_cut_off():
    rewards, lengths = [*MIXED, *[0.0] * 8], [3] * 4 + [10] * 4 + [4] * 4
    found = sort({"columns": [rewards], "lengths": lengths})
    assert found == {"groups": 3, "groups_useful": 1, "groups_all_low": 2, "groups_cut_off": 1}


def test_of_many_wrong_groups_some_are_read():
    rewards, lengths = [*MIXED, *[0.0] * 400], [3] * 4 + [10] * 400
    trainer = Generating()
    reads = []
    trainer.processing_class = lambda text, add_special_tokens: reads.append(text) or words(text, False)
    trainer.generate(rewards, lengths=lengths)
    budget = SignalBudget(trainer)
    budget.look()
    assert budget.take()["groups_cut_off"] == 100 and len(reads) <= 16


def test_completions_that_are_conversations():
    trainer = Generating()
    trainer.generate([*MIXED, *[0.0] * 4])
    trainer._logs["completion"] = deque([[{"role": "assistant", "content": "x " * 10}]] * 8)
    budget = SignalBudget(trainer)
    budget.look()
    assert budget.take()["groups_cut_off"] == 1


def test_each_generation_counts_once():
    trainer = Generating()
    budget = SignalBudget(trainer)
    budget.look()
    assert budget.take() == {}
    trainer.generate(MIXED)
    for _ in range(3):  # steps on the same completions
        budget.look()
    assert budget.take()["groups"] == 1
    trainer._metrics["train"].clear()  # by the log
    budget.look()
    assert budget.take() == {}
    trainer.generate(MIXED)
    budget.look()
    assert budget.take()["groups"] == 1
    assert dict(trainer._metrics["train"]) == {"frac_reward_zero_std": [0.0]}


def test_looking_adds_nothing_to_the_logs_of_the_trainer():
    trainer = Generating()
    SignalBudget(trainer).look()
    assert dict(trainer._metrics["train"]) == {}


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        ({}, None),
        ({"groups": 12, "groups_useful": 12}, "All 12 groups of completions gave a reward gradient."),
        (
            dict(zip(KINDS, (64, 23, 30, 23, 9, 0, 2, 0), strict=True)),
            "Of 64 groups of completions 41 gave no reward gradient: 30 all wrong (about 23 of them cut off), 9 all right, 2 with "
            "rewards that cancel each other. Wrong and right are told by the lowest and the highest reward of the run. "
            "Useful share 36%.",
        ),
        (
            dict(zip(KINDS, (2000, 500, 0, 0, 0, 1499, 0, 1), strict=True)),
            "Of 2,000 groups of completions 1,500 gave no reward gradient: 1,499 all the same, neither wrong nor right, 1 without "
            "a reward. Useful share 25%.",
        ),
    ],
)
def test_in_words(totals, said):
    assert sentence(Counter(totals)) == said


def test_adding_up():
    totals = Counter()
    for metrics in ({"loss": 1.0}, {"groups": 2.0, "groups_useful": 1.0}, {"groups": 3.0, "groups_all_low": 3.0}):
        add_up(totals, metrics)
    assert {name: count for name, count in totals.items() if count} == {
        "groups": 5,
        "groups_useful": 1,
        "groups_all_low": 3,
    }


@pytest.mark.parametrize("kind", ["grpo", "rloo"])
def test_a_real_training_agrees_with_what_the_trainer_logs(kind, tmp_path):
    """`frac_reward_zero_std` is the mean share of idle groups, where no KL is taken off the rewards (RLOO)."""

    def reward(completions, **kwargs):
        return [float("red" in text) for text in completions]

    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer(
        kind,
        tmp_path,
        [callback],
        max_steps=12,
        logging_steps=3,
        reward_funcs=[reward],
        max_completion_length=6,
        beta=0.0,
    )
    trainer.train()
    records = [line["metrics"] for line in lines(tmp_path, "metrics.jsonl") if line["phase"] == "train"]
    assert len(records) == 4 and callback.broken == {}
    for metrics in records:
        idle = metrics["groups"] - metrics["groups_useful"]
        assert idle / metrics["groups"] == pytest.approx(metrics["frac_reward_zero_std"])
    assert callback.groups["groups"] == sum(metrics["groups"] for metrics in records) > 0
    assert sentence(callback.groups) in (tmp_path / "diagnostics" / "reports" / "run_report.md").read_text()
