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

"""The clock: which part of a step the time goes to, and when nothing can be said."""

import pytest

from trl_diagnostics.sources import step_clock
from trl_diagnostics.sources.step_clock import StepClock, generate_every


class Time:
    """A clock that the test moves on."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    time = Time()
    monkeypatch.setattr(step_clock, "time", time)
    return time


def go(time, clock, seconds, event):
    time.now += seconds
    getattr(clock, event)()


def step(time, clock, wait=1.0, batches=(4.0,), optimizer=2.0, after=1.0):
    go(time, clock, wait, "step_begins")
    for seconds in batches:
        go(time, clock, seconds, "batch_ends")
    go(time, clock, optimizer, "optimizer_ends")
    go(time, clock, after, "step_ends")


def test_the_parts_of_a_step(time):
    clock = StepClock()
    step(time, clock)
    step(time, clock)
    assert clock.take() == {
        "step_seconds": 8.0,
        "data_wait_share": 2 / 16,
        "compute_share": 8 / 16,
        "optimizer_share": 4 / 16,
        "overhead_share": 2 / 16,
    }


def test_logging_evaluation_and_saving_are_overhead_and_not_waiting(time):
    clock = StepClock()
    step(time, clock)
    clock.take()
    go(time, clock, 30.0, "rest_ends")  # an evaluation
    go(time, clock, 10.0, "rest_ends")  # a checkpoint
    step(time, clock)
    found = clock.take()
    assert found["step_seconds"] == 48.0
    assert found["overhead_share"] == pytest.approx(41 / 48)
    assert found["data_wait_share"] == pytest.approx(1 / 48)
    assert sum(value for name, value in found.items() if name.endswith("_share")) == pytest.approx(1.0)


def test_a_log_without_a_step_says_nothing_and_loses_nothing(time):
    clock = StepClock()
    assert clock.take() == {}
    step(time, clock, wait=5.0)
    assert clock.take()["data_wait_share"] == pytest.approx(5 / 12)
    assert clock.take() == {}


def test_micro_batches_that_generate_take_longer_by_the_generation(time):
    clock = StepClock(generate_every=4)
    for _ in range(3):
        step(time, clock, wait=0.0, batches=(20.0, 2.0, 2.0, 2.0), optimizer=1.0, after=1.0)
    found = clock.take()
    assert found["generation_share"] == pytest.approx(18 / 28)
    assert found["compute_share"] == pytest.approx(26 / 28)


def test_generation_for_several_steps(time):
    clock = StepClock(generate_every=4)
    for first in (20.0, 2.0, 20.0, 2.0):
        step(time, clock, wait=0.0, batches=(first, 2.0), optimizer=1.0, after=1.0)
    assert clock.take()["generation_share"] == pytest.approx(36 / 60)


@pytest.mark.parametrize("every", [0, 1])
def test_generation_in_each_micro_batch_cannot_be_told_apart(time, every):
    clock = StepClock(every)
    step(time, clock)
    assert "generation_share" not in clock.take()


@pytest.mark.parametrize(
    ("config", "every"),
    [
        ({}, 0),
        ({"steps_per_generation": 4, "num_iterations": 2}, 8),
        ({"steps_per_generation": None, "num_iterations": 1}, 0),
    ],
)
def test_micro_batches_per_generation(config, every):
    assert generate_every(config) == every
