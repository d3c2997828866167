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

"""Records and findings go in, the files of the run directory come out: strict JSON lines, appended and flushed."""

import json
from pathlib import Path
from typing import Any, TextIO

from ..engine.finding import Finding, Record


METRICS, FINDINGS = "metrics.jsonl", "findings.jsonl"


class RunDir:
    """
    The files a run leaves behind. Every line is complete on disk before the call returns, so that a run that dies
    loses nothing but the line being written.

    Args:
        path (`str` or `Path`):
            Folder; it is created when the first line is written.
        resume (`bool`, *optional*, defaults to `False`):
            Whether to append to what is there. Otherwise the files of an earlier run are moved to `attempts/<n>/`.
    """

    def __init__(self, path: str | Path, resume: bool = False):
        self.path = Path(path)
        self._files: dict[str, TextIO] = {}
        if not resume:
            self._set_aside()

    def _set_aside(self) -> None:
        found = [self.path / name for name in (METRICS, FINDINGS) if (self.path / name).exists()]
        if not found:
            return
        attempts = self.path / "attempts"
        attempts.mkdir(exist_ok=True)
        taken = [int(folder.name) for folder in attempts.iterdir() if folder.name.isdigit()]
        folder = attempts / str(max(taken, default=0) + 1)
        folder.mkdir()
        for file in found:
            file.rename(folder / file.name)

    def write_record(self, record: Record) -> None:
        """Append one record to `metrics.jsonl`."""
        self._append(METRICS, record.to_json())

    def write_finding(self, finding: Finding) -> None:
        """Append one finding to `findings.jsonl`."""
        self._append(FINDINGS, finding.to_json())

    def _append(self, name: str, data: dict[str, Any]) -> None:
        line = json.dumps(data, allow_nan=False) + "\n"
        if name not in self._files:
            self.path.mkdir(parents=True, exist_ok=True)
            self._files[name] = _open_at_line_start(self.path / name)
        file = self._files[name]
        file.write(line)
        file.flush()

    def close(self) -> None:
        """Close the files; a later line opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _open_at_line_start(path: Path) -> TextIO:
    """Open for appending; a torn last line (power loss while writing) is ended, so that it cannot spoil the next."""
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
    file.close()
    return path.open("a", encoding="utf-8")
