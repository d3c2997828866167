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

"""A trainer goes in, numbers about its model, optimizer, precision and machine come out."""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer
from transformers.trainer_pt_utils import get_model_param_count

from .unseen import Unseen


SAMPLES = 8  # numbers of each tensor that are compared, spread over it
GIB = 2**30
# Bytes of state that an optimizer keeps for each trained number, beyond those of the number itself. Of others nothing is
# known, so that the estimate is a lower bound.
ADAMW = ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "paged_adamw_32bit", "paged_adamw")
ADAMW_8BIT = ("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit")


def trainable(trainer: Trainer) -> dict[str, float]:
    """How many parameters are trained, of how many."""
    if trainer.is_fsdp_enabled:
        raise Unseen("a shard may hold nothing but frozen parameters")
    return {
        "trainable_parameters": float(get_model_param_count(trainer.model, trainable_only=True)),
        "model_parameters": float(get_model_param_count(trainer.model)),
    }


def optimized(trainer: Trainer) -> dict[str, float]:
    """Whether the optimizer holds the parameters that are trained, and only these."""
    _refuse_sharded(trainer)
    if trainer.optimizer is None:
        raise Unseen("the optimizer is built when training begins")
    if "layerwise" in trainer.args.optim or "lomo" in trainer.args.optim:
        raise Unseen(f"{trainer.args.optim} updates each layer by itself")
    held = {id(p): p for group in trainer.optimizer.param_groups for p in group["params"]}
    mine = {id(p): p for p in trainer.model.parameters()}
    return {
        "optimizer_parameters": _count(held.values()),
        "parameters_without_optimizer": _count(p for i, p in mine.items() if p.requires_grad and i not in held),
        "optimizer_parameters_elsewhere": _count(p for i, p in held.items() if i not in mine),
    }


def _count(parameters: Iterator[nn.Parameter]) -> float:
    return float(sum(p.numel() for p in parameters))


def _refuse_sharded(trainer: Trainer) -> None:
    if trainer.is_deepspeed_enabled:
        raise Unseen("DeepSpeed keeps its own copies of the parameters")
    if trainer.is_fsdp_enabled or any(isinstance(p, DTensor) for p in trainer.model.parameters()):
        raise Unseen("the parameters are kept in shards")


def reference(trainer: Trainer) -> dict[str, float]:
    """How far a reference model of its own is from the policy."""
    other = vars(trainer).get("ref_model")
    if other is None:
        return {}  # none, or the policy without its adapter
    _refuse_sharded(trainer)
    model, other = map(trainer.accelerator.unwrap_model, (trainer.model, other))
    trained = {p.data_ptr() for p in model.parameters() if p.requires_grad and p.numel()}
    return {
        "reference_shared_parameters": _count(p for p in other.parameters() if p.data_ptr() in trained),
        "reference_differing_share": _differing_share(model, other),
        "reference_active_dropout": _active_dropout(other),
    }


def teacher(trainer: Trainer) -> dict[str, float]:
    """How far the teacher of a distillation is from the student."""
    other = vars(trainer).get("teacher_model")
    if not isinstance(other, nn.Module):
        return {}  # a server has it
    _refuse_sharded(trainer)
    return {
        "teacher_differing_share": _differing_share(*map(trainer.accelerator.unwrap_model, (trainer.model, other)))
    }


def reward_models(trainer: Trainer) -> dict[str, float]:
    """Dropout that is on in models that give rewards."""
    functions = vars(trainer).get("reward_funcs") or []
    models = [function for function in functions if isinstance(function, nn.Module)]
    return {"reward_model_active_dropout": sum(map(_active_dropout, models))} if models else {}


def _active_dropout(model: nn.Module) -> float:
    return float(sum(isinstance(m, nn.Dropout) and m.training and m.p > 0 for m in model.modules()))


@torch.no_grad()
def _differing_share(model: nn.Module, other: nn.Module) -> float:
    """
    Share of sampled weights that are not the same; 1.0 for another architecture. Both are compared in the coarser of their
    two precisions, in which a copy that was only rounded is equal.
    """
    mine, theirs = _weights(model), _weights(other)
    both = [name for name, weight in mine.items() if name in theirs and theirs[name].shape == weight.shape]
    if len(both) < len(mine) / 2:
        return 1.0
    if not all(weight.is_floating_point() for name in both for weight in (mine[name], theirs[name])):
        raise Unseen("the weights of one of the models are quantized")
    differing = [_differ(mine[name], theirs[name]) for name in both]
    return sum(flags.sum().item() for flags in differing) / max(sum(flags.numel() for flags in differing), 1)


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Weights by their name without an adapter, and without those of the adapter."""
    named = {name: p for name, p in model.named_parameters() if "lora_" not in name and p.numel() > 0}
    plain = {name.removeprefix("base_model.model.").replace(".base_layer", ""): p for name, p in named.items()}
    return {name: p for name, p in plain.items() if p.device.type != "meta"}


def _differ(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    step = max(mine.numel() // SAMPLES, 1)
    coarser = max(mine.dtype, theirs.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    a, b = (one.detach().reshape(-1)[::step].to("cpu", coarser) for one in (mine, theirs))
    return (a != b) & ~(a.isnan() & b.isnan())


def learning_rate(trainer: Trainer) -> dict[str, float]:
    """The learning rate, under the name of what it trains: a LoRA adapter, or a whole model."""
    if trainer.is_fsdp_enabled:
        raise Unseen("FSDP may have put adapter and model into one parameter")
    trained = [name for name, p in trainer.model.named_parameters() if p.requires_grad]
    if any("lora_A" in name for name in trained):
        return {"adapter_learning_rate": trainer.args.learning_rate}
    if len(trained) == len(list(trainer.model.parameters())):
        return {"full_learning_rate": trainer.args.learning_rate}
    return {}  # a part of the model, prompt tuning: no rule of thumb


def precision(trainer: Trainer) -> dict[str, float]:
    """In which precision the trained weights are kept."""
    _refuse_sharded(trainer)
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    if not trained:
        return {}
    shares = {dtype: _count(p for p in trained if p.dtype == dtype) / _count(trained) for dtype in PRECISIONS.values()}
    return {f"trained_in_{name}": shares[dtype] for name, dtype in PRECISIONS.items()}


PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def hardware(trainer: Trainer) -> dict[str, float]:
    """What the machine could do and this training does not ask of it."""
    _refuse_sharded(trainer)
    place, args = next(trainer.model.parameters()).device.type, trainer.args
    found = {}
    if place == "cuda":
        found["gpu_has_bf16"] = float(torch.cuda.is_bf16_supported(including_emulation=False))
    elif place == "cpu" and not args.use_cpu and not trainer.is_deepspeed_enabled:
        found["gpus_not_used"] = float(torch.cuda.device_count())
    return found


def disk(trainer: Trainer) -> dict[str, float]:
    """Space for the checkpoints that this training keeps at the same time."""
    if trainer.args.save_strategy == "no":
        return {}
    _refuse_sharded(trainer)
    one = _checkpoint_bytes(trainer) / GIB
    return {
        "checkpoint_size": one,
        "checkpoints_size": one * _checkpoints_kept(trainer),
        "disk_free": shutil.disk_usage(_existing(Path(trainer.args.output_dir).absolute())).free / GIB,
    }


def _existing(folder: Path) -> Path:
    return folder if folder.exists() else _existing(folder.parent)


def _checkpoint_bytes(trainer: Trainer) -> float:
    """A lower bound: of PEFT models the adapter alone is saved."""
    parameters = list(trainer.model.parameters())
    trained = [p for p in parameters if p.requires_grad]
    adapter = any("lora_" in name for name, _ in trainer.model.named_parameters())
    saved = sum(p.nbytes for p in (trained if adapter else parameters))
    if trainer.args.save_only_model:
        return saved
    moments = 2 * (trainer.args.optim in ADAMW) * sum(p.nbytes for p in trained)
    return saved + moments + 2 * (trainer.args.optim in ADAMW_8BIT) * _count(trained)


def _checkpoints_kept(trainer: Trainer) -> float:
    """How many there are at the same time; an old one goes when the new one is complete."""
    args, steps = trainer.args, trainer.state.max_steps if trainer.state.max_steps > 0 else trainer.args.max_steps
    made = 1
    if args.save_strategy == "epoch":
        made = math.ceil(args.num_train_epochs)
    elif args.save_strategy == "steps" and steps > 0:
        every = args.save_steps if args.save_steps >= 1 else math.ceil(steps * args.save_steps)
        made = math.ceil(steps / every)
    return min(made, args.save_total_limit + 1) if args.save_total_limit else made


def length(trainer: Trainer) -> dict[str, float]:
    """How many updates the epochs come to, where nobody has chosen that number."""
    if trainer.args.max_steps > 0:
        return {}
    if trainer.state.max_steps <= 0:
        raise Unseen("the number of steps is known when training begins")
    args = trainer.args
    samples = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {"steps_of_epochs": float(trainer.state.max_steps), "samples_per_step": float(samples)}


MODEL_CHECKS: dict[str, Callable[[Trainer], dict[str, float]]] = {
    "trainable parameters": trainable,
    "optimizer": optimized,
    "reference model": reference,
    "teacher": teacher,
    "reward models": reward_models,
    "learning rate": learning_rate,
    "precision": precision,
    "hardware": hardware,
    "disk": disk,
    "length": length,
}
