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

"""The arguments of a training go in, what the rules and the run directory have to know of it comes out."""

import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerState, TrainingArguments

from . import __version__
from .sinks.json_value import json_value
from .sinks.provenance import collect_provenance
from .sinks.redact import redact


def trl_version() -> str | None:
    """Version of the installed TRL."""
    try:
        return version("trl")
    except PackageNotFoundError:
        return None


def config_of(args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
    """Training arguments with ratios and fractions resolved to optimizer steps."""
    config = args.to_dict()
    config["max_steps"], config["logging_steps"] = state.max_steps, state.logging_steps
    config["warmup_steps"] = args.get_warmup_steps(state.max_steps)
    config["world_size"] = args.world_size
    if args.logging_strategy == "epoch":
        config["logging_steps"] = state.max_steps / state.num_train_epochs
    return config


def own_memory(stored: dict[str, Any] | list[dict[str, Any]], arguments: dict[str, Any]) -> dict[str, Any] | None:
    """
    What a checkpoint remembers of a callback with these arguments. With several callbacks of a class the Trainer keeps a
    list, and adds to it at each checkpoint.
    """
    found = [one for one in (stored if isinstance(stored, list) else [stored]) if one["attributes"]["saved"]]
    mine = [one for one in found if one["args"] == arguments] or found
    return mine[-1]["attributes"]["saved"] if mine else None


def about_diagnostics(
    config: dict[str, Any], custom_alerts: Sequence[str], rules: str | Path | None, disable: Sequence[str]
) -> dict[str, Any]:
    """With what the rules judge a run, so that its records can be judged again in the same way."""
    about = {
        "version": __version__,
        "config": config,
        "custom_alerts": custom_alerts,
        "custom_heuristics_dir": None if rules is None else Path(rules).resolve(),
        "disable": disable,
    }
    return redact(json_value(about))


def provenance(args: TrainingArguments, parts: dict[str, Any], git_diff: bool = False) -> dict[str, Any]:
    """Where a run comes from; `parts` is what the Trainer hands to its callbacks. See [`collect_provenance`]."""
    trainer, loader = training_loop().get("self"), parts.get("train_dataloader")
    more = (
        {"reward_functions": vars(trainer).get("reward_funcs"), "eval_dataset": trainer.eval_dataset}
        if trainer
        else {}
    )
    data = None if loader is None else loader.dataset
    return collect_provenance(args, parts.get("model"), parts.get("processing_class"), data, diff=git_diff, **more)


def resumed_from(args: TrainingArguments, step: int) -> Path | None:
    """The checkpoint with which a training goes on after `step`, if it is known."""
    given = training_loop().get("resume_from_checkpoint")
    folder = Path(given) if given else Path(args.output_dir) / f"checkpoint-{step}"
    return folder if folder.is_dir() else None


def batch_loss() -> float | None:
    """Loss of the micro-batch that the Trainer has just gone through, which it logs only as part of a mean."""
    loss = training_loop().get("tr_loss_step")
    return None if loss is None else float(loss)


def training_loop() -> dict[str, Any]:
    """
    The variables of the method of a Trainer that calls this callback. Callbacks are not handed the checkpoint, the reward
    functions and, before the first evaluation, its data.
    """
    frame = sys._getframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), Trainer):
        frame = frame.f_back
    return frame.f_locals if frame else {}
