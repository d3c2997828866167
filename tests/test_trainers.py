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

"""Every trainer for real: which one it is, whether each logged key is known, and that healthy defaults are left alone."""

import importlib
import inspect
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import trl
from tiny_data import (
    chat_dataset,
    preference_dataset,
    prompt_dataset,
    text_dataset,
    unpaired_dataset,
)
from transformers import TrainerCallback, TrainingArguments

from trl_diagnostics import DiagnosticsCallback, Engine, MetricMap, Record
from trl_diagnostics.engine.engine import BLIND
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import trainer_of


SCRIPTS = Path(__file__).parents[1] / "scripts"
EVAL_DATASETS = {
    "sft": text_dataset,
    "dpo": preference_dataset,
    "kto": unpaired_dataset,
    "reward": preference_dataset,
    "grpo": prompt_dataset,
    "rloo": prompt_dataset,
    "distillation": prompt_dataset,
    "orpo": preference_dataset,
    "cpo": preference_dataset,
    "online_dpo": None,  # TRL 1.16 cannot evaluate it: the model is called with texts
    "gkd": chat_dataset,
}
# No argument of the run tells whether there are tools, so these rules wait for their metric.
WAITING = {"tools_failing", "tools_never_called"}


class Keys(TrainerCallback):
    def __init__(self):
        self.keys = set()

    def on_log(self, args, state, control, logs, **kwargs):
        self.keys |= logs.keys()


def unknown_keys(keys, metric_map):
    return sorted(key for key in keys if not metric_map.is_logged(key))


def surprisingly_blind(engine, metric_map):
    """Rules that wait for a metric in vain although the trainer can log it and their `when` holds."""
    blind = {name for name, status in engine.coverage().items() if status == BLIND}
    return [r.name for r in engine.rules if r.name in blind - WAITING and metric_map.is_logged(r.metric)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", EVAL_DATASETS)
def test_a_healthy_run(kind, tmp_path):
    keys, callback = Keys(), DiagnosticsCallback(stop_on_critical=True)
    rows = EVAL_DATASETS[kind] and EVAL_DATASETS[kind](16, seed=1)
    evaluation = {"eval_dataset": rows, "eval_strategy": "steps", "eval_steps": 20} if rows else {}
    trainer = tiny.make_trainer(kind, tmp_path, [keys, callback], max_steps=40, **evaluation)
    trainer.train()
    assert trainer.state.global_step == 40
    assert callback.broken == {}
    assert callback.metric_map.trainer == kind.replace("_", "")
    assert any(key.startswith("eval_") for key in keys.keys) == bool(rows)
    assert unknown_keys(keys.keys, callback.metric_map) == []
    odd = [finding for finding in callback.findings if finding.severity != "info"]  # not what is called normal
    assert [f"{finding.rule} at {finding.step}: {finding.message}" for finding in odd] == []
    assert surprisingly_blind(callback.engine, callback.metric_map) == []


@pytest.mark.slow
def test_a_healthy_ppo_run(trl_with_ppo, tmp_path):
    """In a process of its own: PPO left TRL after 1.12.0."""
    command = [
        sys.executable,
        SCRIPTS / "tiny.py",
        "ppo",
        "--steps",
        "40",
        "--trl-path",
        trl_with_ppo,
        "--diagnostics",
    ]
    command += ["--log", tmp_path / "log.jsonl", "--output-dir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    (banner,) = [line for line in done.stderr.splitlines() if "rules apply" in line]
    assert banner.startswith("TRL diagnostics: ppo (TRL 1.12.0), ")
    assert "no findings in 40 logs" in done.stderr and "Error of the diagnostics" not in done.stderr

    head, *logs = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    metric_map = MetricMap("ppo", "1.12.0")
    assert unknown_keys(set().union(*logs) - {"step"}, metric_map) == []
    records = map(json.loads, (tmp_path / "diagnostics" / "metrics.jsonl").read_text().splitlines())
    records = [Record.from_json(record) for record in records]
    steps = [(0, "preflight"), *((step, "train") for step in range(1, 41))]
    assert [(record.step, record.phase) for record in records] == steps
    engine = Engine(collect_rules(), "ppo", head["config"], metric_map)
    assert [engine.update(record) for record in records] == [[]] * 41
    assert surprisingly_blind(engine, metric_map) == []


def config_classes():
    """Every config class of the installed TRL that belongs to a trainer."""
    modules = ["trl.trainer", "trl.experimental"]
    for package in map(importlib.import_module, modules.copy()):
        modules += [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    found = {}
    for name in modules:
        if name.endswith("_config") or name.startswith("trl.experimental."):
            try:
                module = importlib.import_module(name)
            except ImportError:  # an experimental trainer that needs a package of its own
                continue
            members = inspect.getmembers(module, inspect.isclass)
            found |= {cls.__name__: cls for _, cls in members if issubclass(cls, TrainingArguments)}
    return {name: cls for name, cls in found.items() if name.endswith("Config") and not name.startswith("_")}


CONFIGS = config_classes()


def names(cls):
    return [base.__name__ for base in cls.__mro__]


def test_the_configs_are_found():
    assert {"SFTConfig", "DPOConfig", "GRPOConfig", "OnlineDPOConfig", "GKDConfig", "AsyncGRPOConfig"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_gives_its_trainer(name):
    assert trainer_of(names(CONFIGS[name])) == name.removesuffix("Config").lower()
    subclass = type("MyConfig", (CONFIGS[name],), {})
    assert trainer_of(names(subclass)) == name.removesuffix("Config").lower()


def test_other_training_arguments_give_none():
    assert trainer_of(names(TrainingArguments)) is None
    assert trl.__version__ and trainer_of(["MyConfig", "object"]) is None
