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

"""A tree of folders goes in, the paths of the runs in it come out, each once."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..engine.finding import DiagnosticsError
from .checkpoints import CHECKPOINT, STATE, global_step
from .run_files import is_run_dir
from .tensorboard import is_event_file
from .trackio_db import SUFFIXES, runs_of
from .wandb_run import is_wandb_run


HEAD = 2**16  # bytes in which a log shows that it is one
PRINTED_HEAD = 2**20  # a printed log begins with warnings and with bars of downloads
# Folders that say the same as the run they belong to, or nothing.
OF_A_RUN = re.compile(r"checkpoint-\d+|runs|wandb|diagnostics|logs")
ELSEWHERE = re.compile(r"\..*|__pycache__|node_modules|site-packages")
# JSON of models, data sets and results that can hold the same words.
NO_LOG = re.compile(
    r".*config\.json|.*\.index\.json|.*tokenizer.*|vocab\.json|special_tokens_map\.json|added_tokens\.json|"
    r"dataset_.*\.json|package.*\.json|(all|train|eval|predict)_results\.json|wandb-(summary|metadata)\.json|"
    r"requirements\.txt|"
    # ours
    r"findings\.jsonl|(run_metadata|resume|memory|postmortem|coverage|heartbeat)(_\w+)?\.json"
)
LOSS = re.compile(rb"""["'](?:train/|eval/|train_|eval_)?loss["']\s*:|["']objective/""")
STEP = re.compile(rb"""["'](?:train/)?(?:_step|step|global_step|epoch|episode)["']\s*:|"log_history"|"stream_name\"""")
HEADER = re.compile(rb"(?i)\A[^\n]*(?:loss|reward|objective/)")
NUMBERED = re.compile(rb"(?i)\A[^\n]*(?:step|epoch|wall time)")
READ_AS = {
    **dict.fromkeys((".csv", ".tsv"), (HEAD, (HEADER, NUMBERED))),
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), (HEAD, (LOSS, STEP))),
    **dict.fromkeys((".log", ".txt", ".out", ".err"), (PRINTED_HEAD, (LOSS, STEP))),
    ".ipynb": (None, (re.compile(rb"Training Loss|'loss'"),)),
}


def states(folder: Path) -> list[Path]:
    """The `trainer_state.json` files of an output folder or of a checkpoint, the one of the highest step first."""
    steps = {}
    for path in [folder / STATE, *folder.glob(f"checkpoint-*/{STATE}")]:
        match = CHECKPOINT.fullmatch(path.parent.name)
        if path.is_file():
            steps[path] = int(match[1]) if match and path.parent != folder else global_step(path) or 0
    return sorted(steps, key=steps.__getitem__, reverse=True)


def find_runs(path: str | Path) -> list[Path]:
    """
    The runs in a tree of folders.

    A run directory inside an output folder stands for its checkpoints and TensorBoard files too. Links to folders and
    hidden folders are not followed.

    Args:
        path (`str` or `Path`):
            A folder, or one file.

    Returns:
        `list[Path]`: sorted; [`open_run`] takes each. A run of trackio is the path of its database and its name.
    """
    path = Path(path)
    if not path.is_dir():
        return list(_runs_in_file(path)) or [path]
    found, folders = [], [path]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:  # not ours to read
            continue
        runs, inside = _visit(folder, entries)
        found += runs
        folders += inside
    return sorted(found)


def _visit(folder: Path, entries: list[os.DirEntry]) -> tuple[list[Path], list[Path]]:
    """The runs of one folder, and the folders in it to look at."""
    names = {entry.name for entry in entries}
    if is_run_dir(folder):
        return [folder], []
    if is_wandb_run(names) or (folder / "files" / "wandb-history.jsonl").is_file():
        return [folder], []
    inside = [e for e in entries if e.is_dir(follow_symlinks=False) and not ELSEWHERE.fullmatch(e.name)]
    if runs := _output_folder(folder, names):
        return runs, [Path(entry) for entry in inside if not OF_A_RUN.fullmatch(entry.name)]
    files = [Path(entry) for entry in entries if entry.is_file() and not is_event_file(entry.name)]
    runs = [folder] if any(map(is_event_file, names)) else []
    return runs + [run for file in files for run in _runs_in_file(file)], [Path(entry) for entry in inside]


def _output_folder(folder: Path, names: set[str]) -> list[Path]:
    """The run of a folder into which a trainer writes."""
    if "diagnostics" in names and is_run_dir(folder / "diagnostics"):
        return [folder / "diagnostics"]
    has_states = STATE in names or any(map(CHECKPOINT.fullmatch, names))
    return [folder] if has_states and states(folder) else []


def _runs_in_file(path: Path) -> Iterator[Path]:
    """The path if the file is a log, or the runs in a database."""
    if path.suffix in SUFFIXES:
        try:
            yield from (path / name for name in runs_of(path))
        except DiagnosticsError:  # a database of something else
            return
    elif path.suffix in READ_AS and not NO_LOG.fullmatch(path.name):
        length, marks = READ_AS[path.suffix]
        try:
            with path.open("rb") as file:
                head = file.read(length)
        except OSError:
            return
        if all(mark.search(head) for mark in marks):
            yield path
