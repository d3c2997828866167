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

"""What one run of the failure lab is: a trainer, what is wrong with it, and which rules are the right answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback


# A right answer that the logs cannot give: the recipe expects it all the same, so that calibration shows what is missing.
WANTED = frozenset({"sft_eos_not_learned_risk"})
FAULT_SEEDS, HEALTHY_SEEDS = (0, 9), (0, 1, 2, 3, 4, 6, 9, 11)  # see `corpus.FIRST_HELD_OUT`


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """
    One run of the lab, without its seed.

    Args:
        trainer (`str`):
            A trainer of `tiny.make_trainer`.
        fault (`str`, *optional*):
            Kind of fault; several trainers may have it. `None`: the run is healthy.
        variant (`str`, *optional*, defaults to `""`):
            What tells this run from others of the same trainer and fault.
        cause (`str`):
            How this comes about in practice; for a healthy run, what is special about it.
        expected (`tuple[str, ...]`, *optional*):
            Rules that are the right answer: one of them should fire, and before all others.
        symptoms (`tuple[str, ...]`, *optional*):
            Rules that may join. Any other finding is a false one.
        onset (`int`, *optional*, defaults to `1`):
            Optimizer step of the first log that can show the fault.
        steps (`int`, *optional*, defaults to `200`):
            Optimizer steps of the run.
        seeds (`tuple[int, ...]`, *optional*):
            Seeds of which the corpus holds a run: two of a fault and eight of health by default.
        overrides (`Mapping`, *optional*):
            Handed to `tiny.make_trainer`.
        build (`Callable[[int], dict]`, *optional*):
            More of them, made anew for each run from its seed: models, data, reward functions that count.
        prepare (`Callable[[Trainer], None]`, *optional*):
            Changes the trainer before it trains.
        callbacks (`tuple[Callable[[], TrainerCallback], ...]`, *optional*):
            Makers of callbacks that break something on the way.
        replay (`Callable[[int], list[dict]]`, *optional*):
            Instead of training: the logs, under TRL's exact keys, of a run that needs vLLM or several GPUs.
    """

    trainer: str
    fault: str | None = None
    variant: str = ""
    cause: str
    expected: tuple[str, ...] = ()
    symptoms: tuple[str, ...] = ()
    onset: int = 1
    steps: int = 200
    seeds: tuple[int, ...] = ()
    overrides: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[int], dict[str, Any]] | None = None
    prepare: Callable[[Any], None] | None = None
    callbacks: tuple[Callable[[], TrainerCallback], ...] = ()
    replay: Callable[[int], list[dict[str, Any]]] | None = None

    @property
    def name(self) -> str:
        """Unique name: fault, trainer and variant."""
        return "__".join(filter(None, (self.fault or "healthy", self.trainer, self.variant)))

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Seeds of which the corpus holds a run."""
        return self.seeds or (FAULT_SEEDS if self.fault else HEALTHY_SEEDS)

    def arguments(self, seed: int) -> dict[str, Any]:
        """All overrides of one run."""
        return {"max_steps": self.steps, "seed": seed, **self.overrides, **(self.build(seed) if self.build else {})}


def recipes(common: Mapping[str, Any], *rows: Mapping[str, Any]) -> list[Recipe]:
    """One recipe per row; a row adds to what all have in common, or replaces it."""
    return [Recipe(**{**common, **row}) for row in rows]


def label_of(recipe: Recipe, seed: int) -> dict:
    """What is known before the run: the part of a label that `--relabel` writes anew."""
    return {
        "name": recipe.name,
        "seed": seed,
        "fault": recipe.fault,
        "cause": recipe.cause,
        "onset": recipe.onset if recipe.fault else None,
        "expected": list(recipe.expected),
        "symptoms": list(recipe.symptoms),
        "variant": recipe.variant,
        "replayed": recipe.replay is not None,
    }
