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

"""The benchmark's long healthy runs: nothing is said, and what is remembered stops growing."""

import json
import random
import sys

import bench
import pytest

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
