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

"""What is known of a run before and after a resume goes in, what differs comes out: in words, and as numbers to judge."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..engine.finding import Record
from .checkpoints import missing_parts


HARMLESS, CHANGES, BREAKS = "harmless", "changes the run", "breaks it"

# Topic -> what another value does, and the fields it is about; `*` is any text. The first topic that fits counts.
# `other` is harmless and has no rule, of `argument` each field is judged by itself.
ARGUMENTS = {
    "learning_rate": (CHANGES, "learning_rate"),
    "schedule": (CHANGES, "lr_scheduler_* warmup_* max_steps num_train_epochs total_episodes"),
    "seed": (CHANGES, "seed"),
    "data_order": (
        CHANGES,
        "data_seed shuffle_dataset train_sampling_strategy group_by_length length_column_name dataloader_drop_last "
        "packing* accelerator_config.split_batches accelerator_config.dispatch_batches accelerator_config.even_batches "
        "accelerator_config.use_seedable_sampler",
    ),
    "precision": (CHANGES, "bf16 fp16 tf32 model_init_kwargs.*dtype"),
    "optimizer": (BREAKS, "optim optim_target_modules*"),
    "sharding": (BREAKS, "deepspeed* fsdp* parallelism_config*"),
    "other": (
        HARMLESS,
        # of these the product is compared, and data that are not skipped have a number of their own
        "per_device_train_batch_size gradient_accumulation_steps ignore_data_skip "
        # what follows does not reach the weights
        "output_dir overwrite_output_dir run_name project report_to* log_* logging_* debug* disable_tqdm do_* eval_* "
        "per_device_eval_batch_size *_full_eval save_* hub_* push_to* load_best_model_at_end metric_for_best_model "
        "greater_is_better resume_from_checkpoint restore_callback_states_from_checkpoint dataloader_num_workers "
        "dataloader_pin_memory dataloader_prefetch_factor dataloader_persistent_workers dataloader_in_order "
        "dataloader_multiprocessing_context ddp_* torch_empty_cache_steps torch_compile* skip_memory_metrics include_* "
        "local_rank batch_eval_metrics prediction_loss_only trackio_* wandb_* mlflow_* use_cache use_cpu no_cuda "
        "gradient_checkpointing* activation_checkpointing* activation_offloading dataset_num_proc "
        "enable_jit_checkpoint num_completions_to_print num_sample_generations num_generations_eval vllm_server_* "
        "vllm_gpu_memory_utilization vllm_tensor_parallel_size vllm_enable_sleep_mode vllm_group_port "
        "ds3_gather_for_generation full_determinism auto_find_batch_size use_liger_kernel liger_kernel_config* "
        "trust_remote_code accelerator_config.non_blocking",
    ),
    "argument": (CHANGES, "*"),
}
SECTIONS = {
    "trainer": (BREAKS, "trainer"),
    "world_size": (CHANGES, "world_size"),
    "precision": (CHANGES, "model.dtypes*"),
    "other": (
        HARMLESS,
        # a model may have been moved; its hash on the Hub is that of the weights it began with
        "model.name_or_path model.commit model.devices model.adapters.*.base_model_name_or_path tokenizer.name_or_path "
        "model.adapters.*.revision model.adapters.*.inference_mode model.adapters.*.peft_version launcher hardware.* "
        "os.* python.*",
    ),
    "model": (BREAKS, "model.*"),
    "tokenizer": (CHANGES, "tokenizer.*"),
    "dataset": (CHANGES, "train_dataset.*"),
    "eval_dataset": (HARMLESS, "eval_dataset.*"),
    "reward_functions": (CHANGES, "reward_functions.*"),
    "packages": (HARMLESS, "packages.*"),
    "code": (HARMLESS, "git.commit git.dirty"),
}
# Weights were trained since, and `datasets` makes up a new fingerprint where it cannot hash a function.
NOT_COMPARED = "model.fingerprint.* *_dataset*.fingerprint"
FROZEN = "model.fingerprint.frozen"  # but the base of an adapter stays what it was
SHOWN = {  # topic -> the field whose two values the message of its rule shows
    "learning_rate": "learning_rate",
    "seed": "seed",
    "batch_size": "effective_batch_size",
    "world_size": "world_size",
    "dataset_rows": "train_dataset.rows",
}
FOLLOWS_BATCH = "generation_batch_size steps_per_generation per_device_train_batch_size gradient_accumulation_steps"
BATCH = ("per_device_train_batch_size", "gradient_accumulation_steps")
PARTS = {  # of a checkpoint -> topic, and what it does when it is missing
    "weights": ("weights", BREAKS),
    "optimizer": ("optimizer_state", CHANGES),
    "scheduler": ("scheduler_state", CHANGES),
    "random states": ("random_states", HARMLESS),
    "trainer state": ("trainer_state", BREAKS),
}
NOTHING_KNOWN = (
    "nothing is known of the run that saved this checkpoint: it was saved without this callback, and the run directory has "
    "no metadata of it. So what has changed since cannot be told."
)


@dataclass(frozen=True)
class Difference:
    """
    One thing that is not as it was before a resume.

    Args:
        field (`str`):
            What differs: a training argument by its name, anything else with its section, such as `model.dtype`.
        before (`Any`), after (`Any`):
            The values, as in the metadata.
        effect (`str`):
            `"harmless"`, `"changes the run"` or `"breaks it"`.
        topic (`str`):
            What it belongs to; the number `resume_<topic>` of the resume record is 1.
    """

    field: str
    before: Any
    after: Any
    effect: str
    topic: str

    def __str__(self) -> str:
        return f"{self.field} was {_short(self.before)} and is {_short(self.after)}"

    def to_json(self) -> dict[str, Any]:
        """The difference as a dictionary for JSON."""
        return {"field": self.field, "before": self.before, "after": self.after, "effect": self.effect}


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def differences(before: dict[str, Any], after: dict[str, Any], checkpoint: Path | None = None) -> list[Difference]:
    """
    What is not as it was.

    A section, or a training argument, that only one side has is not compared: other releases have other ones.

    Args:
        before (`dict`), after (`dict`):
            Metadata of the run as in `run_metadata_start.json`.
        checkpoint (`Path`, *optional*):
            The checkpoint from which training goes on; what is missing in it is a difference too.

    Returns:
        `list[Difference]`: what breaks the run first, then what changes it, then what is harmless.
    """
    found = [field for field in _compared(before, after, checkpoint) if field.before != field.after]
    return sorted(found, key=lambda difference: (BREAKS, CHANGES, HARMLESS).index(difference.effect))


def mismatch(found: list[Difference], run_dir: Path) -> str | None:
    """Everything that is not harmless, in words; `None` without."""
    lines = [f"  {difference} ({difference.effect})" for difference in found if difference.effect != HARMLESS]
    if not lines:
        return None
    head = f"fail_on_resume_mismatch: this is not the run that was recorded in {run_dir}:"
    return "\n".join([head, *lines, "Undo these changes, or leave fail_on_resume_mismatch out to go on with them."])


def _compared(before: dict[str, Any], after: dict[str, Any], checkpoint: Path | None) -> Iterator[Difference]:
    """Every field that can be compared, whether it differs or not."""
    sizes = effective_batch_size(before), effective_batch_size(after)
    other_batch = None not in sizes and sizes[0] != sizes[1]
    for field in _side_by_side(_arguments(before, after), _arguments(after, before), ARGUMENTS):
        if not (other_batch and _fits(field.field, FOLLOWS_BATCH)):
            yield field
    if None not in sizes:
        yield Difference("effective_batch_size", *sizes, CHANGES, "batch_size")
    same_data, same_library = _same_but_for_order(before, after), _transformers(before) == _transformers(after)
    for field in _side_by_side(_sections(before, after), _sections(after, before), SECTIONS):
        if field.field == "train_dataset.sample_hash" and same_data:
            yield replace(field, topic="data_order")
        elif field.field != "model.config_hash" or same_library:  # releases add fields to the config
            yield field
    if _base_weights(before) and _base_weights(after):
        yield Difference(FROZEN, _base_weights(before), _base_weights(after), BREAKS, "model")
    missing = missing_parts(checkpoint, after.get("world_size") or 1) if checkpoint else ()
    for part, (topic, effect) in PARTS.items() if checkpoint else ():
        yield Difference(f"checkpoint: {part}", "there", "missing" if part in missing else "there", effect, topic)


def _arguments(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    known = other.get("arguments") or {}
    return {name: value for name, value in (one.get("arguments") or {}).items() if name in known}


def _sections(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What both sides know besides the arguments. A part that could not be read is `{"error": ...}`."""
    known = [key for key in one if key != "arguments" and _is_known(one[key]) and _is_known(other.get(key))]
    return {key: one[key] for key in known}


def _is_known(section: Any) -> bool:
    return section is not None and not (isinstance(section, dict) and "error" in section)


def _same_but_for_order(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the training data have the same size in every respect that does not depend on the order of the rows."""
    one, other = dict(_flat(before)), dict(_flat(after))
    sizes = [f"train_dataset.{size}" for size in ("rows", "columns", "bytes")]
    return all(one.get(size) is not None and one[size] == other.get(size) for size in sizes)


def _transformers(metadata: dict[str, Any]) -> str | None:
    return dict(_flat(metadata)).get("packages.transformers")


def _base_weights(metadata: dict[str, Any]) -> str | None:
    """Hash of weights that are not trained; with shards it is of a part that depends on how many there are."""
    known = dict(_flat(metadata))
    return None if known.get("model.fingerprint.sharded") else known.get(FROZEN)


def _side_by_side(
    old: dict[str, Any], new: dict[str, Any], topics: dict[str, tuple[str, str]]
) -> Iterator[Difference]:
    """The fields of two nested dictionaries; one that a side lacks is null there."""
    one, other = dict(_flat(old)), dict(_flat(new))
    for name in dict.fromkeys([*one, *other]):
        topic = next((topic for topic, (_, globs) in topics.items() if _fits(name, globs)), None)
        if topic and not _fits(name, NOT_COMPARED):
            yield Difference(name, one.get(name), other.get(name), topics[topic][0], topic)


def _fits(name: str, globs: str) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs.split())


def _flat(value: dict[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flat(item, f"{start}{key}.")
        else:
            yield f"{start}{key}", item


def effective_batch_size(metadata: dict[str, Any]) -> int | None:
    """Samples (pairs, completions) per optimizer step; `None` where the metadata do not say."""
    arguments = metadata.get("arguments") or {}
    factors = [*(arguments.get(name) for name in BATCH), metadata.get("world_size")]
    return math.prod(factors) if all(isinstance(factor, int) for factor in factors) else None


def resume_record(before: dict[str, Any], after: dict[str, Any], checkpoint: Path | None, step: int) -> Record:
    """
    The comparison as numbers, for the rules to judge.

    Args:
        before (`dict`), after (`dict`):
            Metadata of the run as in `run_metadata_start.json`; `{}` where there are none.
        checkpoint (`Path`, *optional*):
            The checkpoint from which training goes on, if it is known.
        step (`int`):
            Its optimizer step.

    Returns:
        [`Record`]: of phase `"resume"`. `resume_<topic>` is 0 where all is as it was, 1 where something differs, and is
        left out where nothing could be compared. `resume_<topic>_before` and `resume_<topic>_after` are the values of
        what is a number. Arguments without a topic of their own are there if they differ:
        `resume_argument_before/<name>` and `resume_argument/<name>` for numbers, `resume_setting/<name>` for the rest.
    """
    metrics: dict[str, float | None] = {}
    for field in _compared(before, after, checkpoint):
        differs = field.before != field.after
        if field.topic != "argument":
            metrics[f"resume_{field.topic}"] = max(metrics.get(f"resume_{field.topic}", 0.0), float(differs))
        elif differs and _is_number(field.before) and _is_number(field.after):
            metrics[f"resume_argument_before/{field.field}"] = float(field.before)
            metrics[f"resume_argument/{field.field}"] = float(field.after)
        elif differs:
            metrics[f"resume_setting/{field.field}"] = 1.0
        for topic, name in SHOWN.items():
            if name == field.field and _is_number(field.before) and _is_number(field.after):
                metrics[f"resume_{topic}_before"] = float(field.before)
                metrics[f"resume_{topic}_after"] = float(field.after)
    skipped = (after.get("arguments") or {}).get("ignore_data_skip")
    if isinstance(skipped, bool):
        metrics["resume_data_not_skipped"] = float(skipped)
    return Record(step, time.time(), "resume", metrics)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
