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

"""The memory of this process, as it is and as it grows."""

import os

import psutil
import torch

from trl_diagnostics.sources import memory as module
from trl_diagnostics.sources.memory import GIB, memory


def test_the_memory_of_the_host():
    before = memory(torch.device("cpu"))
    assert before.keys() == {"cpu_memory"}
    assert 0.1 < before["cpu_memory"] <= psutil.virtual_memory().total / GIB
    held = torch.ones(GIB // 16)  # a quarter of a GiB
    assert 0.2 < memory(torch.device("cpu"))["cpu_memory"] - before["cpu_memory"] < 0.3
    del held


def test_the_memory_of_a_gpu(monkeypatch):
    stats = {
        "allocated_bytes.all.current": 30 * GIB,
        "allocated_bytes.all.peak": 60 * GIB,
        "reserved_bytes.all.current": 70 * GIB,
        "inactive_split_bytes.all.current": 5 * GIB,
        "num_alloc_retries": 2,
    }
    monkeypatch.setattr(module.torch.cuda, "memory_stats", lambda device: stats)
    monkeypatch.setattr(module.torch.cuda, "mem_get_info", lambda device: (6 * GIB, 80 * GIB))
    found = memory(torch.device("cuda", 0))
    assert found.pop("cpu_memory") > 0
    assert found == {
        "gpu_memory_allocated": 30.0,
        "gpu_memory_peak": 60.0,
        "gpu_memory_reserved": 70.0,
        "gpu_memory_fragmented": 5.0,
        "gpu_memory_headroom": 0.2,  # 6 free and 10 held for nothing
        "gpu_memory_retries": 2.0,
    }


def test_a_forked_process_has_a_memory_of_its_own():
    cpu = torch.device("cpu")
    memory(cpu)
    out, into = os.pipe()
    if (child := os.fork()) == 0:
        try:
            before, held = memory(cpu)["cpu_memory"], b"x" * 2**27
            os.write(into, f"{memory(cpu)['cpu_memory'] - before} {len(held)}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert 0.12 < float(os.read(out, 100).split()[0]) < 0.13
