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

from trl_diagnostics.sources.weights_probe import WeightsProbe, nonfinite_parameters, trained


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


def optimizer(model, lr=1e-3, cls=torch.optim.AdamW):
    return cls(trained(model), lr=lr)


def step(model, optimizer, times=10):
    for _ in range(times):
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_training_changes_nearly_all_weights():
    probed = model()
    probe = WeightsProbe(probed)
    before = torch.cat([p.detach().flatten()[:16].double() for p in probed.parameters()])
    step(probed, optimizer(probed))
    after = torch.cat([p.detach().flatten()[:16].double() for p in probed.parameters()])
    found = probe.look(10)
    assert found["weights_changed"] == pytest.approx((before != after).double().mean().item())
    assert found["update_ratio"] == pytest.approx((after - before).norm().item() / before.norm().item() / 10)
    assert found["half_precision_parameters"] == 0.0
    assert found.keys() == {"weights_changed", "update_ratio", "half_precision_parameters"}


def test_weights_that_nobody_updates():
    probed, other = model(), model()
    probe = WeightsProbe(probed)
    step(probed, optimizer(other))
    assert probe.look(10) == {"weights_changed": 0.0, "half_precision_parameters": 0.0, "update_ratio": 0.0}


def test_each_look_compares_with_the_one_before():
    probed = model()
    probe = WeightsProbe(probed)
    step(probed, optimizer(probed))
    assert probe.look(10)["weights_changed"] > 0.5
    assert probe.look(10)["weights_changed"] == 0.0


def test_16_bit_weights_swallow_small_updates():
    """AdamW moves each weight by about the learning rate; 0.2 % of a weight of 0.02 is 4e-5."""
    torch.manual_seed(0)
    changed = {}
    for dtype in (torch.float32, torch.bfloat16):
        probed = nn.Linear(256, 64, bias=False)
        nn.init.normal_(probed.weight, std=0.02)
        probed.to(dtype)
        probe, adam = WeightsProbe(probed), optimizer(probed, 1e-6)
        for _ in range(10):
            probed(torch.randn(4, 256, dtype=dtype)).square().sum().backward()
            adam.step()
            adam.zero_grad()
        found = probe.look(10)
        changed[found["half_precision_parameters"]] = found["weights_changed"]
    assert changed == {0.0: 1.0, 1.0: pytest.approx(0.0, abs=0.1)}


def test_a_few_elements_of_many_tensors_are_looked_at():
    many = nn.ModuleList(nn.Linear(100, 100) for _ in range(60))
    probe = WeightsProbe(many)
    sizes = [len(sample) for sample in probe._before]
    assert len(sizes) == 48 and set(sizes) == {16}
    assert len(probe.parameters) == 120


def adapter(zero):
    low = nn.Module()
    low.lora_A, low.lora_B = nn.Linear(4, 2, bias=False), nn.Linear(2, 4, bias=False)
    if zero:
        nn.init.zeros_(low.lora_B.weight)
    return low


def test_the_outputs_of_an_adapter_that_are_still_zero():
    both = nn.ModuleList([adapter(True), adapter(False), nn.Linear(4, 4).requires_grad_(False)])
    assert WeightsProbe(both).look(10)["adapter_at_zero"] == 0.5
    assert "adapter_at_zero" not in WeightsProbe(model()).look(10)


def test_nothing_to_look_at():
    assert WeightsProbe(nn.Identity()).look(10) == {}
    elsewhere = model()
    for parameter in elsewhere.parameters():
        parameter.data = torch.empty(0)
    assert WeightsProbe(elsewhere).look(10) == {}


def test_weights_that_come_and_go_between_two_looks():
    """DeepSpeed ZeRO-3 gathers the weights for a moment."""
    probed = model()
    probe = WeightsProbe(probed)
    whole = [parameter.data for parameter in probed.parameters()]
    for parameter in probed.parameters():
        parameter.data = torch.empty(0)
    assert probe.look(10) == {}
    for parameter, data in zip(probed.parameters(), whole, strict=True):
        parameter.data = data
    assert probe.look(10) == {}
    assert probe.look(10)["weights_changed"] == 0.0


def test_mixed_precisions_and_turned_tensors_are_sampled():
    mixed = model()
    mixed[0].to(torch.bfloat16)
    mixed[2].weight = nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    probe = WeightsProbe(mixed)
    assert probe.look(10)["half_precision_parameters"] == pytest.approx(15 / 28)
    with torch.no_grad():
        mixed[2].weight += 1
    assert probe.look(10)["weights_changed"] == pytest.approx(6 / 28)
