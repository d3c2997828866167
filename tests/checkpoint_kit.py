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

"""Checkpoints as the Trainer writes them, for tests."""

import json

import torch
from safetensors.torch import save_file


def checkpoint(folder, step, leave_out=(), tensor=None, layout="plain"):
    """A checkpoint as the Trainer writes it."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    save_file({"layer.weight": torch.ones(4, 4) if tensor is None else tensor}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step}, path / name)
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": []}))
    for name in leave_out:
        (path / name).unlink()
    return path
