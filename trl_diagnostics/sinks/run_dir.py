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
import os
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

from ..engine.finding import Finding, Record


METRICS, FINDINGS, COVERAGE = "metrics.jsonl", "findings.jsonl", "coverage.json"


class RunDir:
    """
    The files a run leaves behind. Every line is complete in its file before the call returns, so that a run that dies
    loses nothing but the line being written.

    Args:
        path (`str` or `Path`):
            Folder; it is created when the first line is written.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._files: dict[str, TextIO] = {}
        self.lines: Counter[str] = Counter()  # written by this run and by those that it goes on from

    def begin(self, step: int = 0, lines: dict[str, int] | None = None) -> None:
        """
        Prepare for a run that starts after `step`: what an earlier run wrote later than that moves to
        `attempts/<n>/`. The run will write these steps again, and a file must tell one story.

        Args:
            step (`int`, *optional*, defaults to `0`):
                Optimizer step of the checkpoint from which training goes on.
            lines (`dict[str, int]`, *optional*):
                How many lines each file had when the checkpoint was saved. Without it the steps in the lines decide.
        """
        names = (METRICS, FINDINGS) if step > 0 else (METRICS, FINDINGS, COVERAGE)  # which is written anew anyway
        found = [self.path / name for name in names if (self.path / name).exists()]
        late = [file for file in found if step == 0 or self._divide(file, step, lines)]
        if not late:
            return
        folder = self._new_attempt()
        for file in late:
            if step == 0:
                file.rename(folder / file.name)
            else:
                _late(file).rename(folder / file.name)
                _kept(file).replace(file)

    def _divide(self, file: Path, step: int, counts: dict[str, int] | None) -> bool:
        """Write the lines up to the checkpoint to one file, the later ones to another; whether there are later ones."""
        with file.open("rb") as lines, _kept(file).open("wb") as kept, _late(file).open("wb") as late:
            for i, line in enumerate(lines):
                early = _is_before(line, step) if counts is None else i < counts.get(file.name, 0)
                (kept if early else late).write(line)
                self.lines[file.name] += early
        if os.path.getsize(_late(file)):
            return True
        _kept(file).unlink()
        _late(file).unlink()
        return False

    def _new_attempt(self) -> Path:
        attempts = self.path / "attempts"
        attempts.mkdir(exist_ok=True)
        taken = [int(folder.name) for folder in attempts.iterdir() if folder.name.isdecimal()]
        folder = attempts / str(max(taken, default=0) + 1)
        folder.mkdir()
        return folder

    def write_record(self, record: Record) -> None:
        """Append one record to `metrics.jsonl`."""
        self._append(METRICS, record.to_json())

    def write_finding(self, finding: Finding) -> None:
        """Append one finding to `findings.jsonl`."""
        self._append(FINDINGS, finding.to_json())

    def write_coverage(self, coverage: dict[str, str]) -> None:
        """Write which rule was active, had too few logs, did not apply or was blind to `coverage.json`."""
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.path / f"{COVERAGE}.part"
        part.write_text(json.dumps(coverage, indent=1) + "\n", encoding="utf-8")
        part.replace(self.path / COVERAGE)

    def _append(self, name: str, data: dict[str, Any]) -> None:
        line = json.dumps(data, allow_nan=False) + "\n"
        if name not in self._files:
            self.path.mkdir(parents=True, exist_ok=True)
            self._files[name] = (self.path / name).open("a", encoding="utf-8")
        file = self._files[name]
        file.write(line)
        file.flush()
        self.lines[name] += 1

    def close(self) -> None:
        """Close the files; a later line opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def _late(file: Path) -> Path:
    return file.with_name(f"{file.name}.late")


def _kept(file: Path) -> Path:
    return file.with_name(f"{file.name}.kept")


def _is_before(line: bytes, step: int) -> bool:
    """A line that is no record (torn when the process was killed) counts as late, and so does the summary of a run."""
    try:
        data = json.loads(line)
        return line.endswith(b"\n") and data["step"] <= step and data.get("phase") != "summary"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
