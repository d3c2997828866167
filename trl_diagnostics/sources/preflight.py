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

"""A trainer that is about to train goes in; numbers about its model, data and reward functions come out, before step 1."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from .preflight_data import DATA_CHECKS
from .preflight_model import MODEL_CHECKS
from .preflight_rewards import REWARD_CHECKS
from .preflight_rows import forget
from .unseen import Unseen


SECONDS = 10.0  # a check that would begin later is left out; none of them takes more than a second or two by itself


@dataclass(frozen=True)
class Preflight:
    """
    What was seen of a training before its first step.

    Args:
        metrics (`dict[str, float]`):
            Canonical name to value.
        unseen (`dict[str, str]`):
            Check to what it could not see, and why.
        seconds (`dict[str, float]`):
            Check to how long it took.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def look_before(trainer: Trainer, guard: Callable[..., Any]) -> Preflight:
    """
    Look at a training before its first step: nothing of it changes, no random state either.

    Args:
        trainer (`Trainer`):
            Trainer as it is when training begins, or before; then it has no optimizer yet.
        guard ([`Guard`]):
            Calls a check so that its errors go no further.
    """
    seen, deadline = Preflight(), time.monotonic() + SECONDS
    forget()  # the trainer may have changed since
    with untouched_random_states():
        for name, check in {**MODEL_CHECKS, **DATA_CHECKS, **REWARD_CHECKS}.items():
            began = time.monotonic()
            if began > deadline:
                seen.unseen[name] = f"left out, the others took {SECONDS:.0f} s"
                continue
            found, why = guard(f"preflight, {name}", _look, check, trainer) or ({}, "failed with an error of its own")
            seen.metrics.update(found)
            if why:
                seen.unseen[name] = why
            seen.seconds[name] = round(time.monotonic() - began, 4)
    forget()
    return seen


def _look(check: Callable[[Trainer], dict[str, float]], trainer: Trainer) -> tuple[dict[str, float], str]:
    """What a check found, and why it could not see the rest."""
    try:
        return check(trainer), ""
    except Unseen as why:
        return why.seen, str(why)


@contextmanager
def untouched_random_states() -> Iterator[None]:
    """Put the random states of Python, NumPy and torch (all devices) back at the end."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
