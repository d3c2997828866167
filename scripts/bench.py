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
Synthetic logs go in, microseconds and memory per log record come out, with all rules of the trainer. With `--run` a real
training goes in, and what the whole record of it costs comes out; with `--probes` what each probe costs.
"""

import argparse
import random
import resource
import tempfile
import time

import numpy as np

from trl_diagnostics import Engine, MetricMap, Record
from trl_diagnostics.engine.rulebook import collect_rules


GKD = "loss grad_norm learning_rate epoch".split()
SFT = [*GKD, "entropy", "num_tokens", "mean_token_accuracy"]
DPO = """loss grad_norm learning_rate epoch entropy num_tokens mean_token_accuracy rewards/chosen rewards/rejected
rewards/accuracies rewards/margins logps/chosen logps/rejected logits/chosen logits/rejected aux_loss""".split()
GRPO = """loss grad_norm learning_rate epoch num_tokens step_time completions/mean_length completions/min_length
completions/max_length completions/clipped_ratio completions/mean_terminated_length completions/min_terminated_length
completions/max_terminated_length rewards/accuracy/mean rewards/accuracy/std rewards/format/mean rewards/format/std
reward reward_std frac_reward_zero_std kl entropy clip_ratio/low_mean clip_ratio/low_min clip_ratio/high_mean
clip_ratio/high_max clip_ratio/region_mean sampling/sampling_logp_difference/mean sampling/sampling_logp_difference/max
sampling/importance_sampling_ratio/min sampling/importance_sampling_ratio/mean
sampling/importance_sampling_ratio/max""".split()
KEYS = {"dpo": DPO, "grpo": GRPO, "sft": SFT, "gkd": GKD}
CONFIG = {"grpo": {"use_vllm": True, "beta": 0.04, "max_completion_length": 256}}
SECONDS = 2.0  # of one step
TYPICAL = {
    "loss": 0.6,
    "entropy": 0.5,
    "mean_token_accuracy": 0.7,
    "rewards/accuracies": 0.7,
    "reward": 0.5,
    "reward_std": 0.3,
    "rewards/accuracy/mean": 0.5,
    "rewards/accuracy/std": 0.3,
    "rewards/format/mean": 0.95,
    "rewards/format/std": 0.1,
    "clip_ratio/low_mean": 0.01,
    "clip_ratio/high_mean": 0.01,
    "clip_ratio/region_mean": 0.02,
    "kl": 0.01,
    "frac_reward_zero_std": 0.1,
    "completions/mean_length": 120.0,
    "completions/min_length": 20.0,
    "completions/max_length": 250.0,
    "completions/clipped_ratio": 0.05,
    "completions/mean_terminated_length": 115.0,
    "sampling/sampling_logp_difference/mean": 0.01,
}


def logs_of(trainer: str, step: int, noise: random.Random) -> dict[str, float]:
    """One log: every key of the trainer with a healthy, noisy value."""
    logs = {key: TYPICAL.get(key, 1.0) * (0.95 + 0.1 * noise.random()) for key in KEYS[trainer]}
    learnt = step / (step + 2000)
    logs["loss"] *= 1 - 0.4 * learnt
    if trainer == "gkd":
        logs["loss"] /= 3  # nats between two models that know the task
    if trainer == "grpo":
        logs |= {key: logs[key] * (1 + 0.6 * learnt) for key in ("reward", "rewards/accuracy/mean")}
    if trainer == "dpo":  # the policy leaves the reference slowly
        moved = [key for key in logs if key.startswith("rewards/") and key != "rewards/accuracies"]
        logs |= {key: logs[key] * min(step / 1000, 1.0) for key in moved}
    own = {"num_tokens": 512.0 * step, "learning_rate": 1e-6, "epoch": step / 1000}
    return logs | {key: value for key, value in own.items() if key in logs}


def record_of(step: int, logs: dict[str, float], metric_map: MetricMap, noise: random.Random) -> Record:
    """What the callback makes of one log; the time grows, and steps do not take equally long."""
    return Record(step, SECONDS * (step + 0.1 * noise.random()), "train", metric_map.record(logs))


def measure(trainer: str, records: int) -> None:
    """Feed one long run and print one row per decade."""
    metric_map = MetricMap(trainer)
    config = {"max_steps": records, "warmup_steps": 0, **CONFIG.get(trainer, {})}
    engine = Engine(collect_rules(), trainer, config, metric_map)
    noise = random.Random(0)
    took = np.ones(records)  # written to, so that the memory is there from the start
    findings, decade = 0, 100
    start_of_decade = 0
    print(f"\n{trainer}: {len(KEYS[trainer])} keys, {len(engine.rules)} rules active")
    print(f"{'records':>10} {'median us':>10} {'p99 us':>10} {'peak MiB':>10} {'findings':>9}")
    for i in range(records):
        logs = logs_of(trainer, i + 1, noise)
        begin = time.perf_counter_ns()
        findings += len(engine.update(record_of(i + 1, logs, metric_map, noise)))
        took[i] = time.perf_counter_ns() - begin
        if i + 1 == decade:
            part = took[start_of_decade : i + 1] / 1000
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{i + 1:>10} {np.median(part):>10.1f} {np.percentile(part, 99):>10.1f} {peak:>10.0f} {findings:>9}")
            start_of_decade, decade = i + 1, decade * 10


def train(steps: int, logging_steps: int, diagnostics: bool) -> tuple[float, float, float]:
    """Microseconds per step of one tiny SFT run: processor time of all threads, the clock, and within the callback."""
    import tiny
    from transformers import TrainerCallback

    from trl_diagnostics import DiagnosticsCallback

    class Before(TrainerCallback):
        inside = since = 0.0

        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 0:
                self.begin = time.process_time(), time.perf_counter()
            self.since = time.perf_counter()

        def on_step_end(self, args, state, control, **kwargs):
            self.since = time.perf_counter()

        def on_log(self, args, state, control, **kwargs):
            self.since = time.perf_counter()

        def on_epoch_end(self, args, state, control, **kwargs):  # comes after the last log
            self.end = time.process_time(), time.perf_counter()

    class After(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            before.inside += time.perf_counter() - before.since

        on_step_end = on_log = on_step_begin

    before = Before()
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [before, *([DiagnosticsCallback()] if diagnostics else []), After()]
        tiny.make_trainer("sft", folder, callbacks, max_steps=steps, logging_steps=logging_steps).train()
    took = [after - begun for begun, after in zip(before.begin, before.end, strict=True)]
    return tuple(1e6 * seconds / steps for seconds in (*took, before.inside))


def measure_run(steps: int, times: int, logging_steps: int) -> None:
    """Train with and without the callback in turns, and print the median of what each took."""
    import datasets

    datasets.disable_progress_bars()
    took = [[train(steps, logging_steps, diagnostics) for diagnostics in (False, True)] for _ in range(times)]
    without, complete = np.median(took, axis=0)
    print(f"\nSFT, {steps} steps, a log every {logging_steps}, the median of {times} runs; microseconds per step")
    print(f"{'':>12} {'processor':>10} {'clock':>10} {'callback':>10}")
    for name, row in (("without", without), ("with", complete), ("difference", complete - without)):
        print(f"{name:>12} {row[0]:>10.1f} {row[1]:>10.1f} {row[2]:>10.1f}")


def main() -> None:
    """Run the benchmark for each trainer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--run", type=int, metavar="STEPS", help="measure real trainings of so many steps instead")
    parser.add_argument("--times", type=int, default=3, help="trainings with and without for --run")
    parser.add_argument("--probes", type=int, metavar="STEPS", help="measure each probe in trainings of so many steps")
    parser.add_argument("--large-steps", type=int, default=20, help="those with a large model (0: none)")
    parser.add_argument("--logging-steps", type=int, default=10, help="of the trainings of --run and --probes")
    arguments = parser.parse_args()
    if arguments.probes:
        from bench_probes import measure_probes

        measure_probes(arguments.probes, arguments.large_steps, arguments.logging_steps)
        return
    if arguments.run:
        measure_run(arguments.run, arguments.times, arguments.logging_steps)
        return
    for trainer in KEYS:
        measure(trainer, arguments.records)


if __name__ == "__main__":
    main()
