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

"""
A real training goes in; what each probe costs per step comes out, in microseconds and as a share of the step. This is
processor time of the thread that trains, so that other programs on the machine do not count.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from functools import wraps
from statistics import median
from unittest.mock import patch

import datasets
import tiny
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from trl_diagnostics import DiagnosticsCallback, callback
from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.sinks.run_dir import RunDir
from trl_diagnostics.sources import probes
from trl_diagnostics.sources.gradients import GradientProbe
from trl_diagnostics.sources.signal_budget import SignalBudget
from trl_diagnostics.sources.step_clock import StepClock
from trl_diagnostics.sources.weights_probe import WeightsProbe


KINDS = ("sft", "dpo", "grpo")
EVENTS = [name for name in vars(DiagnosticsCallback) if name.startswith("on_") and "train" not in name]
# Row of the table -> what it times. `record` is what it takes besides the rows above it.
RECORD = {
    "nonfinite_parameters": [(probes, "nonfinite_parameters")],
    "weights": [(WeightsProbe, "look")],
    "memory": [(probes, "memory")],
    "clock, at a log": [(StepClock, "take")],
    "signal budget, at a log": [(SignalBudget, "take")],
    "record": [(GradientProbe, "take"), (probes.Probes, "record")],
}
STEP = {
    "gradients": [
        (GradientProbe, "check"),
        (GradientProbe, "count_missing"),
        (probes.Probes, "before_optimizer_step"),
    ],
    "clock": [(StepClock, name) for name in ("step_begins", "batch_ends", "optimizer_ends", "step_ends", "rest_ends")],
    "signal budget": [(SignalBudget, "look"), (probes.Probes, "after_step")],
}
REST = {
    "rules": [(Engine, "update")],
    "files": [(RunDir, "write_record"), (RunDir, "write_finding")],
    "callback": [(DiagnosticsCallback, name) for name in EVENTS],
}
ONCE = {
    "preflight": [(callback, "look_before")],
    "first look at the weights": [(probes.Probes, "begin")],
    "start of the record": [(DiagnosticsCallback, "on_train_begin")],
}


class Times:
    """
    How long calls take, without the timed calls within them.

    Attributes:
        seconds (`dict[tuple[object, str], list[float]]`):
            Owner and name of a function to what its calls took.
    """

    def __init__(self):
        self.seconds: dict[tuple[object, str], list[float]] = defaultdict(list)
        self._within = [0.0]

    def timed(self, key: tuple[object, str], function: Callable) -> Callable:
        """The function, timed under this key."""

        @wraps(function)
        def call(*args, **kwargs):
            self._within.append(0.0)
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.thread_time() - began
                self.seconds[key].append(took - self._within.pop())
                self._within[-1] += took

        return call

    @contextmanager
    def of_everything(self):
        """Time all rows of the table."""
        with ExitStack() as patches:
            for owner, name in [key for keys in {**RECORD, **STEP, **REST, **ONCE}.values() for key in keys]:
                function = self.timed((owner, name), vars(owner)[name])
                patches.enter_context(patch.object(owner, name, function))
            yield

    def per_step(self, keys: list[tuple[object, str]], steps: int) -> float:
        """Microseconds per step: the median call of each function, as often as it was called."""
        calls = [self.seconds[key] for key in keys if self.seconds[key]]
        return sum(1e6 * median(took) * len(took) for took in calls) / steps


class Steps(TrainerCallback):
    """Remembers when each step begins."""

    def __init__(self):
        self.began: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.began.append(time.thread_time())

    def median(self) -> float:
        """Microseconds from one step to the next."""
        return 1e6 * median(after - before for before, after in zip(self.began, self.began[1:], strict=False))


def large_model() -> Qwen2ForCausalLM:
    """An untrained model of 110 million parameters."""
    sizes = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "vocab_size": 32_000}
    heads = {"num_attention_heads": 12, "num_key_value_heads": 12}
    ids = {name: getattr(tiny.tiny_tokenizer(), name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, **ids, tie_word_embeddings=True))


def train(kind: str, steps: int, logging_steps: int, large: bool = False) -> tuple[Times, float]:
    """Train once with everything timed; also the microseconds of a step."""
    datasets.disable_progress_bars()
    times, marks = Times(), Steps()
    overrides = {"max_steps": steps, "logging_steps": logging_steps}
    if large:
        batch = {"per_device_train_batch_size": 2}
        overrides |= {"model": large_model(), **batch, **({"num_generations": 2} if kind == "grpo" else {})}
        if kind == "dpo":
            overrides["ref_model"] = large_model()
    with tempfile.TemporaryDirectory() as folder, times.of_everything():
        tiny.make_trainer(kind, folder, [marks, DiagnosticsCallback()], **overrides).train()
    return times, marks.median()


def rows_of(times: Times, steps: int) -> dict[str, float]:
    """Row of the table to its microseconds per step; `whole record`, `probes` and `everything` are sums."""
    step, record, rest = (
        {row: times.per_step(keys, steps) for row, keys in group.items()} for group in (STEP, RECORD, REST)
    )
    whole = sum(record.values())
    all_probes = sum(step.values()) + whole
    sums = {"whole record": whole, "probes": all_probes}
    return {**step, **record, **sums, **rest, "everything": all_probes + sum(rest.values())}


def print_table(name: str, rows: dict[str, float], step: float, once: dict[str, float]) -> None:
    """Print what one training showed."""
    print(f"\n{name}; a step takes {step:.0f} us")
    print(f"{'':>26} {'us per step':>12} {'% of step':>10}")
    for row, took in rows.items():
        print(f"{row:>26} {took:>12.1f} {100 * took / step:>10.3f}")
    print(", ".join(f"{what} once {1e-3 * took:.1f} ms" for what, took in once.items()))


def measure_probes(steps: int, large_steps: int, logging_steps: int) -> None:
    """Train each kind with the tiny model and with the large one, and print a table of each."""
    for large, number in ((False, steps), (True, large_steps)):
        for kind in KINDS if number else ():
            times, step = train(kind, number, logging_steps, large)
            once = {row: times.per_step(keys, 1) for row, keys in ONCE.items()}
            size = "110M" if large else "tiny"
            print_table(
                f"{kind}, {size}, {number} steps, a log every {logging_steps}", rows_of(times, number), step, once
            )
