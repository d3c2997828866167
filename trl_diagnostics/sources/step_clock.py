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

"""What the Trainer does between its steps goes in, as events; where the time of a step goes comes out."""

import time
from statistics import median
from typing import Any


def generate_every(config: dict[str, Any]) -> int:
    """Micro-batches per generation of GRPO and RLOO (`_prepare_inputs` in trl/trainer/grpo_trainer.py); otherwise 0."""
    return (config.get("steps_per_generation") or 0) * (config.get("num_iterations") or 0)


class StepClock:
    """
    Splits the time of the optimizer steps since the last log.

    The events of the Trainer allow: waiting for data (from the end of what followed a step to the next step), forward
    and backward passes (with generation, where a trainer generates within its step), the optimizer, and what follows a
    step: logging, evaluation and saving. Times are those of the process: on a GPU the optimizer's part contains kernels
    of the backward pass that are still running.

    Args:
        generate_every (`int`, *optional*):
            Micro-batches per generation, for trainers that generate within their steps. With more than one, the
            micro-batch that generates takes longer than the others by the time of the generation.
    """

    def __init__(self, generate_every: int = 0):
        self.generate_every = generate_every
        self._batches = 0  # micro-batches since the start
        self._reset(time.perf_counter())

    def _reset(self, now: float) -> None:
        self._began = self._last = now
        self._steps = 0
        self._parts = dict.fromkeys(("data_wait", "compute", "optimizer", "overhead"), 0.0)
        self._generating: list[float] = []  # durations of the micro-batches that generate
        self._training: list[float] = []  # and of the others

    def _add(self, part: str) -> None:
        now = time.perf_counter()
        self._parts[part] += now - self._last
        self._last = now

    def step_begins(self) -> None:
        """The data of a step are there."""
        self._add("data_wait")

    def batch_ends(self) -> None:
        """Forward and backward pass of a micro-batch are done."""
        now = time.perf_counter()
        if self.generate_every > 1:
            generates = self._batches % self.generate_every == 0
            (self._generating if generates else self._training).append(now - self._last)
        self._batches += 1
        self._add("compute")

    def optimizer_ends(self) -> None:
        """The weights are updated."""
        self._add("optimizer")

    def step_ends(self) -> None:
        """A step is over; logging, evaluation and saving may follow."""
        self._add("overhead")
        self._steps += 1

    def rest_ends(self) -> None:
        """Logging, an evaluation or a save is over."""
        self._add("overhead")

    def take(self) -> dict[str, float]:
        """
        Where the time since the last call went.

        Returns:
            `dict[str, float]`: `step_seconds` per optimizer step, and the shares of it; empty without a step.
        """
        self._add("overhead")
        whole, steps = self._last - self._began, self._steps
        if not steps or whole <= 0:
            return {}
        shares = {f"{part}_share": seconds / whole for part, seconds in self._parts.items()}
        if self._generating and self._training:
            usual = median(self._training)
            generation = sum(max(seconds - usual, 0.0) for seconds in self._generating)
            shares["generation_share"] = generation / whole
        self._reset(self._last)
        return {"step_seconds": whole / steps, **shares}
