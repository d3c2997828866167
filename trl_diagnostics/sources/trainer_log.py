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

"""What a Trainer logs goes in, which phase of the training it is about comes out."""

from typing import Any


def phase_of(metrics: dict[str, Any], logs_loss: bool) -> str:
    """
    The phase of a record.

    Args:
        metrics (`dict[str, Any]`):
            Canonical name to value.
        logs_loss (`bool`):
            Whether each training log of this trainer has a `loss`.

    Returns:
        `str`: `"train"`, `"summary"` (the Trainer's last log), `"eval"`, or `"probe"` for what the user logs beside the
        trainer.
    """
    if "loss" in metrics:
        return "train"
    if "train_loss" in metrics:  # not `train_runtime`, which include_num_input_tokens_seen adds to every log
        return "summary"
    if any(name.startswith("eval_") for name in metrics):
        return "eval"
    return "probe" if logs_loss else "train"  # a trainer without `loss`
