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

"""
What a run has to say goes in, the files of the run directory come out: JSON lines, appended and flushed, and whole JSON
files that are replaced at once.
"""

import json
import math
import os
import re
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from io import FileIO
from itertools import chain, count, islice
from pathlib import Path
from typing import Any
from weakref import WeakSet

from ..engine.finding import DiagnosticsError, Finding, Record
from ..sources.rows import section
from ..sources.run_files import HEARTBEAT, METRICS, POSTMORTEM, is_run_dir


try:
    import fcntl
except ImportError:  # Windows, where the files of a process that goes on cannot be moved away, either
    fcntl = None

SCHEMA_VERSION = 1

FINDINGS, COVERAGE = "findings.jsonl", "coverage.json"
START, FINAL = "run_metadata_start", "run_metadata_final"  # `<name>.json`, and `<name>_<n>.json` after the n-th resume
RESUME = "resume"  # `resume_<n>.json`: what differed at the n-th resume
MEMORY = "memory"  # `memory_<n>.json`: what the rules remembered at a resume of records that are not here
PREFLIGHT = "preflight"  # `preflight.json`: what was looked at before the first step
CRASH_LOG, HANG_LOG = "crash.log", "hang.log"
REPORTS, SNAPSHOTS, DIFFS = "reports", "snapshots", "diffs"
LOCK = "run.lock"  # stays where it is: who removes a lock may remove the one that another process just took

ENCODER = json.JSONEncoder(allow_nan=False)  # json.dumps makes one for each line

LINES = (METRICS, FINDINGS)  # a resumed run goes on in these
OF_ONE_ATTEMPT = (POSTMORTEM, HEARTBEAT, CRASH_LOG, HANG_LOG, REPORTS)
OF_ONE_RUN = (
    *LINES,
    COVERAGE,
    f"{START}*.json",
    f"{FINAL}*.json",
    f"{RESUME}.json",
    f"{RESUME}_[0-9]*.json",
    f"{MEMORY}*.json",
    f"{PREFLIGHT}.json",
    SNAPSHOTS,
    DIFFS,
    *OF_ONE_ATTEMPT,
)
LEFT_OVER = ("*.json.*-*-*.part", "*.jsonl.kept", "*.jsonl.late")  # of a process that was killed while it wrote

HELD: WeakSet[FileIO] = WeakSet()  # locks of this process


def _let_go() -> None:
    """A forked process inherits the locks, and would hold them for as long as it outlives the training."""
    for lock in HELD:
        lock.close()


if os.name == "posix":
    os.register_at_fork(after_in_child=_let_go)


class RunDir:
    """
    The files a run leaves behind. Every line is complete in its file before the call returns, so that a run that dies
    loses nothing but the line being written.

    Args:
        path (`str` or `Path`):
            Folder; it is created when a run begins.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._files: dict[str, FileIO] = {}
        self.lines: Counter[str] = Counter()  # written by this run and by those that it goes on from
        self.resumes = 0  # how many times a run went on in this folder
        self.attempt: str | None = None  # the folder in `attempts` that took what came after the checkpoint
        self.start_id = uuid.uuid4().hex
        self.blocked = False  # by a folder that cannot be made, or by a run that could not be moved out of the way
        self.lock: FileIO | None = None

    def take(self) -> bool:
        """
        Keep other trainings out of the folder until [`RunDir.release`] or the end of the process, however it ends; `False`
        where another one is in it. Where the file system has no locks, nobody can tell.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = (self.path / LOCK).open("ab", buffering=0)
            HELD.add(self.lock)
            if fcntl is not None:  # not lockf(): it lets go when anything in this process has read the file
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        except OSError:  # what cannot be written, either, is said when it is
            pass
        return True

    def release(self) -> None:
        """Let other trainings in."""
        if self.lock is not None:
            self.lock.close()

    def begin(self, step: int = 0, lines: dict[str, int] | None = None, saved_by: str | None = None) -> None:
        """
        Prepare for a run that starts after `step`: what an earlier run wrote later than that moves to
        `attempts/<n>/`. The run will write these steps again, and a file must tell one story. What belongs to another
        run moves there as a whole, and what is there of this run comes back. So does what an earlier resume cut off of
        the run that saved the checkpoint.

        Args:
            step (`int`, *optional*, defaults to `0`):
                Optimizer step of the checkpoint from which training goes on; with 0 nothing of the earlier run stays.
            lines (`dict[str, int]`, *optional*):
                How many lines each file had when the checkpoint was saved. Without it the steps in the lines decide.
            saved_by (`str`, *optional*):
                `start_id` of what saved the checkpoint. Without it the run in the folder is taken for it.
        """
        self.blocked = True
        self.path.mkdir(parents=True, exist_ok=True)
        for file in self._found((*LEFT_OVER, CRASH_LOG)):
            if file.name != CRASH_LOG or not file.stat().st_size:  # open, for a crash that did not come
                file.unlink()
        starts = list(self.path.glob(f"{START}*.json"))
        if step > 0 and starts and not any(_is_of(file, saved_by) for file in starts):
            self._change_places(saved_by)
        if step > 0 and saved_by and lines:
            self._take_back(saved_by, lines)
        whole = self._found(OF_ONE_ATTEMPT if step > 0 else OF_ONE_RUN)
        divided = [file for file in self._found(LINES) if self._divide(file, step, lines)] if step > 0 else []
        if whole or divided:
            folder = self._set_aside(whole)
            self.attempt = folder.name
            for file in divided:
                _late(file).rename(folder / file.name)
                _kept(file).replace(file)
        self.resumes = max(_numbers(self.path), default=-1) + 1
        self.blocked = False

    def _change_places(self, saved_by: str) -> None:
        self._set_aside(self._found(OF_ONE_RUN))
        starts = self.path.glob(f"attempts/*/{START}*.json")
        mine = next((file.parent for file in starts if _is_of(file, saved_by)), None)
        if mine is not None:
            for file in list(mine.iterdir()):
                file.rename(self.path / file.name)
            mine.rmdir()

    def _take_back(self, saved_by: str, counts: dict[str, int]) -> None:
        """Have what the run had written when it saved the checkpoint, where it was resumed from an earlier one since."""
        starts = {number: read_json(self.path / numbered(START, number)) or {} for number in _numbers(self.path)}
        saved_in = max((number for number, data in starts.items() if data.get("start_id") == saved_by), default=0)
        later = [section(starts[number], "resumed") for number in sorted(starts, reverse=True) if number > saved_in]
        if all(resumed.get("records", math.inf) >= counts.get(METRICS, 0) for resumed in later):
            return
        for name in LINES:
            with _kept(self.path / name).open("wb") as kept:
                kept.writelines(self._lines_before(name, later))
        folder = self._set_aside(self._found(OF_ONE_RUN))
        for kept in [_kept(self.path / name) for name in LINES]:
            kept.replace(kept.with_suffix("")) if kept.stat().st_size else kept.unlink()
        names = [numbered(name, number) for name in (START, FINAL, RESUME, MEMORY) for number in range(saved_in + 1)]
        for name in names:
            if (folder / name).exists():
                shutil.copy2(folder / name, self.path)

    def _lines_before(self, name: str, resumes: list[dict[str, Any]]) -> Iterator[bytes]:
        """A file as it was before some resumes, of which the last comes first; what is not there any more is left out."""
        lines = _lines_of(self.path / name)
        for resumed in resumes:
            cut_off = self.path / "attempts" / str(resumed.get("attempt")) / name
            lines = chain(islice(lines, section(resumed, "lines").get(name, 0)), _lines_of(cut_off))
        return lines

    def _found(self, patterns: tuple[str, ...]) -> list[Path]:
        return [file for pattern in patterns for file in sorted(self.path.glob(pattern))]

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

    def _set_aside(self, files: list[Path]) -> Path:
        attempts = self.path / "attempts"
        attempts.mkdir(exist_ok=True)
        taken = [int(folder.name) for folder in attempts.iterdir() if folder.name.isdecimal()]
        folder = attempts / str(max(taken, default=0) + 1)
        folder.mkdir()
        for file in files:
            file.rename(folder / file.name)
        return folder

    def kept(self) -> dict[str, Any]:
        """What [`RunDir.begin`] left in its place, and where it put what came after it: enough to have that again."""
        return {"records": self.lines[METRICS], "lines": dict(self.lines), "attempt": self.attempt}

    def write_record(self, record: Record) -> None:
        """Append one record to `metrics.jsonl`."""
        self._append(METRICS, record.to_json())

    def write_finding(self, finding: Finding) -> None:
        """Append one finding to `findings.jsonl`."""
        self._append(FINDINGS, finding.to_json())

    def write_coverage(self, coverage: dict[str, str]) -> None:
        """Write which rule was active, had too few logs, did not apply or was blind to `coverage.json`."""
        if not self.blocked:
            write_json(self.path / COVERAGE, coverage)

    def write_metadata(self, name: str, data: dict[str, Any]) -> None:
        """Write the metadata of a start or an end, or what differed at a resume; what is there stays as it is."""
        file = self.path / numbered(name, self.resumes)
        if not file.exists() and not self.blocked:
            write_json(file, {"schema_version": SCHEMA_VERSION, "start_id": self.start_id, **data})

    def _append(self, name: str, data: dict[str, Any]) -> None:
        if self.blocked:
            return
        line = memoryview((ENCODER.encode(data) + "\n").encode())
        if name not in self._files:
            self.path.mkdir(parents=True, exist_ok=True)
            self._files[name] = (self.path / name).open("ab", buffering=0)
        file = self._files[name]
        end = file.seek(0, os.SEEK_END)
        try:
            while line:  # on a full disk a part of it fits
                line = line[file.write(line) :]
        except OSError:
            file.truncate(end)  # half a line would spoil the next one
            raise
        self.lines[name] += 1

    def close(self) -> None:
        """Close the files; a later line opens them again."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def take_unused(path: Path) -> RunDir:
    """The run directory itself, or the first one with a number behind its name in which there is no other training."""
    names = (path.with_name(f"{path.name}-{i}") if i > 1 else path for i in count(1))
    return next(files for files in map(RunDir, names) if files.take())


def write_json(file: Path, data: dict[str, Any], sync: bool = True) -> None:
    """
    Replace a JSON file at once: whoever reads it sees the old or the new one, never a part.

    Args:
        file (`Path`):
            The file; its folder is created.
        data (`dict[str, Any]`):
            Its content, without NaN.
        sync (`bool`, *optional*, defaults to `True`):
            Whether it shall survive a power loss right after this call.
    """
    write_file(file, (json.dumps(data, indent=1, allow_nan=False) + "\n").encode(), sync)


def write_file(file: Path, data: bytes, sync: bool = True) -> None:
    """Replace a file at once, as [`write_json`] does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own for each write: a signal handler or another thread may write the same file meanwhile.
    part = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}.part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        part.replace(file)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object from disk; `None` where there is none that can be read."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def last_metadata(path: Path, number: int | None = None) -> dict[str, Any]:
    """
    What is known about a run from one of its starts.

    Args:
        path (`Path`):
            Run directory.
        number (`int`, *optional*):
            How many resumes there were before that start. Defaults to the last start.

    Returns:
        `dict[str, Any]`: content of `run_metadata_start.json`, or of `run_metadata_start_<number>.json`; `{}` where there
        is none that can be read.
    """
    numbers = sorted(_numbers(path), reverse=True) if number is None else [number]
    found = (read_json(path / numbered(START, n)) for n in numbers)
    return next((data for data in found if data is not None), {})


def check_is_run_dir(path: Path) -> None:
    """
    Raises:
        [`DiagnosticsError`]: if no run has left anything in the folder.
    """
    if not is_run_dir(path):
        raise DiagnosticsError(f"{path}: no run directory; expected a folder with {METRICS} or {HEARTBEAT}")


def _is_of(metadata: Path, start_id: str | None) -> bool:
    """Whether a start wrote these metadata, as far as that is known."""
    return start_id is None or (read_json(metadata) or {}).get("start_id") == start_id


def _numbers(path: Path) -> list[int]:
    names = (re.fullmatch(rf"{START}(?:_(\d+))?\.json", file.name) for file in path.glob(f"{START}*.json"))
    return [int(name[1] or 0) for name in names if name]


def numbered(name: str, number: int) -> str:
    return f"{name}_{number}.json" if number else f"{name}.json"


def _late(file: Path) -> Path:
    return file.with_name(f"{file.name}.late")


def _kept(file: Path) -> Path:
    return file.with_name(f"{file.name}.kept")


def _lines_of(file: Path) -> Iterator[bytes]:
    if file.exists():
        with file.open("rb") as lines:
            yield from lines


def _is_before(line: bytes, step: int) -> bool:
    """A line that is no record (torn when the process was killed) counts as late, and so does the summary of a run."""
    try:
        data = json.loads(line)
        return line.endswith(b"\n") and data["step"] <= step and data.get("phase") != "summary"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
