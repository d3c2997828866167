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

"""What a trainer trains with goes in, one JSON record of where a run comes from comes out, without secrets."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

from .json_value import digest, json_value
from .redact import is_secret_name, redact, redact_text


PACKAGES = (
    "trl transformers accelerate torch datasets peft tokenizers safetensors huggingface-hub numpy vllm deepspeed "
    "bitsandbytes flash-attn kernels unsloth liger-kernel torchao triton xformers trl-diagnostics"
).split()

# Arguments that say where a run writes, what it is called and which process this is, not how it trains.
PLACE = set(
    "output_dir logging_dir run_name project local_rank resume_from_checkpoint overwrite_output_dir report_to "
    "disable_tqdm log_level log_level_replica push_to_hub hub_model_id hub_token hub_strategy hub_private_repo "
    "hub_always_push hub_revision push_to_hub_token push_to_hub_model_id push_to_hub_organization trackio_space_id "
    "trackio_bucket_id trackio_static_space_id vllm_server_base_url vllm_server_host vllm_server_port vllm_group_port "
    "ddp_timeout".split()
)

# What changes the numbers, the speed, or which process runs where. HF_HOME and HF_ENDPOINT say from which cache and
# which mirror a model came: a stale one explains a different model. No accounts, and nothing with a secret name.
ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_LAUNCH_BLOCKING CUDA_DEVICE_MAX_CONNECTIONS CUBLAS_WORKSPACE_CONFIG "
    "NVIDIA_TF32_OVERRIDE HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES ASCEND_RT_VISIBLE_DEVICES XLA_FLAGS "
    "OMP_* MKL_* KMP_* NCCL_* RCCL_* GLOO_* TORCH_* TORCHELASTIC_* TORCHDYNAMO_* TORCHINDUCTOR_* PYTORCH_* TRITON_* "
    "ACCELERATE_* FSDP_* DS_* DEEPSPEED_* VLLM_* BNB_* UNSLOTH_* TRL_* TRANSFORMERS_* TOKENIZERS_PARALLELISM "
    "HF_HOME HF_ENDPOINT HF_HUB_OFFLINE HF_DATASETS_OFFLINE HF_HUB_CACHE HF_DATASETS_CACHE HF_HUB_ENABLE_HF_TRANSFER "
    "WORLD_SIZE RANK LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK NODE_RANK MASTER_ADDR MASTER_PORT CROSS_RANK CROSS_SIZE "
    "SLURM_JOB_ID SLURM_JOB_NAME SLURM_JOB_PARTITION SLURM_JOB_NUM_NODES SLURM_JOB_NODELIST SLURM_NTASKS SLURM_NODEID "
    "SLURM_PROCID SLURM_LOCALID SLURM_STEP_ID SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_ID SLURM_RESTART_COUNT "
    "SLURM_CPUS_PER_TASK SLURM_GPUS_ON_NODE LSB_JOBID PBS_JOBID OMPI_COMM_WORLD_SIZE OMPI_COMM_WORLD_RANK "
    "WANDB_MODE WANDB_DISABLED WANDB_PROJECT WANDB_RUN_ID PYTHONHASHSEED PYTHONOPTIMIZE LD_PRELOAD"
).split()

GIT_SECONDS = 3  # for each command; a repository on a slow disk is not worth more
DIFF_BYTES = 200_000


def collect_provenance(
    args: Any,
    model: Any = None,
    processing_class: Any = None,
    train_dataset: Any = None,
    eval_dataset: Any = None,
    reward_functions: list | None = None,
    *,
    diff: bool = False,
) -> dict[str, Any]:
    """
    Where a run comes from. Reads only: it draws no random number, takes no row from a stream, and copies no weights.

    Args:
        args ([`~transformers.TrainingArguments`]):
            Arguments of the trainer.
        model (`torch.nn.Module`, *optional*):
            Model being trained.
        processing_class (`PreTrainedTokenizerBase` or `ProcessorMixin`, *optional*):
            Tokenizer or processor.
        train_dataset, eval_dataset (`Dataset`, `IterableDataset`, `dict`, *optional*):
            Data sets, or those of the data loaders.
        reward_functions (`list`, *optional*):
            Functions and reward models.
        diff (`bool`, *optional*, defaults to `False`):
            Whether the changes that are not committed are put into `git.diff`, up to 200 kB.

    Returns:
        `dict`: strict JSON with the secrets redacted. Keys: `created`, `git`, `arguments`, `arguments_hash`, `packages`,
        `python`, `os`, `hardware`, `world_size`, `launcher`, `model`, `tokenizer`, `train_dataset`, `eval_dataset`,
        `reward_functions`, `seeds`, `command`, `environment`. A part that could not be read is `{"error": "..."}`.
    """
    from .identity import dataset_identity, model_identity, tokenizer_identity
    from .reward_identity import reward_identity

    given = _part(arguments, args)
    record = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _part(_git, diff),
        "arguments": given,
        "arguments_hash": arguments_hash(given),
        "packages": _part(_packages),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "os": {"name": platform.platform(), "host": platform.node()},
        "hardware": _part(_hardware, args),
        "world_size": args.world_size,
        "launcher": _launcher(),
        "model": _part(model_identity, model),
        "tokenizer": _part(tokenizer_identity, processing_class),
        "train_dataset": _part(dataset_identity, train_dataset),
        "eval_dataset": _part(dataset_identity, eval_dataset),
        "reward_functions": _part(reward_identity, reward_functions),
        "seeds": _part(_seeds, args),
        "command": _part(_command),
        "environment": environment(os.environ),
    }
    return redact(json_value(record))


def _part(function: Callable, *inputs: Any) -> Any:
    """One part of the record; models, data sets and machines are too many to know what each of them raises."""
    try:
        return function(*inputs)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def arguments(args: Any) -> dict[str, Any]:
    """
    All fields of training arguments.

    Args:
        args ([`~transformers.TrainingArguments`]):
            Arguments of the trainer. They are not changed, as their own `to_dict` does with nested dtypes.

    Returns:
        `dict[str, Any]`: JSON values by the name of the field, secrets redacted.
    """
    return redact({field.name: json_value(getattr(args, field.name)) for field in fields(args) if field.init})


def arguments_hash(given: dict[str, Any]) -> str:
    """
    A hash of how a run trains: the same for two runs that differ only in where they write, what they are called, to
    whom they report and which process wrote it.

    Args:
        given (`dict[str, Any]`):
            As given by [`arguments`].

    Returns:
        `str`: 16 hexadecimal digits.
    """
    return digest({name: value for name, value in given.items() if name not in PLACE})


def environment(variables: Any) -> dict[str, str]:
    """
    The environment variables that matter for training.

    Args:
        variables (`Mapping[str, str]`):
            For example `os.environ`.

    Returns:
        `dict[str, str]`: those on the allow-list, sorted, without any that is named like a secret.
    """
    allowed = [name for name in sorted(variables) if any(fnmatchcase(name, pattern) for pattern in ENVIRONMENT)]
    return {name: redact_text(variables[name]) for name in allowed if not is_secret_name(name)}


def _source_folder() -> Path:
    """Where the script lies, or the working directory for a notebook and for a command that is installed."""
    script = vars(sys.modules["__main__"]).get("__file__")
    if script is None or Path(script).resolve().is_relative_to(Path(sys.prefix).resolve()):
        return Path.cwd()
    return Path(script).resolve().parent


def _command() -> dict[str, Any]:
    return {"argv": list(sys.orig_argv), "folder": os.getcwd()}


def _git(diff: bool) -> dict[str, Any] | None:
    """Commit, branch, remote and whether tracked files were changed; None outside of a repository."""
    folder = _source_folder()
    if shutil.which("git") is None or _run_git(folder, "rev-parse", "--show-toplevel") is None:
        return None
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    state = {
        "commit": _run_git(folder, "rev-parse", "HEAD"),
        "branch": _run_git(folder, "symbolic-ref", "--short", "HEAD"),
        "remote": _run_git(folder, "config", "--get", "remote.origin.url"),
        "dirty": None if changes is None else bool(changes),
    }
    return state | {"diff": _run_git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD")} if diff else state


def _run_git(folder: Path, *command: str) -> str | None:
    """What a git command says, None where it fails or is slow. It neither locks, writes, asks nor runs a hook."""
    quiet = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *command]
    with tempfile.TemporaryFile() as output:  # a diff may be larger than what is wanted in memory
        try:
            done = subprocess.run(
                quiet,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                timeout=GIT_SECONDS,
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            )
        except subprocess.TimeoutExpired:
            return None
        output.seek(0)
        return output.read(DIFF_BYTES).decode(errors="replace").strip("\n") if done.returncode == 0 else None


def _packages() -> dict[str, str]:
    """Versions of what is installed, with the commit of what was installed from git."""
    versions = {}
    for name in PACKAGES:
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        origin = json.loads(found.read_text("direct_url.json") or "{}").get("vcs_info", {})
        versions[name] = found.version + (f" ({origin['commit_id'][:12]})" if "commit_id" in origin else "")
    return versions


def _hardware(args: Any) -> dict[str, Any]:
    import psutil
    import torch

    # Asking a GPU that this run does not use would set it up.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    found = [torch.cuda.get_device_properties(i) for i in gpus]
    return {
        "device": str(args.device),
        "gpus": [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in found],
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "cudnn": torch.backends.cudnn.version() if found else None,
        "driver": _line("/proc/driver/nvidia/version", r"Kernel Module\D*([\d.]+)"),
        "cpu": _line("/proc/cpuinfo", r"model name\s*:\s*(.+)") or platform.processor() or platform.machine(),
        "cpu_cores": os.cpu_count(),
        "cpu_cores_usable": len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        # the limit of a container, at which the kernel kills
        "memory_limit_gib": _gib(_line("/sys/fs/cgroup/memory.max", r"(\d+)")),
    }


def _gib(size: str | None) -> float | None:
    return None if size is None else round(int(size) / 2**30, 1)


def _line(path: str, pattern: str) -> str | None:
    """What a pattern finds in a file of the operating system, if there is such a file."""
    file = Path(path)
    found = re.search(pattern, file.read_text()) if file.exists() else None
    return found and found[1]


def _launcher() -> str:
    """What started this process: accelerate, deepspeed, torchrun, slurm, mpi, notebook or python."""
    # `accelerate launch` and the `trl` command set these, nothing else does
    if {"ACCELERATE_DYNAMO_USE_FULLGRAPH", "ACCELERATE_CONFIG_DS_FIELDS"} & os.environ.keys():
        return "accelerate"
    if "CROSS_SIZE" in os.environ and "WORLD_SIZE" in os.environ:
        return "deepspeed"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ:
        return "mpi"
    # in the batch script itself there is a job but no step that srun made
    if os.environ.get("SLURM_STEP_ID", "").isdecimal() and "SLURM_PROCID" in os.environ:
        return "slurm"
    return "notebook" if "ipykernel" in sys.modules else "python"


def _seeds(args: Any) -> dict[str, Any]:
    """What randomness starts from, and whether the numbers can be the same again."""
    import torch

    return {
        "seed": args.seed,
        "data_seed": args.data_seed,
        "full_determinism": args.full_determinism,
        "torch": torch.initial_seed(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "hash_seed": os.environ.get("PYTHONHASHSEED"),
    }
