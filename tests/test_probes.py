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

"""The probe of the weights: what it counts, and that it changes nothing."""

import math

import pytest
import tiny
import torch
from torch import nn

from trl_diagnostics.sources.probes import nonfinite_parameters


def model():
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))


def test_a_healthy_model_has_none():
    assert nonfinite_parameters(model()) == 0.0
    assert isinstance(nonfinite_parameters(tiny.tiny_model()), float)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_each_ruined_tensor_counts_once(value):
    broken = model()
    with torch.no_grad():
        broken[0].weight.fill_(value)
        broken[2].bias.fill_(value)
    assert nonfinite_parameters(broken) == 2.0


def test_frozen_parameters_do_not_count():
    broken = model()
    with torch.no_grad():
        broken[0].weight.fill_(math.nan)
    broken[0].requires_grad_(False)
    assert nonfinite_parameters(broken) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision(dtype):
    broken = model().to(dtype)
    assert nonfinite_parameters(broken) == 0.0
    with torch.no_grad():
        broken[1].weight.fill_(math.nan)
    assert nonfinite_parameters(broken) == 1.0


def test_mixed_precisions():
    mixed = model()
    mixed[0].to(torch.bfloat16)
    assert nonfinite_parameters(mixed) == 0.0


def test_a_tensor_that_several_layers_share_counts_once():
    shared = nn.Linear(3, 3)
    tied = nn.Sequential(shared, nn.Linear(3, 3, bias=False), shared)
    tied[1].weight = shared.weight
    with torch.no_grad():
        shared.weight.fill_(math.nan)
    assert nonfinite_parameters(tied) == 1.0


def test_a_tensor_that_is_a_part_of_another_one():
    odd = nn.Module()
    odd.column = nn.Parameter(torch.tensor([[1.0, math.nan], [2.0, math.nan]])[:, 1])
    odd.turned = nn.Parameter(torch.tensor([[math.inf, 1.0], [2.0, 3.0]]).T)
    assert nonfinite_parameters(odd) == 2.0


def test_empty_and_scalar_parameters():
    odd = nn.Module()
    odd.empty, odd.scalar = nn.Parameter(torch.empty(0)), nn.Parameter(torch.tensor(math.nan))
    assert nonfinite_parameters(odd) == 1.0


def test_nothing_to_look_at_is_not_healthy():
    """A model without parameters, and DeepSpeed ZeRO-3, which leaves empty tensors on each rank."""
    assert nonfinite_parameters(nn.Identity()) is None
    elsewhere = model()
    for parameter in elsewhere.parameters():
        parameter.data = torch.empty(0)
    assert nonfinite_parameters(elsewhere) is None


def test_gradients_random_state_and_weights_are_left_alone():
    probed = model()
    probed(torch.ones(1, 4)).sum().backward()
    before = [parameter.detach().clone() for parameter in probed.parameters()]
    gradients = [parameter.grad.clone() for parameter in probed.parameters()]
    state = torch.random.get_rng_state()
    nonfinite_parameters(probed)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(map(torch.equal, before, probed.parameters()))
    assert all(map(torch.equal, gradients, (parameter.grad for parameter in probed.parameters())))
