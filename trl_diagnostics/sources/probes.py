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

"""A model goes in, numbers about it come out, without touching its weights or any random state."""

import math
from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor


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
        for parameter in _parameters(model):
            if not parameter.requires_grad:
                continue
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            if local.numel():
                samples.setdefault(local.device, []).append(local.as_strided((1,), (1,)))  # far cheaper than an index
        read = [value for some in samples.values() for value in torch.cat(some).tolist()]
    return float(sum(not math.isfinite(value) for value in read)) if read else None


def _parameters(model: torch.nn.Module) -> Iterable[torch.nn.Parameter]:
    """As `model.parameters()`, which also makes all names, at half the cost."""
    found: dict[int, torch.nn.Parameter] = {}
    modules, seen = [model], set()
    while modules:
        module = modules.pop()
        if module is not None and module not in seen:
            seen.add(module)
            modules += module._modules.values()
            found |= {id(parameter): parameter for parameter in module._parameters.values() if parameter is not None}
    return found.values()
