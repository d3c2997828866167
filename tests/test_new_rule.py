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

"""A YAML file in the folder of rules is all that a new rule takes: a copy of the package with one more file shows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trl_diagnostics


RULE = """\
name: margin_is_enormous
description: The margin is larger than any that a healthy run has
trainers: [dpo]
metric: rewards/margins
condition: "> 1000 for 2 steps"
severity: high
message: "Margin at {value:.0f}."
reference: https://huggingface.co/papers/2305.18290
min_steps: 1
status: experimental
fix: Lower `beta`.
tests:
  - name: far above everything
    series: 1~0.1x5 2000~10x5
    fires: 7
  - name: usual
    series: 1~0.1x40
    fires: never
"""
ENGINE = """\
from trl_diagnostics import Engine, MetricMap, Record, collect_rules
metric_map = MetricMap("dpo")
engine = Engine(collect_rules(), "dpo", {}, metric_map)
for step in range(1, 6):
    for finding in engine.update(Record(step, 0.0, "train", metric_map.record({"rewards/margins": 2000.0 + step}))):
        print(finding.step, finding.rule, finding.message)
"""
LIVE = """\
import sys
from transformers import TrainerControl, TrainerState
from trl import DPOConfig
from trl_diagnostics import DiagnosticsCallback
callback, args = DiagnosticsCallback(), DPOConfig(sys.argv[1], use_cpu=True, bf16=False, logging_steps=1)
state, control = TrainerState(max_steps=100, logging_steps=1), TrainerControl()
callback.on_train_begin(args, state, control)
for state.global_step in range(1, 6):
    callback.on_log(args, state, control, logs={"loss": 0.1 + state.global_step / 100, "rewards/margins": 2000.0})
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folder with a copy of the package that has one rule more."""
    folder = tmp_path_factory.mktemp("home")
    source = Path(trl_diagnostics.__file__).parent
    shutil.copytree(source, folder / "trl_diagnostics", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "trl_diagnostics" / "rules" / "dpo" / "margin_is_enormous.yaml").write_text(RULE)
    return folder


def python(home, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(home), "COLUMNS": "100"}
    code = [sys.executable, *map(str, arguments)]
    done = subprocess.run(code, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def command(home, *arguments):
    return python(home, "-m", "trl_diagnostics", *arguments).stdout


def test_the_copy_is_what_runs(home):
    assert python(home, "-c", "import trl_diagnostics; print(trl_diagnostics.__file__)").stdout.startswith(str(home))


def test_it_is_listed(home):
    out = command(home, "rules", "--trainer", "dpo", "--status", "experimental")
    assert "margin_is_enormous (high, experimental): dpo\n    The margin is larger than any" in out


def test_it_is_shown_and_explained(home):
    out = command(home, "rules", "show", "margin_is_enormous")
    assert "\n  condition: > 1000 for 2 steps (window 1, silent before log 1)\n" in out
    out = command(home, "explain", "margin_is_enormous")
    assert "\nSpeaks when\n  > 1000\n  for 2 steps\n" in out
    assert "  margin_is_enormous (high): " in command(home, "explain", "reward_margin")


def test_it_is_checked_and_tested(home):
    file = home / "trl_diagnostics" / "rules" / "dpo" / "margin_is_enormous.yaml"
    assert command(home, "rules", "check", file) == "1 rule, 2 tests, 0 problems\n"
    assert command(home, "rules", "test", "margin_is_enormous") == (
        "margin_is_enormous: 2 tests, ok\n1 rule, 2 tests, 0 failed\n"
    )


def test_the_engine_has_it(home):
    assert "2 margin_is_enormous Margin at 2002.\n" in python(home, "-c", ENGINE).stdout


def test_it_speaks_live(home, tmp_path):
    said = python(home, "-c", LIVE, tmp_path).stderr
    assert "[HIGH] margin_is_enormous  step 2 (since 1)  experimental\n       Margin at 2000.\n" in said
    assert '"rule": "margin_is_enormous"' in (tmp_path / "diagnostics" / "findings.jsonl").read_text()
