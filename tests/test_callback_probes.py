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

"""The probes in real trainings: what they find of a fault, at which step, and that a bad step is not taken."""

import gc
import json
import math
import time
import weakref

import pytest
import tiny
import torch
from callback_kit import findings, lines, started, train
from failure_lab.injections import scale_loss
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import TrainerCallback

from trl_diagnostics import DiagnosticsCallback


pytestmark = pytest.mark.usefixtures("reports", "info_messages")

NAN_AT = 7
GOES_ON = {"grpo", "rloo"}  # nothing can be sampled from NaN, so that they would end with an error


def nan_batch(kind, folder, stop, **overrides):
    callback = DiagnosticsCallback(stop_on_critical=stop, preflight=False)
    if kind in GOES_ON:
        overrides["generation_kwargs"] = {"remove_invalid_values": True}
    saving = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 3}
    trainer = tiny.make_trainer(kind, folder, [callback], max_steps=10, **saving, **overrides)
    scale_loss(lambda call: math.nan if call == NAN_AT else 1.0)(trainer)
    trainer.train()
    assert callback.broken == {}
    return callback, trainer


def serious(found):
    return [finding for finding in found if finding.severity not in ("info", "low")]


def is_finite(tensors):
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo", "rloo"])
def test_a_nan_batch_stops_at_its_step_and_never_reaches_the_weights(kind, tmp_path):
    callback, trainer = nan_batch(kind, tmp_path, True)
    assert trainer.state.global_step == NAN_AT
    found = serious(callback.findings)
    assert started(found) == [("gradients_nonfinite", NAN_AT)]
    assert found[0].message == (
        f"NaN or infinite gradients in step {NAN_AT}: 27, first model.embed_tokens.weight (loss of its last batch: nan)."
    )
    assert is_finite(trainer.model.parameters())
    saved = sorted(tmp_path.glob("checkpoint-*/model.safetensors"))
    assert len(saved) == 3 and all(is_finite(load_file(file).values()) for file in saved)
    moments = [value for state in trainer.optimizer.state.values() for value in state.values()]
    assert is_finite(value for value in moments if isinstance(value, torch.Tensor))
    assert json.loads((tmp_path / "diagnostics" / "postmortem.json").read_text())["exit_reason"] == "stopped_by_rule"


@pytest.mark.parametrize("kind", ["sft", "dpo", "kto", "grpo", "rloo"])
def test_without_a_stop_a_nan_batch_is_named_at_its_step(kind, tmp_path):
    callback, trainer = nan_batch(kind, tmp_path, False)
    assert trainer.state.global_step == 10
    assert started(serious(callback.findings))[:2] == [("gradients_nonfinite", NAN_AT), ("nonfinite_weights", NAN_AT)]
    assert not is_finite(trainer.model.parameters())


def test_a_bad_step_between_two_logs_is_told_at_once(tmp_path):
    callback, trainer = nan_batch("sft", tmp_path, True, logging_steps=5)
    assert trainer.state.global_step == NAN_AT
    assert started(findings(tmp_path)) == [("gradients_nonfinite", NAN_AT)]


def test_a_muted_rule_leaves_the_step_alone(tmp_path):
    callback = DiagnosticsCallback(
        stop_on_critical=True, disable=["gradients_nonfinite", "nonfinite_weights", "*nan*"]
    )
    trainer = tiny.make_trainer("sft", tmp_path, [callback], max_steps=10)
    scale_loss(lambda call: math.nan if call == NAN_AT else 1.0)(trainer)
    trainer.train()
    assert not is_finite(trainer.model.parameters())


def test_a_run_that_was_stopped_before_a_bad_step_goes_on_when_it_is_resumed(tmp_path):
    nan_batch("sft", tmp_path, True)
    callback = DiagnosticsCallback(stop_on_critical=True, preflight=False)
    trainer = tiny.make_trainer("sft", tmp_path, [callback], max_steps=14, save_strategy="no")
    trainer.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{NAN_AT}"))
    assert trainer.state.global_step == 14 and is_finite(trainer.model.parameters())


def test_an_infinite_gradient_is_named_by_its_parameter(tmp_path):
    class Overflow(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **kwargs):
            if state.global_step == 3:  # of the fourth step
                weight = model.get_submodule("model.layers.1.mlp.down_proj").weight
                handle = weight.register_hook(lambda gradient: handle.remove() or torch.full_like(gradient, math.inf))

    callback = DiagnosticsCallback(stop_on_critical=True)
    trainer = train("sft", tmp_path, callback, [Overflow()], max_steps=10)
    assert trainer.state.global_step == 4
    (found,) = [finding for finding in callback.findings if finding.severity == "critical"]
    assert found.message.startswith(
        "NaN or infinite gradients in step 4: 1, first model.layers.1.mlp.down_proj.weight (loss of its last batch: "
    )


def test_a_gradient_scaler_skips_steps_as_it_is_meant_to(tmp_path):
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer("sft", tmp_path, [callback], max_steps=1)
    trainer.args.mixed_precision = "fp16"  # as `accelerate launch --mixed_precision fp16` sets it
    callback.on_train_begin(trainer.args, trainer.state, trainer.control, model=trainer.model)
    assert callback.probes.gradients is None
    callback.on_train_end(trainer.args, trainer.state, trainer.control)


def watched(kind, folder, steps=30, **overrides):
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer(kind, folder, [callback], max_steps=steps, **overrides)
    trainer.train()
    assert callback.broken == {}
    return started(serious(callback.findings))


def test_an_optimizer_of_another_model(tmp_path):
    other = torch.optim.AdamW(tiny.tiny_model().parameters(), lr=1e-3)
    assert ("weights_do_not_change", 20) in watched("sft", tmp_path, optimizers=(other, None))


def test_16_bit_weights_and_a_small_learning_rate(tmp_path):
    model = tiny.saved_model().to(torch.bfloat16)
    assert ("updates_rounded_away", 30) in watched(
        "sft", tmp_path, model=model, learning_rate=1e-7, lr_scheduler_type="constant"
    )


def test_an_adapter_that_no_optimizer_reaches(tmp_path):
    other = torch.optim.AdamW(tiny.tiny_model().parameters(), lr=1e-3)
    found = watched(
        "sft", tmp_path, peft_config=LoraConfig(r=4, target_modules="all-linear"), optimizers=(other, None)
    )
    assert ("adapter_stays_at_zero", 20) in found and "weights_do_not_change" not in dict(found)


def test_a_healthy_adapter(tmp_path):
    assert watched("sft", tmp_path, peft_config=LoraConfig(r=4, target_modules="all-linear")) == []
    last = [line["metrics"] for line in lines(tmp_path, "metrics.jsonl") if "adapter_at_zero" in line["metrics"]][-1]
    assert last["adapter_at_zero"] == 0.0 and last["weights_changed"] > 0.9


def test_parameters_that_nothing_leads_to(tmp_path):
    model = tiny.saved_model()
    model.unused = torch.nn.ParameterList(torch.nn.Parameter(torch.ones(2)) for _ in range(60))
    assert watched("sft", tmp_path, 40, model=model) == [("gradients_missing", 30)]


@pytest.mark.slow
def test_waiting_for_slow_data(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path, [callback := DiagnosticsCallback()], max_steps=25)
    inner = trainer.data_collator

    def slow(rows):
        time.sleep(0.15)
        return inner(rows)

    trainer.data_collator = slow
    trainer.train()
    assert [(f.rule, f.step) for f in callback.findings if f.severity == "low"] == [("training_waits_for_data", 20)]


def test_the_callback_holds_on_to_no_model_after_the_training(tmp_path):
    callback = DiagnosticsCallback()
    trainer = tiny.make_trainer("grpo", tmp_path, [callback], max_steps=2)
    trainer.train()
    model = weakref.ref(trainer.model)
    trainer.callback_handler.callbacks.clear()
    del trainer
    gc.collect()
    assert model() is None and callback.findings is not None


def test_what_is_found_before_the_first_step_does_not_wait_for_a_log(tmp_path):
    callback = DiagnosticsCallback(stop_on_critical=True)
    other = torch.optim.AdamW(tiny.tiny_model().parameters(), lr=1e-3)
    trainer = train("sft", tmp_path, callback, max_steps=30, logging_steps=20, optimizers=(other, None))
    assert trainer.state.global_step == 1
    assert callback.stop.because.rule == "optimizer_without_the_model"
