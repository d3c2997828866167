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

"""The gradients of a model before an optimizer step go in; whether they are finite, and which is not, comes out."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from .weights_probe import local_part, trained


MOST_NAMES = 5


@dataclass(frozen=True)
class BadGradients:
    """
    Gradients of one optimizer step that are NaN or infinite.

    Args:
        first (`str`):
            Name of the first parameter, in the order of the model, whose gradient is not finite.
        count (`int`):
            Number of such parameters.
        total (`int`):
            Number of parameters with a gradient.
    """

    first: str
    count: int
    total: int

    def metrics(self) -> dict[str, float]:
        """The same as a metric."""
        return {f"nonfinite_gradients/{self.first}": float(self.count)}


class GradientProbe:
    """
    Looks at the gradients of each step after clipping, before they reach the weights.

    The Trainer always clips, with an infinite `max_norm` where `max_grad_norm` is 0, and clipping multiplies every
    gradient by `max_norm / norm`: a NaN norm makes all of them NaN, an infinite one makes the finite ones 0 (with an
    infinite `max_norm` all of them NaN). So one small gradient whose sum is finite and not 0 vouches for all. Only when it does
    not, all are looked at. Of sharded gradients the part on this rank counts.

    Attributes:
        bad ([`BadGradients`] or `None`):
            The first that was found since [`GradientProbe.take`].
        without (`float` or `None`):
            Share of the trained parameters that got no gradient in the step looked at by
            [`GradientProbe.count_missing`].
    """

    def __init__(self):
        self.bad: BadGradients | None = None
        self.without: float | None = None
        self._witness: torch.nn.Parameter | None = None
        self._names: dict[str, None] = {}  # of the witness, and of bad ones: a finding is over once its name is at 0

    def check(self, model: torch.nn.Module) -> BadGradients | None:
        """
        Look at the gradients of this step.

        Args:
            model (`torch.nn.Module`):
                Model being trained.

        Returns:
            [`BadGradients`] or `None`: `None` where all are finite, or none is on this rank. Costs the sum of one small
            tensor and, on a GPU, one synchronisation; where that is 0 or not finite, all gradients are read once.
        """
        if self._witness is None or self._witness.grad is None:
            self._choose_witness(model)
        if self._witness is None:
            return None
        total = local_part(self._witness.grad).sum().item()
        if math.isfinite(total) and total != 0:
            return None
        bad = _look_at_all(model)
        self.bad = self.bad or bad
        if bad is not None and len(self._names) < MOST_NAMES:
            self._names[bad.first] = None
        return bad

    def _choose_witness(self, model: torch.nn.Module) -> None:
        if all(parameter.grad is None for parameter in trained(model)):  # in each step with DeepSpeed: spare the names
            self._witness = None
            return
        named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
        named = [(name, p) for name, p in named if local_part(p.grad).numel()]
        name, self._witness = min(named, key=lambda item: local_part(item[1].grad).numel(), default=(None, None))
        if name is not None and not self._names:
            self._names[name] = None

    def count_missing(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Count the trained parameters that have no gradient."""
        # FSDP leaves nothing of a parameter on the ranks that hold another shard
        have = [parameter.grad is not None for parameter in parameters if parameter.numel()]
        self.without = 1 - sum(have) / len(have) if have and any(have) else None

    def take(self) -> dict[str, float]:
        """
        What was found since the last call.

        Returns:
            `dict[str, float]`: `nonfinite_gradients/<name>`, 0 for a parameter that was looked at, or the number of bad
            gradients under the name of the first.
        """
        bad, self.bad = self.bad, None
        found = {f"nonfinite_gradients/{name}": 0.0 for name in self._names}
        return {**found, **bad.metrics()} if bad else found


def drop_gradients(model: torch.nn.Module) -> None:
    """Have the optimizer step that follows change nothing: it leaves parameters without a gradient as they are."""
    for parameter in model.parameters():
        parameter.grad = None


def _look_at_all(model: torch.nn.Module) -> BadGradients | None:
    named = [(name, local_part(p.grad)) for name, p in model.named_parameters() if p.grad is not None]
    named = [(name, gradient) for name, gradient in named if gradient.numel()]
    groups: dict[tuple, list[int]] = {}
    for i, (_, gradient) in enumerate(named):
        groups.setdefault((gradient.device, gradient.dtype), []).append(i)
    bad = []
    for group in groups.values():
        norms = torch.stack(torch._foreach_norm([named[i][1] for i in group])).tolist()
        # a sum of squares overflows where all elements are finite, but takes a 20th of the time of the largest on a CPU
        suspects = [i for i, norm in zip(group, norms, strict=True) if not math.isfinite(norm)]
        bad += [i for i, finite in zip(suspects, _finite([named[i][1] for i in suspects]), strict=True) if not finite]
    return BadGradients(named[min(bad)][0], len(bad), len(named)) if bad else None


def _finite(tensors: list[torch.Tensor]) -> list[bool]:
    """Of each whether all of it is finite: NaN and infinity are among the smallest and the largest element."""
    if not tensors:
        return []
    smallest = torch.stack([tensor.amin() for tensor in tensors]).tolist()
    largest = torch.stack([tensor.amax() for tensor in tensors]).tolist()
    return [math.isfinite(low) and math.isfinite(high) for low, high in zip(smallest, largest, strict=True)]
