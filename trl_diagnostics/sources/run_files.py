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

"""A folder goes in; whether [`DiagnosticsCallback`] wrote it, and where it wrote what, comes out, by the names of its files."""

import re
from pathlib import Path


METRICS, METADATA = "metrics.jsonl", "run_metadata_start.json"
POSTMORTEM, HEARTBEAT = "postmortem.json", "heartbeat.json"
RUN_DIRECTORY = "run directory"  # the kind of such a run
HEAD = 2**16  # bytes in which metrics show that they are ours; other tools have files of that name


def start_files(folder: Path) -> list[Path]:
    """The metadata of each start of a run, in order, as far as they are there."""
    found = [
        (re.fullmatch(r"run_metadata_start(?:_(\d{1,9}))?\.json", file.name), file) for file in folder.glob("run_*")
    ]
    return [file for _, file in sorted((int(match[1] or 0), file) for match, file in found if match)]


def is_run_dir(folder: Path) -> bool:
    """Whether a run has left something in the folder, if only that it began."""
    if any((folder / name).is_file() for name in (METADATA, HEARTBEAT, POSTMORTEM)):
        return True
    metrics = folder / METRICS
    if not metrics.is_file():
        return False
    with metrics.open("rb") as file:
        return b'"phase"' in file.read(HEAD)
