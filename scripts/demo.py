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

"""Four short runs go in, three of them broken; what `DiagnosticsCallback` says about each comes out."""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path


os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import datasets
import tiny
import transformers
from transformers import PrinterCallback, TrainerControl, TrainerState
from trl import GRPOConfig

from trl_diagnostics import DiagnosticsCallback


FOLDER = Path(tempfile.gettempdir()) / "trl_diagnostics_demo"


def title(text: str) -> None:
    """A heading before each run."""
    print(f"\n=== {text}", flush=True)


def train(kind: str, name: str, callback: DiagnosticsCallback, **overrides) -> None:
    """Train one tiny model with the callback."""
    trainer = tiny.make_trainer(kind, FOLDER / name, [callback], **overrides)
    trainer.remove_callback(PrinterCallback)
    trainer.train()


def healthy_dpo() -> None:
    """Nothing is wrong, so nothing is said but the banner and the summary."""
    title("1. DPO, healthy, 200 steps")
    train("dpo", "healthy_dpo", DiagnosticsCallback(), max_steps=200)


def frozen_dpo() -> None:
    """The gradient never reaches the weights, as with an adapter that was loaded for inference."""
    title("2. DPO whose adapter is frozen: every gradient is zero, training goes on for hours in real life")
    trainer = tiny.make_trainer("dpo", FOLDER / "frozen_dpo", [DiagnosticsCallback()], max_steps=60)
    trainer.remove_callback(PrinterCallback)
    for parameter in trainer.model.parameters():
        parameter.register_hook(lambda gradient: gradient * 0)
    trainer.train()


def clipped_grpo() -> None:
    """The limit is too short for any answer, so every completion is cut and earns nothing; the run stops itself."""
    title("3. GRPO in which every completion hits max_completion_length, stop_on_critical=True")
    callback = DiagnosticsCallback(stop_on_critical=True)
    train("grpo", "clipped_grpo", callback, max_steps=100, max_completion_length=4)


def importance_sampling() -> None:
    """
    vLLM samples with other weights than the trainer has.

    TRL computes the ratio only when it generates with vLLM, which needs a GPU. So no model is trained here: the keys
    are fed to the callback exactly as TRL 1.16 logs them.
    """
    title("4. GRPO with vLLM: the importance sampling ratio falls from 1.0 to 0.1 (replayed: vLLM needs a GPU)")
    here = {"use_cpu": True, "bf16": False, "report_to": "none"}
    args = GRPOConfig(str(FOLDER / "importance_sampling"), use_vllm=True, lr_scheduler_type="constant", **here)
    state, control, callback = TrainerState(max_steps=200, logging_steps=1), TrainerControl(), DiagnosticsCallback()
    callback.on_train_begin(args, state, control)
    for state.global_step in range(1, 141):
        ratio = 1.0 if state.global_step <= 100 else 0.1
        callback.on_log(args, state, control, grpo_logs(state.global_step, ratio))
    callback.on_train_end(args, state, control)


def grpo_logs(step: int, ratio: float) -> dict[str, float]:
    """One log of GRPO with vLLM under the keys of TRL 1.16."""
    wave = 0.02 * ((step * 7) % 5 - 2)
    return {
        "loss": 0.01 + wave / 10,
        "grad_norm": 0.4 + wave,
        "learning_rate": 1e-6,
        "num_tokens": 2048.0 * step,
        "completions/mean_length": 120 + 100 * wave,
        "completions/clipped_ratio": 0.05,
        "step_time": 4 + wave,
        "rewards/accuracy/mean": 0.4 + step / 500 + wave,
        "rewards/accuracy/std": 0.4 + wave,
        "reward": 0.4 + step / 500 + wave,
        "reward_std": 0.4 + wave,
        "frac_reward_zero_std": 0.1,
        "sampling/sampling_logp_difference/mean": 0.012 + wave / 10,
        "sampling/sampling_logp_difference/max": 0.3,
        "sampling/importance_sampling_ratio/min": ratio / 2,
        "sampling/importance_sampling_ratio/mean": ratio + wave / 10,
        "sampling/importance_sampling_ratio/max": ratio + 0.2,
        "entropy": 0.5 + wave,
        "clip_ratio/region_mean": 0.0,
    }


def main() -> None:
    """Run all four."""
    warnings.filterwarnings("ignore")  # of the libraries; ours go through the logger
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    for run in (healthy_dpo, frozen_dpo, clipped_grpo, importance_sampling):
        run()
    print(f"\nEach run left its metrics, findings and coverage in a diagnostics folder under {FOLDER}")


if __name__ == "__main__":
    main()
