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

"""The probe of the gradients: what clipping leaves of NaN and infinity, and what it says of them."""

import math
import time

import pytest
import torch
from torch import nn

from trl_diagnostics.sources.gradients import BadGradients, GradientProbe, drop_gradients


def model():
    return nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 1))


def with_gradients(value=None, where=(0, "weight"), clip=1.0):
    """A model after a backward pass and clipping as the Trainer does it, one element of a gradient replaced before."""
    torch.manual_seed(0)
    probed = model()
    probed(torch.randn(5, 4)).square().sum().backward()
    if value is not None:
        getattr(probed[where[0]], where[1]).grad.view(-1)[0] = value
    torch.nn.utils.clip_grad_norm_(probed.parameters(), clip)
    return probed


@pytest.mark.parametrize("clip", [1.0, 1e-3, math.inf])
def test_healthy_gradients(clip):
    probe = GradientProbe()
    assert probe.check(with_gradients(clip=clip)) is None
    assert probe.take() == {"nonfinite_gradients/2.bias": 0.0}


@pytest.mark.parametrize("where", [(0, "weight"), (1, "bias"), (2, "bias")])
@pytest.mark.parametrize("clip", [1.0, math.inf])
def test_one_nan_is_in_all_gradients_after_clipping(where, clip):
    probe = GradientProbe()
    assert probe.check(with_gradients(math.nan, where, clip)) == BadGradients("0.weight", 6, 6)


@pytest.mark.parametrize("where", ["0.weight", "1.bias", "2.bias"])
def test_an_infinite_gradient_is_named_after_clipping(where):
    """Clipping multiplies the others by 1 / inf."""
    probe, (layer, name) = GradientProbe(), where.split(".")
    assert probe.check(with_gradients(math.inf, (int(layer), name))) == BadGradients(where, 1, 6)


def test_an_infinite_gradient_without_a_limit_ruins_all():
    assert GradientProbe().check(with_gradients(-math.inf, clip=math.inf)) == BadGradients("0.weight", 6, 6)


def test_gradients_that_are_all_zero_are_finite():
    """A group of completions with equal rewards."""
    probed, probe = with_gradients(), GradientProbe()
    for parameter in probed.parameters():
        parameter.grad.zero_()
    assert probe.check(probed) is None


def test_a_large_gradient_is_finite():
    probed, probe = with_gradients(), GradientProbe()
    for parameter in probed.parameters():
        parameter.grad.fill_(3e38)  # their sum is not
    assert probe.check(probed) is None


def test_large_gradients_hide_no_bad_one():
    probed, probe = with_gradients(), GradientProbe()
    for parameter in probed.parameters():
        parameter.grad.fill_(3e38)
    probed[1].weight.grad[2] = -math.inf
    probed[2].bias.grad[0] = math.nan
    assert probe.check(probed) == BadGradients("1.weight", 2, 6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_large_gradients_of_16_bits(dtype):
    probed, probe = model().to(dtype), GradientProbe()
    for parameter in probed.parameters():
        parameter.grad = torch.full_like(parameter, torch.finfo(dtype).max)
    assert probe.check(probed) is None


def test_all_gradients_are_read_at_the_speed_of_the_memory():
    """As they are in each step without a reward gradient, where all of them are zero."""
    wide = nn.Linear(4096, 4096)
    wide.weight.grad, wide.bias.grad = torch.zeros(4096, 4096), torch.zeros(4096)
    probe, took = GradientProbe(), []
    for work in (lambda: probe.check(wide), lambda: wide.weight.grad.norm(math.inf)) * 5:
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    assert min(took[::2]) < min(took[1::2])


def test_a_step_is_told_once_and_over_with_the_next_log():
    probe, probed = GradientProbe(), with_gradients()
    probe.check(probed)
    for bad in (with_gradients(math.nan), with_gradients(math.inf, (1, "bias"))):
        for parameter, other in zip(probed.parameters(), bad.parameters(), strict=True):
            parameter.grad = other.grad
        probe.check(probed)
    assert probe.bad == BadGradients("0.weight", 6, 6)
    assert probe.take() == {
        "nonfinite_gradients/2.bias": 0.0,
        "nonfinite_gradients/0.weight": 6.0,
        "nonfinite_gradients/1.bias": 0.0,
    }
    assert set(probe.take().values()) == {0.0}


def test_names_do_not_grow_without_end():
    wide = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(20))
    probe = GradientProbe()
    for bad in wide:
        for layer in wide:
            layer.weight.grad = torch.zeros(2, 2)
        bad.weight.grad[0, 0] = math.nan
        assert probe.check(wide).count == 1
    assert len(probe.take()) <= 6


def test_a_model_without_gradients_says_nothing():
    probe = GradientProbe()
    assert probe.check(model()) is None
    assert probe.take() == {}


def test_a_witness_that_gets_no_gradient_any_more():
    probe, probed = GradientProbe(), with_gradients()
    probe.check(probed)
    probed[2].bias.grad = None
    probed[0].weight.grad[0, 0] = math.nan
    probed[1].bias.grad.fill_(math.nan)
    assert probe.check(probed) == BadGradients("0.weight", 2, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_precision(dtype):
    probed = model().to(dtype)
    for parameter in probed.parameters():
        parameter.grad = torch.ones_like(parameter)
    probe = GradientProbe()
    assert probe.check(probed) is None
    for parameter in probed.parameters():
        parameter.grad.fill_(math.nan)
    assert probe.check(probed).count == 6


def test_parameters_that_get_no_gradient():
    probe, probed = GradientProbe(), with_gradients()
    probe.count_missing(probed.parameters())
    assert probe.without == 0.0
    probed[0].weight.grad = probed[0].bias.grad = None
    probe.count_missing(probed.parameters())
    assert probe.without == pytest.approx(2 / 6)
    probed[1].weight.data = torch.empty(0)  # on another rank
    probed[1].weight.grad = None
    probe.count_missing(probed.parameters())
    assert probe.without == pytest.approx(2 / 5)
    probe.count_missing(model().parameters())
    assert probe.without is None  # they are somewhere else (DeepSpeed), or there is no trained parameter


def test_an_optimizer_step_without_gradients_changes_nothing():
    probed = with_gradients()
    adam = torch.optim.AdamW(probed.parameters(), lr=0.1, weight_decay=0.1)
    adam.step()
    before = [parameter.detach().clone() for parameter in probed.parameters()]
    drop_gradients(probed)
    adam.step()
    assert all(map(torch.equal, before, probed.parameters()))


def test_gradients_weights_and_random_state_are_left_alone():
    probed = with_gradients(math.nan)
    before = [p.detach().clone() for p in probed.parameters()] + [p.grad.clone() for p in probed.parameters()]
    state = torch.random.get_rng_state()
    GradientProbe().check(probed)
    after = [*probed.parameters(), *(p.grad for p in probed.parameters())]
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(before, after, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())
