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

"""`DiagnosticsCallback` on real trainings of tiny models: what it says, what it writes, and what it leaves alone."""

import json
import math
import random

import numpy as np
import pytest
import tiny
import tiny_data
import torch
from callback_kit import (
    KL_ALERT,
    LOSS_ALERT,
    At,
    Stage,
    bad,
    findings,
    lines,
    messages,
    poison,
    problems,
    records,
    replay,
    started,
    train,
    without_resume,
)
from transformers import TrainerCallback, TrainingArguments
from trl import DPOConfig, GRPOConfig

from trl_diagnostics import DiagnosticsCallback


pytestmark = pytest.mark.usefixtures("reports", "nothing_goes_on", "info_messages")


# Healthy runs


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_a_healthy_run_is_silent_and_leaves_its_records(kind, tmp_path, caplog):
    callback = DiagnosticsCallback()
    train(kind, tmp_path, callback, max_steps=60)
    (banner,) = messages(caplog, f"TRL diagnostics: {kind} (TRL ")
    assert banner.endswith(f"files in {tmp_path}/diagnostics") and "\n" not in banner
    assert ", 0 rules apply" not in banner
    assert messages(caplog, "[") == []
    assert messages(caplog, "TRL diagnostics: no findings in 60 logs")
    assert callback.broken == {}
    seen = records(tmp_path)
    assert [(record.step, record.phase) for record in seen] == [
        *((step, "train") for step in range(1, 61)),
        (60, "summary"),
    ]
    assert seen[0].metrics["loss"] > 0 and seen[0].metrics["nonfinite_parameters"] == 0.0
    assert bad(callback.findings) == []


def test_every_line_gives_its_record_back(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(preflight=False), [tiny.PoisonWeights(3)], max_steps=6)
    for line, record in zip(lines(tmp_path, "metrics.jsonl"), records(tmp_path), strict=True):
        assert list(line) == ["step", "time", "phase", "metrics"]
        assert record.to_json() == line
    assert any(math.isnan(value) for value in records(tmp_path)[-2].metrics.values())


def test_a_dpo_run_at_the_default_learning_rate_is_left_alone(tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("dpo", tmp_path, callback, max_steps=60, learning_rate=1e-6)
    assert trainer.state.global_step == 60
    assert bad(callback.findings) == []


def test_evaluation_is_a_phase_of_its_own(tmp_path):
    rows = tiny.text_dataset(16)
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=4, eval_strategy="steps", eval_steps=2, eval_dataset=rows)
    phases = [(record.step, record.phase) for record in records(tmp_path)]
    assert phases == [(1, "train"), (2, "train"), (2, "eval"), (3, "train"), (4, "train"), (4, "eval"), (4, "summary")]


def test_the_token_count_in_each_log_does_not_make_it_a_summary(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(), max_steps=2, include_num_input_tokens_seen="all")
    assert [record.phase for record in records(tmp_path)] == ["train", "train", "summary"]


def test_a_run_too_short_for_a_rule_is_told_once(tmp_path, caplog):
    train("sft", tmp_path, DiagnosticsCallback(custom_alerts=[LOSS_ALERT]), max_steps=20, logging_steps=10)
    (said,) = messages(caplog, "TRL diagnostics: ")[1:2]
    assert "need more than the 2 logs of this run (max_steps 20, logging_steps 10)" in said


# The NaN truth


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_weights_set_to_nan_stop_the_run_at_once(kind, tmp_path, caplog):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train(kind, tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    assert 10 <= trainer.state.global_step <= 12
    first = problems(callback.findings)[0]
    assert (first.severity, first.state) == ("critical", "started") and first.step <= 12
    assert len(messages(caplog, "[CRITICAL]")) == 1
    assert messages(
        caplog, f"[STOP] Training stops because of {first.rule}, found at step {trainer.state.global_step}. "
    )
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


def test_the_probe_sees_nan_in_the_log_of_the_same_step(tmp_path):
    train("sft", tmp_path, DiagnosticsCallback(stop_on_critical=True), [tiny.PoisonWeights(10)], max_steps=30)
    before, after = (record.metrics["nonfinite_parameters"] for record in records(tmp_path)[8:10])
    assert before == 0.0 and after > 20


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_nan_is_flagged_without_stopping(kind, tmp_path):
    callback = DiagnosticsCallback()
    trainer = train(kind, tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    assert trainer.state.global_step == 30
    first = problems(callback.findings)[0]
    assert first.severity == "critical" and first.step <= 12
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


def test_nan_in_grpo_is_flagged_before_sampling_raises(tmp_path):
    callback = DiagnosticsCallback()
    with pytest.raises(RuntimeError, match="probability tensor"):
        train("grpo", tmp_path, callback, [tiny.PoisonWeights(10)], max_steps=30)
    first = problems(findings(tmp_path))[0]
    assert first.severity == "critical" and first.step <= 12


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [("sft", {}), ("dpo", {}), ("grpo", {"generation_kwargs": {"remove_invalid_values": True}})],
    ids=["sft", "dpo", "grpo"],
)
def test_nan_in_the_middle_of_a_step(kind, overrides, tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train(kind, tmp_path, callback, [At(10, poison)], max_steps=30, **overrides)
    assert 10 <= trainer.state.global_step <= 12
    assert problems(callback.findings)[0].severity == "critical"


def test_grpo_with_a_constant_reward_names_its_cause(tmp_path):
    callback = DiagnosticsCallback()
    train(
        "grpo", tmp_path, callback, max_steps=30, reward_funcs=lambda completions, **kwargs: [0.5] * len(completions)
    )
    before, first, worst, *more = [finding for finding in problems(callback.findings) if finding.state == "started"]
    assert (before.rule, before.severity, before.step) == ("reward_function_pays_everything_the_same", "low", 0)
    assert (first.rule, first.severity) == ("reward_constant_so_far", "medium") and first.step <= 10
    assert (worst.rule, worst.severity, more) == ("reward_constant", "high", [])
    assert [line.to_json() for line in findings(tmp_path)] == replay(callback, tmp_path)


# Which trainer it is


def test_a_subclassed_config_is_that_of_its_base(tmp_path):
    class MyConfig(DPOConfig):
        pass

    assert Stage(DiagnosticsCallback(), tmp_path, MyConfig).callback.metric_map.trainer == "dpo"


def test_plain_training_arguments_get_every_rule_whose_metrics_appear(tmp_path, caplog):
    callback = DiagnosticsCallback(custom_alerts=["grpo: `boom` > 0.5 for 1 steps -> high: boom"])
    stage = Stage(callback, tmp_path, TrainingArguments)
    assert messages(caplog, "TRL diagnostics: unknown (TRL ")
    for _ in range(31):
        stage.log({"loss": 1.0, "boom": 1.0})
    assert started(callback.findings) == [("alert_boom_gt_0_5_for_1_steps", 30)]


# Training is the same as without


class Recorder(TrainerCallback):
    def __init__(self):
        self.losses = []

    def on_log(self, args, state, control, logs, **kwargs):
        self.losses.append(
            {key: value for key, value in logs.items() if "time" not in key and "per_second" not in key}
        )


def outcome(kind, folder, callback):
    recorder = Recorder()
    trainer = train(kind, folder, callback, [recorder], max_steps=12)
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    draws = (torch.rand(3).tolist(), random.random(), np.random.rand())
    return weights, recorder.losses, draws


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo"])
def test_weights_losses_and_random_states_are_the_same_with_and_without(kind, tmp_path):
    weights, losses, draws = outcome(kind, tmp_path / "without", None)
    callback = DiagnosticsCallback(custom_alerts=["all: loss > -99 for 2 steps -> low: said"], stop_on_critical=True)
    with_weights, with_losses, with_draws = outcome(kind, tmp_path / "with", callback)
    assert torch.equal(weights, with_weights)
    assert losses == with_losses
    assert draws == with_draws


# What looks odd and is not


def test_an_evaluation_between_two_logs_changes_no_verdict(tmp_path):
    alert = "all: `boom` > 0 and delta(step) == 10 for 3 steps -> low: every tenth step"
    stage = Stage(DiagnosticsCallback(custom_alerts=[alert]), tmp_path, logging_steps=10)
    for step in range(5, 405, 5):
        stage.state.global_step = step - 1
        stage.log({"loss": 1.0, "boom": 1.0} if step % 10 == 0 else {"eval_loss": 1.0})
    assert started(stage.callback.findings) == [("alert_boom_gt_0_and_delta_step_eq_10_for_3_steps", 300)]


def test_what_the_user_logs_is_no_training_log(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path)
    stage.log({"loss": 1.0}, model=torch.nn.Linear(1, 1))
    stage.log({"latency": 3.0}, model=torch.nn.Linear(1, 1))
    assert [(record.phase, sorted(record.metrics)) for record in records(tmp_path)] == [
        ("train", ["loss", "nonfinite_parameters"]),
        ("probe", ["latency"]),
    ]
    assert stage.callback.engine.records == 1


def test_a_rule_that_comes_and_goes_fills_neither_screen_nor_checkpoint(tmp_path, caplog):
    stage = Stage(DiagnosticsCallback(custom_alerts=[KL_ALERT]), tmp_path)
    for step in range(1, 1001):
        stage.log({"loss": 1.0, "boom": float(step % 2)})
    stage.end()
    assert len(messages(caplog, "[HIGH] alert_boom")) == 3
    assert len(messages(caplog, "       alert_boom_gt_0_5_for_1_steps has come 3 times; from now on")) == 1
    assert len(stage.callback.findings) == 6
    assert len(started(findings(tmp_path))) == 485
    assert len(json.dumps(stage.callback.state())) < 60_000
    assert "and 482 more times" in caplog.text


def test_loss_alone_does_not_make_a_plain_run_a_distillation(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path, TrainingArguments)
    for step in range(1, 101):
        stage.log({"loss": 0.05 if step < 50 else 0.3, "grad_norm": 1.0})
    assert bad(stage.callback.findings) == []
    assert "teacher_equals_student" not in stage.callback.engine.coverage()


def test_what_an_option_turns_off_does_not_apply_from_the_start(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path, GRPOConfig)
    before = stage.callback.engine.coverage()
    assert before["kl_runaway"] == before["importance_sampling_ratio_low"] == "not applicable"
    stage = Stage(DiagnosticsCallback(), tmp_path, GRPOConfig, beta=0.04, use_vllm=True)
    assert stage.callback.engine.coverage()["kl_runaway"] == "too few logs"


def test_an_evaluation_after_the_checkpoint_does_not_tell_its_story_twice(tmp_path):
    rule = "name: ev\ntrainers: [all]\nmetric: eval_loss\ncondition: '> 0 for 2 steps'\nmin_steps: 1\nseverity: low\nmessage: x\n"
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ev.yaml").write_text(rule)
    options = {"eval_dataset": tiny_data.text_dataset(8), "eval_strategy": "steps", "eval_steps": 5, "max_steps": 10}
    options |= {"save_strategy": "steps", "save_steps": 5, "lr_scheduler_type": "constant"}
    first = train("sft", tmp_path, DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules"), **options)
    first.evaluate()
    callback = DiagnosticsCallback(custom_heuristics_dir=tmp_path / "rules")
    train("sft", tmp_path, callback, resume=str(tmp_path / "checkpoint-10"), **(options | {"max_steps": 20}))
    assert started(without_resume(findings(tmp_path))) == [("ev", 10)]
    assert replay(callback, tmp_path) == lines(tmp_path, "findings.jsonl")


def test_weights_are_looked_at_in_evaluation_too(tmp_path, caplog):
    options = {"eval_dataset": tiny_data.text_dataset(8), "eval_strategy": "steps", "eval_steps": 5}
    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("sft", tmp_path, callback, [tiny.PoisonWeights(3)], max_steps=20, logging_strategy="no", **options)
    assert trainer.state.global_step == 4  # the next step shows it already, and is not taken
    assert started(callback.findings) == [("nonfinite_weights", 4)]


def test_a_train_loss_of_the_users_own_is_no_summary(tmp_path):
    stage = Stage(DiagnosticsCallback(), tmp_path)
    stage.log({"loss": 1.0, "train_loss": 2.0})
    stage.log({"train_loss": 2.0, "train_runtime": 1.0})
    assert [record.phase for record in records(tmp_path)] == ["train", "summary"]


def test_a_new_name_in_each_log_does_not_grow_without_end(tmp_path):
    alert = "grpo: rewards/*/std > 100 -> low: x"
    stage = Stage(DiagnosticsCallback(custom_alerts=[alert]), tmp_path, GRPOConfig)
    for step in range(3000):
        stage.log({"loss": 1.0, f"rewards/f_{step}/std": 1.0})
    assert len(stage.callback.engine.seen) == 1000
    assert len(stage.callback.engine.histories) < 2500
