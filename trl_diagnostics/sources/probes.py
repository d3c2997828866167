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

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainingArguments

from ..engine.finding import Record
from ..metrics.names import MetricMap
from .gradients import GradientProbe
from .memory import memory
from .signal_budget import SignalBudget
from .step_clock import StepClock
from .weights_probe import WeightsProbe, nonfinite_parameters


GROUPS = ("grpo", "rloo")  # trainers with groups of completions
EVERY = 10  # optimizer steps between two looks at weights and memory, so that they cost next to nothing per step


class Probes:
    """
    Everything that is measured of one training beside what the trainer logs.

    Args:
        args (`TrainingArguments`):
            Of the training.
        metric_map ([`MetricMap`]):
            Names of what the trainer logs.
        clock ([`StepClock`]):
            Told what happens when.
        guard ([`Guard`]):
            Calls a probe so that its errors go no further.

    Attributes:
        step_is_bad (`bool`):
            Whether the gradients that were looked at last are NaN or infinite.
    """

    def __init__(self, args: TrainingArguments, metric_map: MetricMap, clock: StepClock, guard: Callable):
        self.metric_map, self.clock, self.guard, self.device = metric_map, clock, guard, args.device
        # a gradient scaler skips the steps whose gradients overflow, as it is meant to
        self.gradients = None if args.mixed_precision == "fp16" else GradientProbe()
        self.weights: WeightsProbe | None = None
        self.signal: SignalBudget | None = None
        self.step = 0  # of the last look at weights and memory
        self.step_is_bad = False

    def begin(self, step: int, model: torch.nn.Module | None, trainer: Any) -> None:
        """Training begins after `step`, as the method of `trainer` if one is known."""
        self.step = step
        # DeepSpeed updates copies of its own in float32, of which those of the model are rounded
        if model is not None and not (trainer is not None and trainer.is_deepspeed_enabled):
            self.weights = WeightsProbe(model)
        if self.metric_map.trainer in GROUPS and trainer is not None:
            self.signal = SignalBudget(trainer)

    def end(self) -> None:
        """Training is over: hold on to no model and no trainer. Logs of an evaluation may still come."""
        self.gradients = self.weights = self.signal = None

    def before_optimizer_step(self, step: int, model: torch.nn.Module) -> Record | None:
        """Look at the gradients of a step; a record for the first bad ones since the last log."""
        self.step_is_bad = False
        if self.gradients is None:
            return None
        if self.weights is not None and step >= self.step + EVERY:
            self.gradients.count_missing(self.weights.parameters)
        known, bad = self.gradients.bad, self.gradients.check(model)
        self.step_is_bad = bad is not None
        if bad is None or known is not None:
            return None
        ruined = self.guard("weights probe", nonfinite_parameters, model)  # then the gradients are no cause
        metrics = {**bad.metrics(), "gradients": float(bad.total), "nonfinite_parameters": ruined}
        return Record(step, time.time(), "probe", metrics)

    def after_step(self) -> None:
        """Look at what was generated for a step."""
        if self.signal is not None:
            self.guard("signal budget", self.signal.look)

    def record(self, step: int, logs: dict[str, Any], model: torch.nn.Module | None) -> Record:
        """
        What the trainer logs, and what there is to add to it.

        Args:
            step (`int`):
                Optimizer step.
            logs (`dict`):
                As `on_log` receives them.
            model (`torch.nn.Module`, *optional*):
                Model being trained.
        """
        metrics = self.metric_map.record(logs)
        phase = self.metric_map.phase_of(metrics)
        if phase in ("train", "eval") and model is not None:
            # None, so that the record is the same, once the probe has been switched off
            metrics["nonfinite_parameters"] = self.guard("weights probe", nonfinite_parameters, model)
        if phase == "train":
            metrics |= self.clock.take()
            if self.gradients is not None:
                metrics |= self.gradients.take()
            if self.signal is not None:
                metrics |= self.signal.take()
            metrics |= self.guard("probes", self._look, step) or {}
        return Record(step, time.time(), phase, metrics)

    def _look(self, step: int) -> dict[str, float]:
        """Now and then at what takes longer."""
        if self.weights is None or step < self.step + EVERY:
            return {}
        steps, self.step = step - self.step, step
        found = memory(self.device) | self.weights.look(steps)
        if self.gradients is not None and self.gradients.without is not None:
            found["parameters_without_gradient"] = self.gradients.without
        return found
