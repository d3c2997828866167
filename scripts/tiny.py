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

"""A trainer name in, a real TRL run on a tiny local model out; as a command it also writes every log as a JSON line."""

import argparse
import gc
import importlib
import inspect
import json
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


# Before the Hugging Face libraries are imported: they read these once, and nothing here may reach the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import torch
import transformers
from tiny_data import (
    chat_dataset,
    colour_variety,
    preference_dataset,
    prompt_dataset,
    text_dataset,
    tiny_tokenizer,
    tokenized_prompt_dataset,
    unpaired_dataset,
)
from tiny_models import saved_model, tiny_model, tiny_reward_model
from transformers import PrinterCallback, TrainerCallback, set_seed


# Module and class prefix of each trainer. PPO left TRL after 1.12.0.
TRAINERS = {
    "sft": ("trl", "SFT"),
    "dpo": ("trl", "DPO"),
    "kto": ("trl", "KTO"),
    "reward": ("trl", "Reward"),
    "grpo": ("trl", "GRPO"),
    "rloo": ("trl", "RLOO"),
    "distillation": ("trl", "Distillation"),
    "orpo": ("trl.experimental.orpo", "ORPO"),
    "cpo": ("trl.experimental.cpo", "CPO"),
    "online_dpo": ("trl.experimental.online_dpo", "OnlineDPO"),
    "gkd": ("trl.experimental.gkd", "GKD"),
    "ppo": ("trl.experimental.ppo", "PPO"),
}

COMMON = {
    "per_device_train_batch_size": 8,
    "max_steps": 300,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    # Half precision and recomputation only cost time on a CPU.
    "bf16": False,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
    "seed": 0,
}

# Learning rates at which each run visibly learns within 200 steps and stays stable.
HEALTHY = {
    "sft": {"learning_rate": 3e-3, "max_length": 64},
    "dpo": {"learning_rate": 3e-4, "max_length": 64},
    "kto": {"learning_rate": 3e-4, "max_length": 64},
    "reward": {"learning_rate": 1e-3, "max_length": 64},
    "grpo": {"learning_rate": 3e-4, "max_completion_length": 24, "per_device_train_batch_size": 16},
    "rloo": {
        "learning_rate": 3e-4,
        "max_completion_length": 24,
        "per_device_train_batch_size": 16,
        "num_generations": 4,
    },
    "distillation": {"learning_rate": 1e-3, "max_completion_length": 24},
    "orpo": {"learning_rate": 3e-4, "max_length": 64},
    "cpo": {"learning_rate": 3e-4, "max_length": 64},
    "online_dpo": {"learning_rate": 3e-4, "max_new_tokens": 24, "max_length": 64},
    "gkd": {"learning_rate": 1e-3, "max_new_tokens": 24, "max_length": 64},
    "ppo": {
        "learning_rate": 3e-4,
        "per_device_train_batch_size": 16,
        "response_length": 24,
        "stop_token": "eos",
        "missing_eos_penalty": 1.0,
        "num_sample_generations": 0,
    },
}


def _parts(kind: str, seed: int) -> dict[str, object]:
    """What each trainer gets besides its config; built lazily, so that a replaced part costs nothing."""
    policy = {"model": saved_model}
    pairs = {"train_dataset": lambda: preference_dataset(seed=seed)}
    prompts = {"train_dataset": lambda: prompt_dataset(seed=seed), "reward_funcs": lambda: colour_variety}
    teacher = {"teacher_model": lambda: saved_model("teacher")}
    return {
        "sft": {"model": lambda: tiny_model(seed=seed), "train_dataset": lambda: text_dataset(seed=seed)},
        "dpo": {**policy, **pairs, "ref_model": saved_model},
        "kto": {**policy, "ref_model": saved_model, "train_dataset": lambda: unpaired_dataset(seed=seed)},
        "reward": {**pairs, "model": lambda: tiny_reward_model(seed)},
        "grpo": {**policy, **prompts},
        "rloo": {**policy, **prompts},
        "distillation": {**policy, **teacher, "train_dataset": lambda: prompt_dataset(seed=seed)},
        "orpo": {**policy, **pairs},
        "cpo": {**policy, **pairs},
        "online_dpo": {**policy, **prompts},
        "gkd": {**policy, **teacher, "train_dataset": lambda: chat_dataset(seed=seed)},
        "ppo": {
            **policy,
            "ref_model": saved_model,
            "reward_model": lambda: saved_model("reward"),
            "value_model": lambda: tiny_reward_model(seed),
            "train_dataset": lambda: tokenized_prompt_dataset(seed=seed),
            "eval_dataset": lambda: tokenized_prompt_dataset(32, seed + 1),
        },
    }[kind]


def make_trainer(kind: str, output_dir: str | Path, callbacks: Sequence[TrainerCallback] = (), **overrides):
    """
    A TRL trainer on a tiny model whose run is healthy unless an override makes it otherwise.

    Args:
        kind (`str`):
            One of `sft`, `dpo`, `kto`, `reward`, `grpo`, `rloo`, `distillation`, `orpo`, `cpo`, `online_dpo`, `gkd`,
            or `ppo` (only with TRL 1.12.0 or older first on `sys.path`).
        output_dir (`str` or `Path`):
            Output folder of the run.
        callbacks (sequence of [`~transformers.TrainerCallback`], *optional*, defaults to `()`):
            Callbacks to add.
        **overrides:
            Any argument of the trainer (`model`, `ref_model`, `train_dataset`, `reward_funcs`, `peft_config` ...)
            replaces the default part; every other name is a field of its config (`learning_rate`, `max_steps`, `beta`
            ...). `seed` also seeds the data and the untrained models.

    Returns:
        [`~transformers.Trainer`]:
            The trainer, ready for `.train()`.
    """
    module, prefix = TRAINERS[kind]
    library = importlib.import_module(module)  # only now: `--trl-path` may have changed which TRL this is
    trainer_class = getattr(library, f"{prefix}Trainer")
    arguments = inspect.signature(trainer_class.__init__).parameters
    given = {name: value for name, value in overrides.items() if name in arguments}
    config = COMMON | HEALTHY[kind] | {name: value for name, value in overrides.items() if name not in arguments}
    if kind == "ppo":
        # PPO counts episodes, not steps: one step consumes one batch.
        config["total_episodes"] = config.pop("max_steps") * config["per_device_train_batch_size"]
    parts = {name: build() for name, build in _parts(kind, config["seed"]).items() if name not in given}
    if "peft_config" in given:
        parts.pop("ref_model", None)  # the base model without its adapter is the reference
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left" if kind == "ppo" else "right"
    shared = {"args": getattr(library, f"{prefix}Config")(output_dir=str(output_dir), **config)}
    shared |= {"processing_class": tokenizer, "callbacks": list(callbacks)}
    set_seed(config["seed"])
    trainer = trainer_class(**{**shared, **parts, **given})
    trainer.remove_callback(PrinterCallback)  # it prints every log and takes `total_flos` out of the last one
    return trainer


def json_value(value: object) -> object:
    """A number as strict JSON can hold it: non-finite values become `"NaN"`, `"Infinity"` and `"-Infinity"`."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class LogWriter(TrainerCallback):
    """
    Appends every log of a trainer, with its own keys and the step, to a JSON-lines file.

    Args:
        path (`str` or `Path`):
            File to write; an older one is replaced. Its first line holds the config of the run.
    """

    def __init__(self, path: str | Path):
        self.file = open(path, "w")  # noqa: SIM115

    def _line(self, content: dict) -> None:
        self.file.write(json.dumps(content, default=repr, allow_nan=False) + "\n")
        self.file.flush()

    def on_train_begin(self, args, state, control, **kwargs):
        config = {name: json_value(value) for name, value in args.to_dict().items()}
        self._line({"config": config, "trainer": type(args).__name__.removesuffix("Config").lower()})

    def on_log(self, args, state, control, logs, **kwargs):
        self._line({"step": state.global_step} | {name: json_value(value) for name, value in logs.items()})


class PoisonWeights(TrainerCallback):
    """
    Sets every weight of the model to NaN, as an overflow would, when a step ends.

    The log of that step still looks healthy. The next one of SFT, DPO, KTO and Reward shows the damage; GRPO, RLOO and
    Online DPO raise before it, because nothing can be sampled from NaN, unless they get
    `generation_kwargs={"remove_invalid_values": True}` or generate only every few steps (`steps_per_generation`).

    Args:
        step (`int`, *optional*, defaults to `10`):
            The step.
    """

    def __init__(self, step: int = 10):
        self.step = step

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.step:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(math.nan)


def _override(text: str) -> tuple[str, object]:
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(TRAINERS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, help="JSON-lines file that gets every log")
    parser.add_argument("--output-dir", type=Path, help="output folder of the run (default: a temporary one)")
    parser.add_argument("--set", type=_override, action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--trl-path", help="folder of another TRL release, put first on sys.path (PPO needs 1.12.0)")
    parser.add_argument("--diagnostics", action="store_true", help="attach DiagnosticsCallback()")
    return parser.parse_args()


def main() -> None:
    """Trains one tiny model as the command line says."""
    arguments = _arguments()
    if arguments.trl_path:
        sys.path.insert(0, arguments.trl_path)
    callbacks = [LogWriter(arguments.log)] if arguments.log else []
    if arguments.diagnostics:
        from trl_diagnostics import DiagnosticsCallback

        callbacks.append(DiagnosticsCallback())
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    gc.freeze()  # PPO collects garbage several times a step; the imported libraries need not be walked each time
    with tempfile.TemporaryDirectory() as scratch:
        overrides = {"max_steps": arguments.steps, "seed": arguments.seed} | dict(arguments.set)
        make_trainer(arguments.kind, arguments.output_dir or scratch, callbacks, **overrides).train()


if __name__ == "__main__":
    main()
