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

"""Runs that need vLLM, DeepSpeed or float16: no training, but logs under TRL's exact keys, with the noise of real ones."""

import math
import random
from collections.abc import Callable
from typing import Any

from failure_lab.recipe import recipes


Logs = list[dict[str, Any]]
Damage = Callable[[dict[str, Any], int, random.Random], None]
MASKED = {"vllm_importance_sampling_mode": "sequence_mask"}
TRUNCATED = {"vllm_importance_sampling_mode": "token_truncate"}
VLLM = {"use_vllm": True}
MISMATCH = (
    "importance_sampling_ratio_low",
    "importance_sampling_ratio_low_from_start",
    "importance_sampling_ratio_biased",
    "importance_sampling_all_masked",
    "sampling_mismatch_high",
    "sampling_mismatch_rising",
)


def grpo_log(step: int, rng: random.Random) -> dict[str, Any]:
    """One healthy log of GRPO with vLLM, at the pace of a run that learns slowly."""
    reward = 0.3 + 0.4 * (1 - math.exp(-step / 300)) + rng.gauss(0, 0.03)
    spread, difference = 0.4 + rng.gauss(0, 0.02), 0.012 * rng.lognormvariate(0, 0.15)
    return {
        "loss": rng.gauss(0, 0.01),
        "grad_norm": 0.3 * rng.lognormvariate(0, 0.4),
        "learning_rate": 1e-6,
        "num_tokens": 16384.0 * step,
        "completions/mean_length": 310 + rng.gauss(0, 15),
        "completions/clipped_ratio": min(max(rng.gauss(0.06, 0.02), 0.0), 1.0),
        "rewards/accuracy/mean": reward,
        "rewards/accuracy/std": spread,
        "reward": reward,
        "reward_std": spread,
        "frac_reward_zero_std": min(max(rng.gauss(0.2, 0.05), 0.0), 1.0),
        "sampling/sampling_logp_difference/mean": difference,
        "sampling/sampling_logp_difference/max": difference * 30 * rng.lognormvariate(0, 0.3),
        "sampling/importance_sampling_ratio/min": 0.4 * rng.lognormvariate(0, 0.2),
        "sampling/importance_sampling_ratio/mean": 1.0 + rng.gauss(0, 0.01),
        "sampling/importance_sampling_ratio/max": 1.6 + abs(rng.gauss(0, 0.2)),
        "entropy": 0.45 + 0.1 * math.exp(-step / 200) + rng.gauss(0, 0.01),
        "clip_ratio/region_mean": 0.0,
        "step_time": 21 * rng.lognormvariate(0, 0.06),
    }


def sft_log(step: int, rng: random.Random) -> dict[str, Any]:
    """One healthy log of SFT."""
    loss = 0.9 + 0.8 * math.exp(-step / 40) + rng.gauss(0, 0.04)
    return {
        "loss": loss,
        "grad_norm": 1.1 * rng.lognormvariate(0, 0.25),
        "learning_rate": 2e-5,
        "entropy": loss * 0.95,
        "num_tokens": 8192.0 * step,
        "mean_token_accuracy": 0.9 - 0.18 * loss,
    }


def logs(
    healthy: Callable[[int, random.Random], dict[str, Any]], damage: Damage, steps: int = 150
) -> Callable[[int], Logs]:
    """A maker of a whole run: healthy logs, each of them damaged."""

    def replay(seed: int) -> Logs:
        rng, run = random.Random(seed), []
        for step in range(1, steps + 1):
            run.append(healthy(step, rng))
            damage(run[-1], step, rng)
        return run

    return replay


def set_ratio(log: dict[str, Any], mean: float, rng: random.Random) -> None:
    """Mean, smallest and largest ratio, and the difference of log-probabilities that goes with them."""
    mean *= rng.lognormvariate(0, 0.05)
    log["sampling/importance_sampling_ratio/mean"] = mean
    log["sampling/importance_sampling_ratio/min"] = mean * 0.02
    log["sampling/importance_sampling_ratio/max"] = max(mean * 3, 1.1)
    log["sampling/sampling_logp_difference/mean"] = abs(math.log(mean)) * 0.2 + 0.01


def weights_stale(log, step, rng) -> None:
    """The weights in vLLM are no longer updated."""
    if step > 80:
        set_ratio(log, max(math.exp(-(step - 80) / 6), 0.05), rng)


def other_model(log, step, rng) -> None:
    """vLLM samples from another model."""
    set_ratio(log, 0.15, rng)


def all_masked(log, step, rng) -> None:
    """Every sequence is over the cap, so every ratio becomes 0."""
    if step > 40:
        for statistic in ("min", "mean", "max"):
            log[f"sampling/importance_sampling_ratio/{statistic}"] = 0.0
        log["loss"] = log["grad_norm"] = 0.0


def biased(log, step, rng) -> None:
    """Another temperature in vLLM than in the trainer."""
    log["sampling/importance_sampling_ratio/mean"] = 0.8 * rng.lognormvariate(0, 0.01)


def mismatch_high(log, step, rng) -> None:
    """A chat template or a precision that differs between vLLM and the trainer."""
    log["sampling/sampling_logp_difference/mean"] = 0.6 * rng.lognormvariate(0, 0.1)


def mismatch_rising(log, step, rng) -> None:
    """Rounding of a mixture of experts that grows with training."""
    if step > 50:
        log["sampling/sampling_logp_difference/mean"] *= math.exp((step - 50) / 15)


def with_tools(calls: float, failures: Callable[[int], float]) -> Damage:
    """What GRPO logs when it has tools."""

    def damage(log, step, rng) -> None:
        log["tools/call_frequency"] = max(calls * rng.lognormvariate(0, 0.2), 0.0)
        log["tools/failure_frequency"] = min(max(rng.gauss(failures(step), 0.02), 0.0), 1.0) if calls else 0.0

    return damage


def deepspeed_nan(log, step, rng) -> None:
    """DeepSpeed puts a constant for a norm that is NaN, the Trainer puts 0 for the loss."""
    if step > 60:
        log.update(loss=0.0, grad_norm=1.4142135381698608, entropy=math.nan, mean_token_accuracy=0.0)


def half_precision(log, step, rng) -> None:
    """The loss scale falls and falls: every step overflows and is skipped."""
    if step > 60:
        log["grad_norm"] = math.nan if rng.random() < 0.7 else math.inf


def fine(log, step, rng) -> None:
    """Nothing."""


RECIPES = [
    *recipes(
        {"trainer": "grpo", "overrides": VLLM, "symptoms": MISMATCH, "steps": 150},
        {
            "fault": "vllm_weights_stale",
            "cause": "the weights in vLLM stop being updated at step 80",
            "expected": ("importance_sampling_ratio_low", "sampling_mismatch_rising"),
            "onset": 81,
            "replay": logs(grpo_log, weights_stale),
        },
        {
            "fault": "vllm_other_model",
            "cause": "vLLM serves another checkpoint than the one being trained",
            "expected": ("importance_sampling_ratio_low_from_start", "sampling_mismatch_high"),
            "replay": logs(grpo_log, other_model),
        },
        {
            "fault": "vllm_all_masked",
            "cause": "every sequence exceeds the cap of sequence_mask: nothing is trained on",
            "overrides": {**VLLM, **MASKED},
            "expected": ("importance_sampling_all_masked",),
            "symptoms": (*MISMATCH, "policy_not_updated"),
            "onset": 41,
            "replay": logs(grpo_log, all_masked),
        },
        {
            "fault": "vllm_ratio_biased",
            "cause": "another sampling temperature in vLLM than in the trainer",
            "overrides": {**VLLM, **TRUNCATED},
            "expected": ("importance_sampling_ratio_biased",),
            "replay": logs(grpo_log, biased),
        },
        {
            "fault": "vllm_mismatch_high",
            "cause": "vLLM in another precision, or with another chat template",
            "expected": ("sampling_mismatch_high",),
            "replay": logs(grpo_log, mismatch_high),
        },
        {
            "fault": "vllm_mismatch_rising",
            "cause": "numerical difference between vLLM and trainer that grows, as in a mixture of experts",
            "expected": ("sampling_mismatch_rising",),
            "onset": 60,
            "replay": logs(grpo_log, mismatch_rising),
        },
    ),
    *recipes(
        {"trainer": "grpo", "steps": 150},
        {
            "overrides": {"per_device_train_batch_size": 64},
            "fault": "tools_never_called",
            "cause": "the model never calls a tool: the prompt does not say that there are any",
            "expected": ("tools_never_called",),
            "replay": logs(grpo_log, with_tools(0.0, lambda step: 0.0)),
        },
        {
            "fault": "tools_failing",
            "cause": "nearly every call of a tool fails: wrong names of arguments",
            "expected": ("tools_failing",),
            "replay": logs(grpo_log, with_tools(1.2, lambda step: 0.95)),
        },
        {
            "fault": "tools_failing",
            "variant": "later",
            "cause": "the service behind a tool is down from step 81 on",
            "expected": ("tools_failing",),
            "onset": 81,
            "replay": logs(grpo_log, with_tools(1.2, lambda step: 0.95 if step > 80 else 0.08)),
        },
    ),
    *recipes(
        {"trainer": "sft", "steps": 150, "onset": 61},
        {
            "fault": "deepspeed_hides_nan",
            "cause": "NaN under DeepSpeed: its gradient norm is a constant, its loss 0",
            "expected": ("nan_hidden_by_deepspeed", "nan_in_metrics"),
            "symptoms": ("nan_masked_as_zero_loss", "loss_exactly_zero"),
            "replay": logs(sft_log, deepspeed_nan),
        },
        {
            "fault": "fp16_overflow",
            "cause": "float16: every step overflows and is skipped",
            "overrides": {"fp16": True},
            "expected": ("nonfinite_grad_norm_fp16",),
            "symptoms": ("nonfinite_grad_norm",),
            "replay": logs(sft_log, half_precision),
        },
    ),
    *recipes(
        {"trainer": "grpo", "steps": 300},
        {
            "variant": "vllm",
            "cause": "vLLM agrees with the trainer",
            "overrides": VLLM,
            "replay": logs(grpo_log, fine, 300),
        },
        {
            "variant": "tools",
            "cause": "tools are called and seldom fail",
            "replay": logs(grpo_log, with_tools(1.2, lambda step: 0.08), 300),
        },
    ),
]
