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

"""The benchmarks: long healthy runs stay silent and need no more memory, and each probe is timed as it is called."""

import json
import random
import sys

import bench
import bench_probes
import pytest
import torch

from trl_diagnostics import Engine, MetricMap
from trl_diagnostics.engine.rulebook import collect_rules


@pytest.mark.parametrize("trainer", sorted(bench.KEYS))
def test_a_long_healthy_run_is_silent_and_needs_no_more_memory(trainer):
    metric_map, noise = MetricMap(trainer), random.Random(1)
    config = {"max_steps": 20_000, "warmup_steps": 0, **bench.CONFIG.get(trainer, {})}
    engine = Engine(collect_rules(), trainer, config, metric_map)
    findings, remembered = [], []
    for step in range(1, 20_001):
        findings += engine.update(bench.record_of(step, bench.logs_of(trainer, step, noise), metric_map, noise))
        if step in (2_000, 20_000):
            remembered.append(sum(len(history["values"]) for history in engine.state_dict()["histories"].values()))
    assert [one for one in findings if one.severity != "info"] == []
    assert remembered[0] == remembered[1]
    assert "seconds_per_step" in engine.state_dict()["histories"]
    assert len(json.dumps(engine.state_dict())) < 100_000


def test_prints_a_row_per_decade(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--records", "1000"])
    bench.main()
    printed = capsys.readouterr().out
    for trainer in bench.KEYS:
        assert f"{trainer}: {len(bench.KEYS[trainer])} keys" in printed
    assert [line.split()[0] for line in printed.splitlines() if line[:10].strip().isdigit()] == ["100", "1000"] * len(
        bench.KEYS
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", bench_probes.KINDS)
def test_times_each_probe_as_often_as_it_is_called(kind):
    times, step = bench_probes.train(kind, 20, 5)
    calls = {f"{owner.__name__.split('.')[-1]}.{name}": len(took) for (owner, name), took in times.seconds.items()}
    assert calls["GradientProbe.check"] == calls["StepClock.step_begins"] == calls["StepClock.batch_ends"] == 20
    assert calls["GradientProbe.count_missing"] == calls["WeightsProbe.look"] == calls["probes.memory"] == 2
    assert calls.get("SignalBudget.look", 0) == (20 if kind == "grpo" else 0)
    assert calls["Probes.record"] == 5
    assert calls["probes.nonfinite_parameters"] == 4  # the last log is none of the training
    assert calls["callback.look_before"] == calls["Probes.begin"] == calls["DiagnosticsCallback.on_train_begin"] == 1
    rows = bench_probes.rows_of(times, 20)
    assert (rows["signal budget"] > rows["clock"]) == (kind == "grpo")
    assert 0 < rows["probes"] < rows["everything"] < step


def test_a_row_is_the_median_without_what_is_within(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 4.0, 10.0, 12.0, 20.0, 24.0])
    monkeypatch.setattr(bench_probes.time, "thread_time", lambda: next(now))
    times = bench_probes.Times()
    inner = times.timed((None, "inner"), lambda: None)
    outer = times.timed((None, "outer"), inner)
    outer()
    inner()
    inner()
    assert times.seconds == {(None, "inner"): [2.0, 2.0, 4.0], (None, "outer"): [2.0]}
    assert times.per_step([(None, "inner"), (None, "outer"), (None, "never")], 2) == 4e6


def test_sums_and_shares(capsys):
    times = bench_probes.Times()
    groups = bench_probes.STEP, bench_probes.RECORD, bench_probes.REST
    for number, group in enumerate(groups):
        for keys in group.values():
            times.seconds[keys[0]] = [10.0**number * 1e-6] * 4
    rows = bench_probes.rows_of(times, 4)
    assert (rows["whole record"], rows["probes"], rows["everything"]) == pytest.approx((60.0, 63.0, 363.0))
    bench_probes.print_table("sft", {"gradients": 20.04, "clock": 3.0}, 10_000.0, {"preflight": 1500.0})
    assert capsys.readouterr().out.splitlines()[1:] == [
        "sft; a step takes 10000 us",
        "                            us per step  % of step",
        "                 gradients         20.0      0.200",
        "                     clock          3.0      0.030",
        "preflight once 1.5 ms",
    ]


def test_prints_a_table_of_each_training(monkeypatch, capsys):
    asked = []

    def train(*asked_for):
        asked.append(asked_for)
        return bench_probes.Times(), 1000.0

    monkeypatch.setattr(bench_probes, "train", train)
    monkeypatch.setattr(sys, "argv", "bench.py --probes 200 --large-steps 3 --logging-steps 1".split())
    bench.main()
    assert asked == [(kind, steps, 1, steps == 3) for steps in (200, 3) for kind in ("sft", "dpo", "grpo")]
    printed = capsys.readouterr().out
    assert "\nsft, tiny, 200 steps, a log every 1; a step takes 1000 us\n" in printed
    assert "\ngrpo, 110M, 3 steps, a log every 1; a step takes 1000 us\n" in printed


def test_the_large_model_has_110_million_parameters():
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in bench_probes.large_model().parameters()) == 109_557_504
