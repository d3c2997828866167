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

"""Training with the callback is bit for bit the training without it, on one process and on two."""

import random

import non_interference
import numpy as np
import pytest
import torch


SAME = dict.fromkeys(("weights", "optimizer", "logs", "python", "numpy", "torch"), True)


def test_the_comparison_sees_the_smallest_difference():
    tensor, array = torch.ones(3), np.ones(3)
    value = {"a": [tensor, {"b": array}], "c": (1, None, "x", 3.14)}
    same = {"c": (1, None, "x", 3.14), "a": [tensor.clone(), {"b": array.copy()}]}
    assert non_interference.digest(value) == non_interference.digest(same)
    same["a"][0][2] = torch.nextafter(tensor[2], torch.tensor(2.0))
    assert non_interference.digest(value) != non_interference.digest(same)
    assert non_interference.digest(torch.ones(2)) != non_interference.digest(torch.ones(2, dtype=torch.float64))
    state = random.getstate()
    random.random()
    assert non_interference.digest(random.getstate()) != non_interference.digest(state)
    random.setstate(state)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "processes"), [("sft", 1), ("grpo", 1), ("dpo", 2)])
def test_nothing_differs(kind, processes):
    assert non_interference.compare(kind, processes) == SAME


@pytest.mark.slow
def test_something_differs_when_a_probe_touches_the_training(tmp_path, monkeypatch):
    clean = non_interference.train("sft", True, str(tmp_path / "a"))
    monkeypatch.setattr("trl_diagnostics.sources.probes.memory", lambda device: {"cpu_memory": random.random()})
    touched = non_interference.train("sft", True, str(tmp_path / "b"))
    assert {part for part in clean if clean[part] != touched[part]} == {"python"}
