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

"""A process goes in, the memory that it holds on the host and on its accelerator comes out, in GiB."""

import os
from functools import cache

import psutil
import torch


GIB = 2**30


def memory(device: torch.device) -> dict[str, float]:
    """
    Memory of this process.

    Args:
        device (`torch.device`):
            Where the model is trained.

    Returns:
        `dict[str, float]`: `cpu_memory` (resident); on CUDA also `gpu_memory_allocated`, its peak since the start
        `gpu_memory_peak`, `gpu_memory_reserved`, `gpu_memory_fragmented` (reserved, free, and in pieces that only fit
        smaller tensors), `gpu_memory_headroom` (share of the device that was free at the peak) and
        `gpu_memory_retries` (times an allocation failed until the cache was emptied, since the start); on MPS
        `gpu_memory_allocated` and `gpu_memory_reserved`. Costs some 10 us, on CUDA some 200 us.
    """
    found = {"cpu_memory": _process(os.getpid()).memory_info().rss / GIB}
    if device.type == "cuda":
        found |= _cuda(device)
    elif device.type == "mps":
        found["gpu_memory_allocated"] = torch.mps.current_allocated_memory() / GIB
        found["gpu_memory_reserved"] = torch.mps.driver_allocated_memory() / GIB
    return found


@cache
def _process(number: int) -> psutil.Process:
    """Kept, because to make one takes longer than to ask it; a forked process is another one."""
    return psutil.Process(number)


def _cuda(device: torch.device) -> dict[str, float]:
    stats, (free, total) = torch.cuda.memory_stats(device), torch.cuda.mem_get_info(device)
    allocated, reserved = stats["allocated_bytes.all.current"], stats["reserved_bytes.all.current"]
    peak = stats["allocated_bytes.all.peak"]
    return {
        "gpu_memory_allocated": allocated / GIB,
        "gpu_memory_peak": peak / GIB,
        "gpu_memory_reserved": reserved / GIB,
        "gpu_memory_fragmented": stats["inactive_split_bytes.all.current"] / GIB,
        "gpu_memory_headroom": (free + reserved - peak) / total,
        "gpu_memory_retries": float(stats["num_alloc_retries"]),
    }
