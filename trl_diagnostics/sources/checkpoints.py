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

"""The output folder of a training goes in, its checkpoints come out: what is there, missing, cut off or not finite."""

import json
import math
import re
import time
import zipfile
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .rows import section
from .run_files import start_files
from .weights import check_weights


CALLBACKS = re.compile(r'"stateful_callbacks":\s*(?=\{)')
CHECKPOINT = re.compile(r"checkpoint-(\d{1,18})")
STATE = "trainer_state.json"
HEAD = 2**16  # bytes of a state before its log, which may have many megabytes
TAIL = 2**24  # bytes of a state after its log, with what the callbacks of the training keep
NO_TIME = "not looked at, there was no time for it"
SECONDS = 60.0  # for the weights of all checkpoints together, newest first

# Part of a checkpoint -> files of which one must be there: plain, FSDP, XLA, SageMaker, DeepSpeed.
PARTS = {
    "weights": (
        *("*.safetensors", "*/*.safetensors", "pytorch_model*.bin", "adapter_model.bin"),
        *("pytorch_model_fsdp*", "global_step*/*model_states.pt"),
    ),
    "optimizer": (
        *("optimizer.pt", "optimizer.bin", "optimizer_*", "rank*-of-*-optimizer.pt", "optimizer.pt_*"),
        "global_step*/*optim_states.pt",
    ),
    "scheduler": ("scheduler.pt", "global_step*"),  # DeepSpeed keeps its own with the model
    "random states": ("rng_state.pth", "rng_state_*.pth"),
    "trainer state": (STATE,),
}
TO_GO_ON = ("weights", "optimizer", "scheduler", "trainer state")


@dataclass(frozen=True)
class Checkpoint:
    """
    A checkpoint on disk.

    Args:
        step (`int`):
            Optimizer step at which it was saved.
        path (`Path`):
            Its folder.
        finite (`bool` or `None`):
            Whether all weights are finite; `None` where that is not known.
        note (`str`):
            Which tensor is not finite, or why it is not known.
        parts (`tuple[str, ...]`), missing (`tuple[str, ...]`):
            What is there, and what is not or cannot be read: weights, optimizer, scheduler, random states, trainer
            state. Both are empty where nothing but the name was looked at.
        foreign (`str`, *optional*):
            What shows that it is from another run, or from a part of this one that was given up; filled in by
            [`of_one_run`].
        suspect (`tuple[str, ...]`, *optional*):
            Reasons to distrust it, from the run's findings and metrics; filled in by [`judge_checkpoints`].
        too_close (`tuple[str, ...]`, *optional*):
            What went wrong so soon after it that nothing shows the weights to be from before that; filled in by
            [`judge_checkpoints`].
        probed (`bool`, *optional*):
            Whether the run itself looked at some of its weights when it was saved, and these were finite; filled in by
            [`judge_checkpoints`].
        score (`float`, *optional*), scored_by (`str`, *optional*), scored_at (`int`, *optional*):
            How good it is by which metric, logged at which step; filled in by [`judge_checkpoints`].
        noise (`float`, *optional*):
            By how much a single log of that metric scatters; 0 for an evaluation.
        more_is_better (`bool`, *optional*):
            Direction of the score.
    """

    step: int
    path: Path
    finite: bool | None
    note: str
    parts: tuple[str, ...]
    missing: tuple[str, ...]
    foreign: str = ""
    suspect: tuple[str, ...] = ()
    too_close: tuple[str, ...] = ()
    probed: bool = False
    score: float | None = None
    scored_by: str = ""
    scored_at: int = 0
    noise: float = 0.0
    more_is_better: bool = True

    @property
    def usable(self) -> bool:
        """Whether no weights are missing, and none is known to be NaN or infinite."""
        return self.finite is not False and "weights" not in self.missing

    @property
    def resumable(self) -> bool:
        """Whether training can go on from it as if it had not been interrupted."""
        return self.usable and not any(part in self.missing for part in TO_GO_ON)


def output_dir_of(run_dir: Path, metadata: dict[str, Any]) -> Path:
    """
    Where a run keeps its checkpoints.

    Args:
        run_dir (`Path`):
            Run directory.
        metadata (`dict`):
            Its `run_metadata_start.json`, or `{}`.

    Returns:
        `Path`: the folder above if that has checkpoints, for a run may have been moved; otherwise the `output_dir` of
        the run as seen from where it was started, if that is still there.
    """
    output_dir = section(metadata, "arguments").get("output_dir") or ""
    named = Path(section(metadata, "command").get("folder") or "", output_dir)
    if output_dir and named.is_absolute() and named.is_dir() and not _folders(run_dir.parent):
        return named
    return run_dir.parent


def _folders(output_dir: Path) -> list[tuple[int, Path]]:
    folders = [output_dir] if CHECKPOINT.fullmatch(output_dir.name) else output_dir.glob("checkpoint-*")
    found = [(CHECKPOINT.fullmatch(folder.name), folder) for folder in folders if folder.is_dir()]
    return sorted((int(match[1]), folder) for match, folder in found if match)


def checkpoints(output_dir: Path, seconds: float = SECONDS) -> list[Checkpoint]:
    """
    The checkpoints in a folder, with what is in them.

    Args:
        output_dir (`Path`):
            Output folder of a training, or one of its checkpoints.
        seconds (`float`, *optional*, defaults to `60.0`):
            Time for reading weights, the newest checkpoint first. What was not looked at has `finite=None`; with 0
            nothing but the names of the folders is read.

    Returns:
        `list[Checkpoint]`: by step.
    """
    if not seconds:
        return [Checkpoint(step, folder, None, NO_TIME, (), ()) for step, folder in _folders(output_dir)]
    deadline = time.monotonic() + seconds
    found = [_checkpoint(step, folder, deadline) for step, folder in reversed(_folders(output_dir))]
    return found[::-1]


def of_one_run(found: list[Checkpoint], last_step: int, run_dir: Path | None = None) -> list[Checkpoint]:
    """
    Mark the checkpoints that a run did not save. Another training may have used the same folder before.

    Args:
        found (`list[Checkpoint]`):
            As given by [`checkpoints`].
        last_step (`int`):
            The last optimizer step of the run.
        run_dir (`Path`, *optional*):
            Run directory, whose starts are compared with the one that saved a checkpoint. Without it only the steps
            tell.

    Returns:
        `list[Checkpoint]`: the same, those of another run with `foreign`.
    """
    starts = [_Start.read(file) for file in start_files(run_dir)] if run_dir else []
    return [replace(one, foreign=_foreign(one, last_step, [start for start in starts if start])) for one in found]


@dataclass(frozen=True)
class _Start:
    """
    One start of a run: its id, that of the start whose checkpoint it began with, the step of that, and when it began, in
    seconds of Unix time.
    """

    start_id: str | None
    saved_by: str | None
    step: int
    created: float

    @classmethod
    def read(cls, file: Path) -> "_Start | None":
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            created = datetime.fromisoformat(data["created"]).timestamp()
            resumed = section(data, "resumed")
            return cls(data.get("start_id"), resumed.get("saved_by"), int(resumed.get("step", 0)), created)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _foreign(checkpoint: Checkpoint, last_step: int, starts: list[_Start]) -> str:
    """What shows that a checkpoint is from another run; the empty text where nothing does."""
    step, by_id = checkpoint.step, {start.start_id: i for i, start in enumerate(starts) if start.start_id}
    ids = {memory.get("start_id") for memory in saved_memories(checkpoint.path)} - {None} if by_id else set()
    if ids & by_id.keys():
        if any(step <= last for start_id, last in _ancestors(starts).items() if start_id in ids):
            return ""
        went_back = min(start.step for start in starts[max(by_id[one] for one in ids & by_id.keys()) + 1 :])
        return f"the run went back to step {went_back} since"
    if starts and step <= starts[0].step:  # from before a resume out of another run directory
        return ""
    if ids:
        return "from another run, which began by itself"
    if step > last_step:
        return f"from an earlier run, this one came to step {last_step}"
    if starts and (saved := _saved_at(checkpoint.path)) and saved < starts[0].created:
        return "from an earlier run, saved before this one began"
    return ""


def _ancestors(starts: list[_Start]) -> dict[str | None, float]:
    """The starts from which the last one goes on, by id: up to which step what they saved is of the same run."""
    by_id, start = {start.start_id: start for start in starts}, starts[-1]
    found: dict[str | None, float] = {start.start_id: math.inf}
    while start.step > 0:
        before = by_id.get(start.saved_by) or next((one for one in reversed(starts[: starts.index(start)])), None)
        if before is None or before.start_id in found:
            break
        found[before.start_id] = start.step
        start = before
    return found


def _saved_at(folder: Path) -> float | None:
    """When a checkpoint was saved, in seconds of Unix time; a copy may be younger."""
    state = folder / STATE
    return state.stat().st_mtime if state.is_file() else None


def saved_memories(folder: Path) -> list[dict[str, Any]]:
    """
    What the callback left in a checkpoint, that of each callback of its class: `start_id` and `start`, id and metadata of
    the start of the run that saved it, `resumes` before that, and more.

    Args:
        folder (`Path`):
            The checkpoint. Of its `trainer_state.json` only the end is read, the log in it can have gigabytes.
    """
    try:
        with (folder / STATE).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            text = file.read().decode("utf-8", "replace")
        callbacks, _ = json.JSONDecoder().raw_decode(text, CALLBACKS.search(text).end())
        kept = [one for kept in callbacks.values() for one in (kept if isinstance(kept, list) else [kept])]
    except (OSError, ValueError, AttributeError, RecursionError):  # there is no checkpoint, no state or no callback
        return []
    kept = [section(section(one, "attributes"), "saved") for one in kept if isinstance(one, dict)]
    return [memory for memory in kept if memory]


def saved_start(folder: Path) -> dict[str, Any]:
    """Metadata of the start of the run that saved a checkpoint, to compare with another; `{}` where it has none."""
    return next((section(memory, "start") for memory in reversed(saved_memories(folder))), {})


def _checkpoint(step: int, folder: Path, deadline: float) -> Checkpoint:
    weights = check_weights(folder, deadline)
    missing = missing_parts(folder)
    if weights.damaged and "weights" not in missing:
        missing = ("weights", *missing)
    parts = tuple(part for part in PARTS if part not in missing)
    return Checkpoint(step, folder, weights.finite, weights.note, parts, missing)


def missing_parts(folder: Path, world_size: int = 1) -> tuple[str, ...]:
    """
    What a checkpoint does not have, judged by the names of its files and whether these are complete; nothing is loaded.

    Args:
        folder (`Path`):
            The checkpoint.
        world_size (`int`, *optional*, defaults to `1`):
            Number of processes, each of which has random states of its own.

    Returns:
        `tuple[str, ...]`: of `"weights"`, `"optimizer"`, `"scheduler"`, `"random states"`, `"trainer state"`.
    """
    found = {part: [f for pattern in patterns for f in folder.glob(pattern)] for part, patterns in PARTS.items()}
    missing = [part for part, files in found.items() if not files or not all(map(_is_complete, files))]
    if world_size > 1 and len(found["random states"]) < world_size and "random states" not in missing:
        missing.append("random states")
    return tuple(missing)


def _is_complete(path: Path) -> bool:
    """A save that was interrupted leaves a file without its end; what `torch.save` writes is a ZIP archive."""
    if path.suffix == ".json":
        return _is_whole(path)
    return path.suffix not in (".pt", ".pth", ".bin") or path.is_dir() or zipfile.is_zipfile(path)


def _is_whole(state: Path) -> bool:
    """The Trainer writes the last brace into a line of its own, and its log can take seconds to parse."""
    try:
        with state.open("rb") as file:
            file.seek(max(0, state.stat().st_size - 4))
            if file.read().rstrip().endswith(b"\n}"):
                return global_step(state) is not None
        return "global_step" in json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def global_step(state: Path) -> int | None:
    """The optimizer step in the first lines of a `trainer_state.json`; `None` without one."""
    with state.open("rb") as file:
        match = re.search(rb'"global_step":\s*(\d{1,18})', file.read(HEAD))
    return int(match[1]) if match else None
