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

"""What the Trainer tells its callbacks goes in; numbers about gradients, weights, time and memory come out."""

from typing import Any

import torch
from transformers import TrainingArguments

from .gradients import BadGradients, GradientProbe
from .memory import memory
from .step_clock import StepClock
from .weights_probe import WeightsProbe


EVERY = 10  # optimizer steps between two looks at weights and memory, so that they cost next to nothing per step


class Probes:
    """
    Everything that is measured of one training beside what the trainer logs.

    Args:
        args (`TrainingArguments`):
            Of the training.
        config (`dict`):
            The same, for arguments that only some trainers have.
        model (`torch.nn.Module`):
            Model being trained.

    Attributes:
        clock ([`StepClock`]):
            Told what happens when.
    """

    def __init__(self, args: TrainingArguments, config: dict[str, Any], model: torch.nn.Module):
        # GRPO and RLOO generate for several micro-batches at once (trl/trainer/grpo_trainer.py, _prepare_inputs)
        batches, iterations = (config.get(name) or 0 for name in ("steps_per_generation", "num_iterations"))
        self.clock = StepClock(batches * iterations)
        self.device = args.device
        # a gradient scaler skips the steps whose gradients overflow, as it is meant to
        self.gradients = None if args.fp16 else GradientProbe()
        self.weights = WeightsProbe(model)
        self.step = 0  # of the last look

    def before_optimizer_step(self, step: int, model: torch.nn.Module) -> BadGradients | None:
        """Look at the gradients of a step."""
        if self.gradients is None:
            return None
        if step >= self.step + EVERY:
            self.gradients.count_missing(self.weights.parameters)
        return self.gradients.check(model)

    def at_log(self, step: int, model: torch.nn.Module) -> dict[str, float | None]:
        """
        What there is to say at a log of the training.

        Args:
            step (`int`):
                Optimizer step.
            model (`torch.nn.Module`):
                Model being trained.

        Returns:
            `dict[str, float | None]`: canonical name to value.
        """
        found: dict[str, float | None] = {**self.clock.take()}
        if self.gradients is not None:
            found |= self.gradients.take()
        if step >= self.step + EVERY:
            found |= memory(self.device) | self.weights.look(step - self.step)
            if self.gradients is not None and self.gradients.without is not None:
                found["parameters_without_gradient"] = self.gradients.without
            self.step = step
        return found
