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

"""Ways to break a trainer that several fault families use: callbacks, and changes made before training starts."""

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback


class AtStep(TrainerCallback):
    """
    Does something to the model once, when an optimizer step ends.

    Args:
        step (`int`):
            The step.
        action (`Callable[[torch.nn.Module], None]`):
            What is done.
    """

    def __init__(self, step: int, action: Callable[[torch.nn.Module], None]):
        self.step, self.action = step, action

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                self.action(model)


class NanGradients(TrainerCallback):
    """
    Gradients turn to NaN after clipping, as in a reduction that overflows.

    Args:
        step (`int`):
            Number of steps that are done by then.
    """

    def __init__(self, step: int):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            for parameter in model.parameters():
                parameter.grad.fill_(math.nan)


class NanBetweenMicroBatches(TrainerCallback):
    """
    Weights turn to NaN between two micro-batches of one step.

    Args:
        step (`int`):
            Number of steps that are done by then.
    """

    def __init__(self, step: int):
        self.step = step

    def on_substep_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            fill_with_nan(model)


def fill_with_nan(model: torch.nn.Module) -> None:
    """Every weight becomes NaN."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)


def shake(scale: float) -> Callable[[torch.nn.Module], None]:
    """An action that adds noise to every weight, as one far too large update does."""

    def action(model: torch.nn.Module) -> None:
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)

    return action


def cut_gradients(trainer: Any) -> None:
    """No gradient reaches the weights."""
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * 0)


def scale_loss(factor: Callable[[int], float]) -> Callable[[Any], None]:
    """Multiply the loss of each call of `compute_loss`, counted from 1, by a factor."""

    def prepare(trainer: Any) -> None:
        inner, calls = trainer.compute_loss, 0

        def compute_loss(*args, **kwargs):
            nonlocal calls
            calls += 1
            return inner(*args, **kwargs) * factor(calls)

        trainer.compute_loss = compute_loss

    return prepare


def change_batches(change: Callable[[dict], None], start: int = 0) -> Callable[[Any], None]:
    """Change every batch that the data collator makes after the first `start`."""

    def prepare(trainer: Any) -> None:
        inner, calls = trainer.data_collator, 0

        def collate(rows):
            nonlocal calls
            calls += 1
            batch = inner(rows)
            if calls > start:
                change(batch)
            return batch

        trainer.data_collator = collate

    return prepare
