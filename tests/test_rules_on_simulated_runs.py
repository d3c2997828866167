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

"""All built-in rules together on simulated runs: healthy ones are not stopped and hardly warned, faults are named."""

from functools import cache

import numpy as np
import pytest

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Record, Severity
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import MetricMap


RULES = collect_rules()
SEVERITY = {rule.name: rule.severity for rule in RULES}
LOGS = 500
SEEDS = range(3)


def replay(trainer, config, columns):
    """
    (number of the log, rule, severity) of each finding that starts, but for those that say "normal". A NaN in a column
    is a log without the key.
    """
    config = {"logging_steps": 1, "max_steps": len(columns["loss"]) * config.get("logging_steps", 1), **config}
    metric_map = MetricMap(trainer)
    engine = Engine(RULES, trainer, config, metric_map)
    found = []
    for i in range(len(columns["loss"])):
        row = {key: float(column[i]) for key, column in columns.items() if not np.isnan(column[i])}
        record = Record((i + 1) * config["logging_steps"], float(i), "train", metric_map.record(row))
        found += [(i + 1, f.rule, SEVERITY[f.rule]) for f in engine.update(record) if f.state == "started"]
    return [item for item in found if item[2] > Severity.INFO]


def schedule(kind, n, peak=1e-6):
    """Learning rates of a run: warm-up over the first tenth, or cosine to 0, or one value."""
    t = np.arange(n) / n
    return (
        peak * {"constant": np.ones(n), "cosine": (1 + np.cos(np.pi * t)) / 2, "warmup": np.minimum(t * 10, 1)}[kind]
    )


def heavy(rng, n, median=1.0, tail=0.6):
    """Norms of gradients: log-normal, one in a hundred ten times as large."""
    return median * rng.lognormal(0, tail, n) * np.where(rng.random(n) < 0.01, 10, 1)


def grpo(rng, n, success, logging_steps=1, groups=2, size=8, clipped=None, length=300.0, every=1):
    """
    Logs of GRPO with a binary reward.

    `success(step, rng, groups)` gives the chance of each prompt of a step. A log is the mean of `logging_steps` steps;
    only each `every`-th step generates, as with num_iterations.
    """
    steps = n * logging_steps
    chances = np.stack([success(step / logging_steps, rng, groups) for step in range(steps)])
    rewards = rng.random((steps, groups, size)) < chances[:, :, None]
    flat = rewards.all(2) | ~rewards.any(2)
    clipped = np.zeros(steps) + 0.1 if clipped is None else np.repeat(clipped, logging_steps)
    cut = rng.binomial(groups * size, clipped) / (groups * size)
    spread = rewards.reshape(steps, -1).std(1, ddof=1)
    columns = {
        "loss": rng.normal(0, 0.02, steps) * ~flat.all(1),
        "grad_norm": heavy(rng, steps, 0.3) * ~flat.all(1),
        "learning_rate": schedule("constant", steps),
        "num_tokens": np.arange(1, steps + 1) * 1000.0,
        "reward": rewards.mean((1, 2)),
        "reward_std": spread,
        "rewards/accuracy/mean": rewards.mean((1, 2)),
        "rewards/accuracy/std": spread,
        "frac_reward_zero_std": flat.mean(1),
        "entropy": 0.4 * (1 + np.exp(-np.arange(steps) / steps)) / 2 + rng.normal(0, 0.02, steps),
        "completions/mean_length": length * rng.lognormal(0, 0.1, steps),
        "completions/clipped_ratio": cut,
        "clip_ratio/region_mean": np.zeros(steps),
    }
    columns = {key: np.reshape(column, (n, logging_steps)).mean(1) for key, column in columns.items()}
    trained_each_step = ("loss", "grad_norm", "learning_rate", "num_tokens")
    for key in columns:
        if key not in trained_each_step:
            columns[key][np.arange(n) % every > 0] = np.nan
    config = {"per_device_train_batch_size": groups * size, "num_generations": size, "logging_steps": logging_steps}
    return "grpo", config, columns


def bimodal(extreme):
    """Prompts of which `extreme` are never or always solved; the rest get easier over the run."""

    def success(log, rng, groups):
        middle = rng.beta(1.5, 1.5, groups) + 0.2 * min(log / 500, 1)
        return np.where(rng.random(groups) < extreme, rng.random(groups) < 0.4, np.clip(middle, 0, 1))

    return success


def sparse(chance):
    """A hard task: few answers are right, and not on every prompt; it is learned slowly."""
    return lambda log, rng, groups: np.clip(rng.exponential(chance * (1 + log / 50), groups), 0, 0.95)


def babbling(log, rng, groups):
    """A base model that earns nothing for 30 logs and then learns."""
    return np.full(groups, 0.0 if log < 30 else min(0.02 + (log - 30) / 300, 0.9))


def solved(log, rng, groups):
    """A task that is solved half-way."""
    return np.full(groups, min(0.2 + log / 200, 1.0))


def curriculum(log, rng, groups):
    """Every 100 logs harder prompts come."""
    return np.full(groups, 0.15 + 0.7 * (log % 100) / 100)


def long_completions(rng, n, logging_steps=1, tokens=16_000, noise=0.02, growth=False):
    """GRPO with vLLM and sequence_mask, where rounding alone makes the ratio of long completions small."""
    trainer, config, columns = grpo(rng, n, bimodal(0.3), logging_steps, groups=4, length=tokens)
    lengths = np.linspace(tokens / 10, tokens, n) if growth else np.full(n, tokens)
    sigma = noise * np.sqrt(lengths)[:, None]
    ratio = np.exp(rng.normal(-(sigma**2) / 2, sigma, (n, 32 * logging_steps)))
    ratio[ratio > 3] = 0
    columns["completions/mean_length"] = lengths * rng.lognormal(0, 0.05, n)
    columns["sampling/importance_sampling_ratio/mean"] = ratio.mean(1)
    columns["sampling/importance_sampling_ratio/min"] = ratio.min(1)
    columns["sampling/importance_sampling_ratio/max"] = ratio.max(1)
    columns["sampling/sampling_logp_difference/mean"] = 0.8 * noise * rng.lognormal(0, 0.05, n)
    return trainer, {**config, "use_vllm": True}, columns


def optional_tools(rng, n, logging_steps=1):
    """GRPO with a tool that one completion in a thousand needs, and that fails now and then."""
    trainer, config, columns = grpo(rng, n, bimodal(0.3), logging_steps, groups=4)
    calls = rng.binomial(32 * logging_steps, 0.001, n) / (32 * logging_steps)
    columns["tools/call_frequency"] = calls
    columns["tools/failure_frequency"] = np.where(calls > 0, rng.random(n) < 0.3, 0.0)
    return trainer, config, columns


def rates(rng, chance, trials):
    """Shares of `trials` that succeed."""
    return rng.binomial(trials, np.clip(chance, 0, 1)) / trials


def dpo(rng, n, logging_steps=1, batch=8, rate="warmup", epochs=3, bf16_zeros=0, speed=1.0):
    """DPO over three epochs: the loss falls in stairs, chosen log-probabilities fall, gradients have a heavy tail."""
    samples, t = batch * logging_steps, np.arange(n) / n
    margin = speed * (np.floor(t * epochs) + 0.5 * (t * epochs % 1)) * np.minimum(10 * t, 1)
    pairs = rng.normal(margin[:, None], 0.2 + margin[:, None], (n, samples))
    zeros = max(bf16_zeros, 1)  # before the first update, and while updates are too small for bf16 weights
    pairs[:zeros] = 0
    chosen = -0.7 * pairs.mean(1) + rng.normal(0, 0.1, n) * (np.arange(n) >= zeros)
    columns = {
        "loss": np.log1p(np.exp(-pairs)).mean(1),
        "grad_norm": heavy(rng, n, 3.0, 0.8),
        "learning_rate": schedule(rate, n),
        "num_tokens": np.arange(1, n + 1) * 5000.0,
        "rewards/margins": pairs.mean(1),
        "rewards/chosen": chosen,
        "rewards/rejected": chosen - pairs.mean(1),
        "rewards/accuracies": (pairs > 0).mean(1),
        "logps/chosen": rng.normal(-250, 60 / np.sqrt(samples), n) + chosen / 0.1,
        "logps/rejected": rng.normal(-260, 60 / np.sqrt(samples), n) + (chosen - pairs.mean(1)) / 0.1,
        "entropy": rng.normal(0.9, 0.1, n),
    }
    warmup = n * logging_steps // 10 if rate == "warmup" else 0
    config = {"per_device_train_batch_size": batch, "logging_steps": logging_steps, "warmup_steps": warmup}
    return "dpo", config, columns


def sft(rng, n, logging_steps=1, batch=8, rate="cosine", sources=(1.0,), block=60, start=2.0):
    """SFT on one source, or on sources of different loss in blocks, as unshuffled data has them."""
    floor = np.array(sources)[np.arange(n) // block % len(sources)]
    level = floor * (1 + (start - 1) * np.exp(-np.arange(n) * logging_steps / 60))
    loss = level * rng.lognormal(0, 0.5 / np.sqrt(batch * logging_steps), n)
    columns = {
        "loss": loss,
        "grad_norm": heavy(rng, n, 1.0, 0.4) * floor**0.5,
        "learning_rate": schedule(rate, n, 2e-5),
        "num_tokens": np.arange(1, n + 1) * 5000.0,
        "entropy": loss * rng.normal(0.8, 0.05, n),
        "mean_token_accuracy": np.clip(1 - loss / 4 + rng.normal(0, 0.02, n), 0.2, 1),
    }
    return "sft", {"per_device_train_batch_size": batch, "logging_steps": logging_steps}, columns


def kto(rng, n, logging_steps=1, batch=1, desirable=0.9):
    """KTO on unbalanced data in small batches: many logs lack one of the classes."""
    samples, growth = batch * logging_steps, np.linspace(0, 1.5, n)
    good = rng.binomial(samples, desirable, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        chosen = np.where(good > 0, growth / 4 + rng.normal(0, 0.3, n) / np.sqrt(good), np.nan)
        rejected = np.where(good < samples, -growth + rng.normal(0, 0.3, n) / np.sqrt(samples - good), np.nan)
    columns = {
        "loss": 0.5 - growth / 15 + rng.normal(0, 0.03, n) / np.sqrt(samples),
        "grad_norm": heavy(rng, n, 1.0, 0.8),
        "learning_rate": schedule("cosine", n),
        "kl": np.maximum(rng.normal(0, 0.2, n), 0),
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "logps/chosen": np.where(np.isnan(chosen), np.nan, rng.normal(-200, 40, n)),
        "logps/rejected": np.where(np.isnan(rejected), np.nan, rng.normal(-220, 40, n)),
    }
    return "kto", {"per_device_train_batch_size": batch, "logging_steps": logging_steps}, columns


def gkd(rng, n, logging_steps=1):
    """GKD: half of the batches are the student's own texts, the others come from the data and lie farther off."""
    own = rng.random((n, logging_steps)) < 0.5
    level = (0.3 + 0.7 * np.exp(-np.arange(n) * logging_steps / 100))[:, None]
    loss = (np.where(own, 0.05, 0.25) * level * rng.lognormal(0, 0.3, (n, logging_steps))).mean(1)
    columns = {"loss": loss, "grad_norm": heavy(rng, n), "learning_rate": schedule("cosine", n)}
    return "gkd", {"per_device_train_batch_size": 4, "logging_steps": logging_steps}, columns


SOURCES = (1.3, 0.6, 0.9, 1.5)
HEALTHY = {
    "grpo, a hard task": lambda rng, n, k: grpo(rng, n, sparse(0.02), k),
    "grpo, a very hard task": lambda rng, n, k: grpo(rng, n, sparse(0.01), k, groups=4),
    "grpo, 60 % of the prompts are extreme": lambda rng, n, k: grpo(rng, 2 * n, bimodal(0.6), k, groups=2),
    "grpo, 70 % of the prompts are extreme": lambda rng, n, k: grpo(rng, 2 * n, bimodal(0.7), k, groups=4),
    "grpo, one group per step": lambda rng, n, k: grpo(rng, n, bimodal(0.5), k, groups=1),
    "grpo, a base model that babbles": lambda rng, n, k: grpo(
        rng, n, babbling, k, clipped=np.where(np.arange(n) < 5, 1.0, np.linspace(0.8, 0.1, n)), groups=2
    ),
    "grpo, solved half-way": lambda rng, n, k: grpo(rng, n, solved, k),
    "grpo, a curriculum": lambda rng, n, k: grpo(rng, n, curriculum, k, groups=4),
    "grpo, two iterations": lambda rng, n, k: grpo(rng, n, bimodal(0.4), k, every=2 if k == 1 else 1),
    "grpo, ratios of long completions": lambda rng, n, k: long_completions(rng, n, k),
    "grpo, completions grow long": lambda rng, n, k: long_completions(rng, n, k, growth=True),
    "grpo, optional tools": lambda rng, n, k: optional_tools(rng, n, k),
    "dpo, three epochs": lambda rng, n, k: dpo(rng, n, k),
    "dpo, batch 1, cosine": lambda rng, n, k: dpo(rng, n, k, batch=1, rate="cosine"),
    "dpo, slow, constant rate": lambda rng, n, k: dpo(rng, n, k, rate="constant", speed=0.2),
    "dpo, bf16 weights in warm-up": lambda rng, n, k: dpo(rng, n, k, bf16_zeros=n // 12),
    "sft": lambda rng, n, k: sft(rng, n, k),
    "sft, warm-up": lambda rng, n, k: sft(rng, n, k, rate="warmup"),
    "sft, batch 1, constant rate": lambda rng, n, k: sft(rng, 2 * n, k, batch=1, rate="constant"),
    "sft, sources in blocks": lambda rng, n, k: sft(rng, n, k, sources=SOURCES),
    "sft, sources of rising difficulty": lambda rng, n, k: sft(rng, n, k, sources=(0.6, 0.8, 1.1, 1.4), block=n // 4),
    "kto, 90 to 10, batch 1": lambda rng, n, k: kto(rng, 2 * n, k),
    "kto, 20 to 80, batch 4": lambda rng, n, k: kto(rng, n, k, batch=4, desirable=0.2),
    "gkd, mixed batches": lambda rng, n, k: gkd(rng, n, k),
}


@cache
def healthy_findings(name):
    """How many logs of this healthy run there were with all seeds, and all that was found."""
    logs, found = 0, []
    for logging_steps in (1, 10):
        for seed in SEEDS:
            run = HEALTHY[name](np.random.default_rng(seed), LOGS if logging_steps == 1 else 300, logging_steps)
            logs += len(run[2]["loss"])
            found += [(logging_steps, seed, *finding) for finding in replay(*run)]
    return logs, found


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_run_is_not_stopped(name):
    assert [finding for finding in healthy_findings(name)[1] if finding[-1] >= Severity.HIGH] == []


def test_healthy_runs_are_hardly_warned():
    results = [healthy_findings(name) for name in HEALTHY]
    medium = [finding for _, found in results for finding in found if finding[-1] == Severity.MEDIUM]
    assert len(medium) <= sum(logs for logs, _ in results) / 1000, medium


@pytest.mark.parametrize("name", [name for name in HEALTHY if "hard" in name or "babbles" in name])
def test_run_that_earns_little_is_warned_once(name):
    medium = [finding[:2] for finding in healthy_findings(name)[1] if finding[-1] == Severity.MEDIUM]
    assert len(medium) == len(set(medium))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trainer", ["grpo", "rloo"])
@pytest.mark.parametrize("logging_steps, within", [(1, 10), (10, 3)])
def test_constant_reward_is_named(trainer, value, logging_steps, within):
    _, config, columns = grpo(np.random.default_rng(0), 300, bimodal(0.3), logging_steps)
    columns["reward"] = columns["rewards/accuracy/mean"] = np.full(300, value)
    columns["reward_std"] = columns["rewards/accuracy/std"] = columns["loss"] = columns["grad_norm"] = np.zeros(300)
    columns["frac_reward_zero_std"] = np.ones(300)
    found = replay(trainer, config, columns)
    assert found[0][1] in ("reward_constant", "reward_constant_so_far") and found[0][0] <= within
    assert ("reward_constant", Severity.HIGH) in [finding[1:] for finding in found]
    assert {finding[1] for finding in found if finding[2] >= Severity.MEDIUM} <= {found[0][1], "reward_constant"}


@pytest.mark.parametrize("logging_steps", [1, 10])
def test_completions_that_are_all_clipped_and_earn_nothing_are_named(logging_steps):
    run = grpo(np.random.default_rng(0), 100, sparse(0.0), logging_steps, clipped=np.ones(100))
    assert (10, "completions_all_clipped", Severity.HIGH) in replay(*run)


def test_fall_of_the_importance_sampling_ratio_is_named_once():
    trainer, config, columns = long_completions(np.random.default_rng(0), 400, tokens=200, noise=0.012)
    columns["sampling/importance_sampling_ratio/mean"][100:] *= 0.1
    warnings = [finding for finding in replay(trainer, config, columns) if finding[2] > Severity.LOW]
    assert warnings == [(110, "importance_sampling_ratio_low", Severity.HIGH)]


@pytest.mark.parametrize("norm, rule", [(-1.0, "nan_masked_as_zero_loss"), (2**0.5, "nan_hidden_by_deepspeed")])
def test_nan_that_deepspeed_hides_is_named(norm, rule):
    trainer, config, columns = sft(np.random.default_rng(0), 100)
    columns["loss"][40:], columns["grad_norm"][40:] = 0.0, norm
    ((log, name, severity),) = replay(trainer, config, columns)
    assert (name, severity) == (rule, Severity.CRITICAL) and log <= 43


def test_divergence_lasts_as_long_as_the_loss_is_up():
    trainer, config, columns = sft(np.random.default_rng(0), 500)
    columns["loss"][200:] += 4
    found = replay(trainer, config, columns)
    assert [finding[1:] for finding in found] == [("loss_divergence", Severity.MEDIUM)] and found[0][0] <= 206
