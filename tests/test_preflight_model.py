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

"""Faults of model, optimizer, precision and disk are planted in real trainers: each is named before step 1, alone."""

import copy
import shutil
from collections import namedtuple

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from preflight_kit import begin, report, said, seen
from tiny_models import saved_model
from torch import nn

from trl_diagnostics.sources import preflight_model
from trl_diagnostics.sources.preflight_model import (
    _active_dropout,
    _checkpoint_bytes,
    _checkpoints_kept,
    _differing_share,
    disk,
    hardware,
    learning_rate,
    length,
    optimized,
    precision,
    reference,
    reward_models,
    teacher,
    trainable,
)
from trl_diagnostics.sources.unseen import Unseen


SIZE = 21920  # of the tiny model
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
Usage = namedtuple("Usage", "total used free")


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=1e-3), None


def changed(model):
    """The model as a training would have left it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01)
    return model


KINDS = ["sft", "dpo", "kto", "reward", "grpo", "rloo", "orpo", "cpo", "online_dpo", "distillation", "gkd"]
SETTINGS = [(kind, {}) for kind in KINDS] + [
    ("sft", {"peft_config": LORA}),
    ("dpo", {"peft_config": LORA}),
    ("kto", {"peft_config": LORA}),
    ("grpo", {"peft_config": LORA, "beta": 0.04}),
    ("rloo", {"peft_config": LORA, "beta": 0.04}),
    ("grpo", {"beta": 0.04}),
    ("rloo", {"beta": 0.04}),
    ("grpo", {"beta": 0.04, "sync_ref_model": True}),
    ("dpo", {"ref_model": None}),
    ("sft", {"save_strategy": "steps", "save_steps": 5}),
    ("sft", {"max_steps": -1, "num_train_epochs": 1}),
]


@pytest.mark.parametrize(("kind", "overrides"), SETTINGS)
def test_healthy_trainings_are_silent(tmp_path, kind, overrides):
    if overrides.get("ref_model", "") is None or kind == "grpo":
        overrides = {**overrides, "model": saved_model().name_or_path}
    callback = begin(tmp_path, kind, **overrides)
    assert said(callback) == []
    assert list(report(tmp_path)["unseen"]) == ["lost completions"] * (kind == "kto")  # see docs/source/preflight.md
    assert sum(report(tmp_path)["seconds"].values()) < 5


def test_a_frozen_model(tmp_path):
    callback = begin(tmp_path, "sft", lambda trainer: trainer.model.requires_grad_(False))
    assert said(callback) == [
        ("nothing_trainable", "No parameter of the model has requires_grad: training will change nothing.")
    ]
    assert seen(tmp_path)["trainable_parameters"] == 0
    assert seen(tmp_path)["model_parameters"] == SIZE


def test_an_optimizer_of_another_copy(tmp_path):
    callback = begin(tmp_path, "sft", optimizers=adamw(tiny.tiny_model().parameters()))
    assert said(callback) == [
        (
            "optimizer_without_the_model",
            "The optimizer holds none of the 21,920 numbers that are trained: training will change nothing.",
        )
    ]
    assert seen(tmp_path)["optimizer_parameters_elsewhere"] == SIZE


def test_an_optimizer_from_before_the_adapter(tmp_path):
    model = tiny.tiny_model()
    optimizers = adamw(list(model.parameters()))
    callback = begin(tmp_path, "sft", model=model, peft_config=LORA, optimizers=optimizers)
    assert said(callback) == [
        (
            "optimizer_without_the_model",
            "The optimizer holds none of the 896 numbers that are trained: training will change nothing.",
        )
    ]
    assert seen(tmp_path)["optimizer_parameters_elsewhere"] == 0


def test_an_optimizer_that_misses_a_part(tmp_path):
    model = tiny.tiny_model()
    callback = begin(tmp_path, "sft", model=model, optimizers=adamw(list(model.parameters())[1:]))
    missing = next(model.parameters()).numel()
    assert said(callback) == [
        (
            "optimizer_misses_parameters",
            f"No optimizer holds {missing:,} of the 21,920 numbers with requires_grad: they stay as they are.",
        )
    ]


def test_an_optimizer_with_strangers(tmp_path):
    model = tiny.tiny_model()
    callback = begin(
        tmp_path, "sft", model=model, optimizers=adamw([*model.parameters(), nn.Parameter(torch.ones(7))])
    )
    assert said(callback) == [
        ("optimizer_holds_strangers", "The optimizer holds 7 numbers that are not in the model.")
    ]


def test_before_training_there_is_no_optimizer(tmp_path):
    with pytest.raises(Unseen, match="^the optimizer is built when training begins$"):
        optimized(tiny.make_trainer("sft", tmp_path))


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("is_deepspeed_enabled", "DeepSpeed keeps its own copies of the parameters"),
        ("is_fsdp_enabled", "the parameters are kept in shards"),
    ],
)
@pytest.mark.parametrize("check", [optimized, reference, teacher, precision, disk])
def test_sharded_models_are_not_looked_at(tmp_path, check, flag, why):
    kind = "gkd" if check is teacher else "dpo"
    trainer = tiny.make_trainer(kind, tmp_path, save_strategy="steps")
    vars(trainer)[flag] = True
    with pytest.raises(Unseen, match=why):
        check(trainer)


def test_optimizers_that_update_layer_by_layer(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path, optimizers=adamw([nn.Parameter(torch.ones(1))]))
    trainer.args.optim = "galore_adamw_layerwise"
    with pytest.raises(Unseen, match="^galore_adamw_layerwise updates each layer by itself$"):
        optimized(trainer)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_another_checkpoint_as_reference(tmp_path, kind):
    callback = begin(tmp_path, kind, ref_model=saved_model("teacher"))
    share = seen(tmp_path)["reference_differing_share"]
    assert share > 0.9
    assert said(callback) == [
        (
            "reference_is_another_model",
            f"{share:.0%} of the weights of reference and policy differ before the first step: they are not the same "
            "model.",
        )
    ]


def test_the_policy_was_changed_in_memory(tmp_path):
    callback = begin(tmp_path, "grpo", model=changed(saved_model()), beta=0.04)
    assert [rule for rule, _ in said(callback)] == ["reference_is_another_model"]


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_shallow_copy_as_reference(tmp_path, kind):
    model = saved_model()
    callback = begin(tmp_path, kind, model=model, ref_model=copy.copy(model))
    assert said(callback) == [
        (
            "reference_shares_weights",
            "The reference model shares 21,920 trained numbers with the policy: it changes with each update.",
        )
    ]


class Noisy(nn.Module):
    def __init__(self, p=0.1):
        super().__init__()
        self.drop, self.linear = nn.Dropout(p), nn.Linear(2, 2)


def test_dropout_in_the_reference(tmp_path):
    def disturb(trainer):
        trainer.ref_model.model.noise = nn.Dropout(0.1)
        trainer.ref_model.train()

    assert said(begin(tmp_path, "dpo", disturb)) == [
        ("reference_has_dropout", "1 dropout layers of the reference model are on: its log-probabilities are noise.")
    ]


@pytest.mark.parametrize(("p", "training", "layers"), [(0.1, True, 1), (0.1, False, 0), (0.0, True, 0)])
def test_dropout_counts_when_it_is_on(p, training, layers):
    assert _active_dropout(Noisy(p).train(training)) == layers


def test_dropout_in_a_reward_model(tmp_path):
    model = saved_model("reward")
    model.noise = nn.Dropout(0.1)
    callback = begin(tmp_path, "grpo", reward_funcs=model.train(), reward_processing_classes=tiny.tiny_tokenizer())
    assert said(callback) == [
        (
            "reward_model_has_dropout",
            "1 dropout layers of reward models are on: the same completion gets another reward each time.",
        )
    ]
    name = model.config._name_or_path.split("/")[-1]
    assert report(tmp_path)["unseen"] == {"reward functions": f"{name} is a model"}


@pytest.mark.parametrize("kind", ["distillation", "gkd"])
def test_the_student_as_teacher(tmp_path, kind):
    assert said(begin(tmp_path, kind, teacher_model=saved_model())) == [
        (
            "teacher_is_the_student",
            "All sampled weights of teacher and student are equal: there is nothing to learn from this teacher.",
        )
    ]


class TestDifferingShare:
    def test_copies(self):
        assert _differing_share(saved_model(), saved_model()) == 0.0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_a_rounded_copy_is_equal(self, dtype):
        assert _differing_share(saved_model(), saved_model().to(dtype)) == 0.0
        assert _differing_share(saved_model().to(dtype), saved_model()) == 0.0

    def test_an_adapter_does_not_count(self):
        assert _differing_share(get_peft_model(saved_model(), LORA), saved_model()) == 0.0

    def test_one_tensor_of_several(self):
        one, other = (nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(4))) for _ in range(2))
        other.load_state_dict(one.state_dict())
        with torch.no_grad():
            other[2].weight.add_(1.0)
        assert _differing_share(one, other) == 0.25

    def test_another_architecture(self):
        assert _differing_share(saved_model(), nn.Linear(3, 3)) == 1.0

    def test_resized_embeddings_are_left_out(self):
        other = saved_model()
        other.resize_token_embeddings(64)
        assert _differing_share(other, saved_model()) == 0.0

    def test_quantized_weights(self):
        one = nn.ParameterList([nn.Parameter(torch.ones(4, dtype=torch.uint8), requires_grad=False)])
        with pytest.raises(Unseen, match="^the weights of one of the models are quantized$"):
            _differing_share(one, one)


@pytest.mark.parametrize(
    ("kind", "rate", "usual"),
    [
        ("sft", 2e-5, "supervised fine-tuning"),
        ("dpo", 1e-6, "preference data"),
        ("grpo", 1e-6, "reinforcement learning"),
    ],
)
def test_a_rate_for_full_fine_tuning_and_an_adapter(tmp_path, kind, rate, usual):
    callback = begin(tmp_path, kind, peft_config=LORA, learning_rate=rate)
    name = {"sft": "sft", "dpo": "preference", "grpo": "rl"}[kind]
    assert said(callback) == [
        (
            f"{name}_lora_lr_too_low",
            f"Learning rate {rate:.2g} for a LoRA adapter: about ten times as much is usual for {usual}.",
        )
    ]


@pytest.mark.parametrize(
    ("kind", "rate", "rule", "usual"),
    [
        ("sft", 5e-4, "sft_full_lr_high", "1e-5 to 5e-5"),
        ("dpo", 1e-4, "preference_full_lr_high", "5e-7 to 5e-6"),
        ("rloo", 1e-4, "rl_full_lr_high", "5e-7 to 3e-6"),
    ],
)
def test_a_rate_for_an_adapter_and_a_large_model(tmp_path, monkeypatch, kind, rate, rule, usual):
    large = {"trainable_parameters": 7e9, "model_parameters": 7e9}
    monkeypatch.setitem(preflight_model.MODEL_CHECKS, "trainable parameters", lambda trainer: large)
    callback = begin(tmp_path, kind, learning_rate=rate)
    assert said(callback) == [
        (rule, f"Learning rate {rate:.2g} for all 7e+09 parameters: {usual} is usual without LoRA.")
    ]


def test_a_part_of_the_model_has_no_usual_rate(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path)
    next(trainer.model.parameters()).requires_grad_(False)
    assert learning_rate(trainer) == {}


def test_names_of_parameters_under_fsdp(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path)
    trainer.is_fsdp_enabled = True
    with pytest.raises(Unseen, match="^FSDP may have put adapter and model into one parameter$"):
        learning_rate(trainer)


def test_weights_in_float16(tmp_path):
    callback = begin(tmp_path, "sft", model=tiny.tiny_model().half())
    assert said(callback) == [
        ("weights_in_fp16", "100% of the trained weights are kept in float16: expect NaN within a few steps.")
    ]


def test_weights_in_bfloat16_and_small_steps(tmp_path):
    callback = begin(tmp_path, "sft", model=tiny.tiny_model().bfloat16(), learning_rate=1e-6)
    assert said(callback) == [
        (
            "bf16_rounds_updates_away",
            "100% of the trained weights are in bfloat16 and the learning rate is small: updates are rounded away.",
        )
    ]


def test_weights_in_bfloat16_and_large_steps(tmp_path):
    assert said(begin(tmp_path, "sft", model=tiny.tiny_model().bfloat16())) == []


def test_a_gpu_that_is_not_used(tmp_path, monkeypatch):
    trainer = tiny.make_trainer("sft", tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert hardware(trainer) == {}  # use_cpu says that this is meant
    trainer.args.use_cpu = False
    assert hardware(trainer) == {"gpus_not_used": 2.0}


def test_no_space_for_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 2**40, 0))
    callback = begin(tmp_path, "sft", save_strategy="steps", save_steps=5)
    assert said(callback) == [
        (
            "disk_too_small_for_a_checkpoint",
            "0.0 GiB are free for checkpoints, and a single one takes 0.0 GiB: saving will fail.",
        )
    ]


def test_no_space_for_all_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(2**40, 2**40, 3 * 4 * SIZE * 2))
    callback = begin(tmp_path, "sft", save_strategy="steps", save_steps=5)
    assert [rule for rule, _ in said(callback)] == ["disk_too_small_for_all_checkpoints"]
    limited = begin(tmp_path / "limited", "sft", save_strategy="steps", save_steps=5, save_total_limit=1)
    assert said(limited) == []


def test_nothing_is_saved(tmp_path):
    assert disk(tiny.make_trainer("sft", tmp_path)) == {}


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 3 * 4 * SIZE),
        ({"save_only_model": True}, 4 * SIZE),
        ({"optim": "sgd"}, 4 * SIZE),
        ({"optim": "adamw_8bit"}, 4 * SIZE + 2 * SIZE),
        ({"peft_config": LORA}, 3 * 4 * 896),
    ],
)
def test_size_of_a_checkpoint(tmp_path, arguments, size):
    assert _checkpoint_bytes(tiny.make_trainer("sft", tmp_path, **arguments)) == size


@pytest.mark.slow
def test_the_estimate_is_the_size_of_a_real_checkpoint(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    files = [tmp_path / "checkpoint-1" / name for name in ("model.safetensors", "optimizer.pt")]
    assert _checkpoint_bytes(trainer) == pytest.approx(sum(file.stat().st_size for file in files), rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ({"save_strategy": "steps", "save_steps": 50}, 6),
        ({"save_strategy": "steps", "save_steps": 0.25}, 4),
        ({"save_strategy": "steps", "save_steps": 50, "save_total_limit": 2}, 3),
        ({"save_strategy": "steps", "save_steps": 1000, "save_total_limit": 2}, 1),
        ({"save_strategy": "epoch", "num_train_epochs": 3}, 3),
        ({"save_strategy": "steps", "max_steps": -1}, 1),
    ],
)
def test_checkpoints_that_are_kept(tmp_path, arguments, kept):
    assert _checkpoints_kept(tiny.make_trainer("sft", tmp_path, **arguments)) == kept


def test_epochs_of_a_few_updates(tmp_path):
    short = {"max_steps": -1, "num_train_epochs": 1, "gradient_accumulation_steps": 64}
    assert said(begin(tmp_path, "sft", **short)) == [
        ("few_updates", "2 updates in all, 512 samples each: too few for warm-up, schedule and most rules.")
    ]


def test_few_updates_that_were_asked_for(tmp_path):
    assert said(begin(tmp_path, "sft", max_steps=2)) == []


def test_before_training_the_number_of_updates_is_unknown(tmp_path):
    with pytest.raises(Unseen, match="^the number of steps is known when training begins$"):
        length(tiny.make_trainer("sft", tmp_path, max_steps=-1))


def test_what_is_not_there_is_not_measured(tmp_path):
    trainer = tiny.make_trainer("sft", tmp_path)
    assert (reference(trainer), teacher(trainer), reward_models(trainer)) == ({}, {}, {})
    assert trainable(trainer) == {"trainable_parameters": SIZE, "model_parameters": SIZE}
