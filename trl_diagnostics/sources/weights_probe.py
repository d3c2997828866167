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

"""A model goes in; whether its weights are finite, and how far they moved, comes out. Nothing of it is touched."""

import math
from collections.abc import Sequence

import torch
from torch.distributed.tensor import DTensor


TENSORS, ELEMENTS = 48, 16  # looked at: so many tensors, so many elements of each
ADAPTER_OUTPUTS = ("lora_B", "lora_embedding_B")  # start at zero (peft/tuners/lora/layer.py)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a sharded tensor that is on this rank."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def nonfinite_parameters(model: torch.nn.Module) -> float | None:
    """
    How many trainable parameter tensors are NaN or infinite, judged by one element of each.

    One element is enough for the usual way to die: gradient clipping multiplies every gradient by the same NaN norm,
    so one optimizer step ruins whole tensors at once. Reading all of them would cost as much as an optimizer step. Of
    sharded tensors the part on this rank counts.

    Args:
        model (`torch.nn.Module`):
            Model being trained.

    Returns:
        `float` or `None`: the number of tensors; `None` where no element is on this rank (DeepSpeed ZeRO-3). Costs a few
        microseconds per tensor and, on a GPU, one synchronisation.
    """
    samples: dict[torch.device, list[torch.Tensor]] = {}
    with torch.no_grad():
        for parameter in trained(model):
            part = local_part(parameter)
            if part.numel():
                samples.setdefault(part.device, []).append(part.as_strided((1,), (1,)))  # far cheaper than an index
        read = [value for some in samples.values() for value in torch.cat(some).tolist()]
    return float(sum(not math.isfinite(value) for value in read)) if read else None


def trained(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that are trained; as `model.parameters()`, which also makes all names, at half the cost."""
    found: dict[int, torch.nn.Parameter | None] = {}
    modules, seen = [model], set()
    while modules:
        module = modules.pop()
        if module is not None and module not in seen:
            seen.add(module)
            modules += module._modules.values()
            for parameter in module._parameters.values():
                found[id(parameter)] = parameter  # a dict per module would double the time
    return [parameter for parameter in found.values() if parameter is not None and parameter.requires_grad]


class WeightsProbe:
    """
    Compares a sample of the trained weights with what it was at the last look.

    Args:
        model (`torch.nn.Module`):
            Model being trained, at the start of the training.
    """

    def __init__(self, model: torch.nn.Module):
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [parameter for _, parameter in named]
        adapters = [p for name, p in named if any(part in name for part in ADAPTER_OUTPUTS)]
        of_adapters = {id(parameter) for parameter in adapters}
        others = [parameter for parameter in self.parameters if id(parameter) not in of_adapters]
        self._adapters = _spread(adapters, TENSORS // 3)
        self._sampled = [*self._adapters, *_spread(others, TENSORS - len(self._adapters))]
        numbers = sum(parameter.numel() for parameter in self.parameters)
        half = sum(parameter.numel() for parameter in self.parameters if parameter.element_size() == 2)
        self._half = half / numbers if numbers else 0.0
        self._before = self._sample()

    def _sample(self) -> list[torch.Tensor]:
        """One tensor on the CPU per sampled parameter."""
        with torch.no_grad():
            parts = [_elements(local_part(parameter)) for parameter in self._sampled]
            if len({(part.device, part.dtype) for part in parts}) > 1:
                return [part.double().cpu() for part in parts]
            # one copy from the device for all
            return list(torch.cat(parts).cpu().double().split([len(part) for part in parts])) if parts else []

    def look(self, steps: int) -> dict[str, float]:
        """
        How the weights changed since the last look.

        Args:
            steps (`int`):
                Optimizer steps since then.

        Returns:
            `dict[str, float]`: `weights_changed`, the share of the elements looked at that are not what they were;
            `update_ratio`, their relative change per step (L2 norms); `half_precision_parameters`, the share of the
            trained numbers that have 16 bits; with a LoRA adapter `adapter_at_zero`, the share of its output matrices
            that are still zero. Empty where no weight is on this rank.
        """
        before, self._before = self._before, self._sample()
        if sum(map(len, self._before)) == 0 or list(map(len, before)) != list(map(len, self._before)):
            return {}
        then, now = torch.cat(before), torch.cat(self._before)
        found = {
            "weights_changed": (now != then).double().mean().item(),
            "half_precision_parameters": self._half,
        }
        if (norm := then.norm().item()) > 0:
            found["update_ratio"] = (now - then).norm().item() / norm / steps
        if self._adapters:
            zero = [not tensor.any() for tensor in self._before[: len(self._adapters)] if len(tensor)]
            found["adapter_at_zero"] = sum(zero) / len(zero) if zero else 0.0
        return found


def _spread(items: Sequence[torch.nn.Parameter], most: int) -> list[torch.nn.Parameter]:
    """At most so many of them, from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[i * (len(items) - 1) // (most - 1)] for i in range(most)]


def _elements(tensor: torch.Tensor) -> torch.Tensor:
    """Some elements, from the first to the last; a view where that is possible."""
    if not tensor.is_contiguous():
        tensor = tensor.contiguous()
    count = min(tensor.numel(), ELEMENTS)
    return tensor.as_strided((count,), (max(tensor.numel() // max(count, 1), 1),))
