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

"""A log that grows goes in; what is known of the run so far is kept, in memory that does not grow with it."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from .diagnosis import Replay
from .engine.finding import DiagnosticsError, Finding, Record
from .sinks.curves import MOST_CURVES, Curve
from .sources.logs import Run, open_run


LOGS_FOR_RATE = 50
LATE = 60.0  # seconds without a log
MOST_FINDINGS = 1000  # of a rule that comes and goes all the time
UNIX = 1e8  # a smaller time of a record is a number of the reader's own


class Follower:
    """
    Takes what is new in a log each time it is asked. The file is read from its start, for few formats can be read from
    the middle; only the records that were not there before are judged.

    Args:
        path (`Path`):
            Run directory or log file.
        trainer (`str`, *optional*), trl_version (`str`, *optional*):
            As for [`open_run`].
    """

    def __init__(self, path: Path, trainer: str | None = None, trl_version: str | None = None):
        self.path, self.trainer, self.trl_version = path, trainer, trl_version
        self.waiting_for = ""  # why nothing can be read yet
        self.run: Run | None = None
        self._signature: tuple | None = None
        self._begin(None)

    def _begin(self, run: Run | None) -> None:
        """Forget everything: another run, or the same with other arguments."""
        self.replay = Replay(run) if run else None
        self.run = run
        self.count = 0  # records that were read
        self.last: Record | None = None
        self.values: dict[str, float | None] = {}  # last one of each metric
        self.curves: dict[str, Curve] = {}
        self.findings: deque[Finding] = deque(maxlen=MOST_FINDINGS)
        self.pace: deque[tuple[float, int]] = deque(maxlen=LOGS_FOR_RATE)  # when, and which step

    def look(self) -> list[Finding]:
        """
        Read what has come since the last look.

        Returns:
            `list[Finding]`: what the rules say about it.
        """
        signature = _signature(self.path)
        if signature == self._signature:
            return []
        try:
            found = self._read(_so_far(open_run(self.path, self.trainer, self.trl_version)))
        except (DiagnosticsError, OSError) as error:  # nothing in it yet, or it is being written anew
            self.waiting_for = str(error)
            return []
        self.waiting_for, self._signature = "", signature
        return found

    def _read(self, run: Run) -> list[Finding]:
        if self.run is None or _identity(run) != _identity(self.run):
            self._begin(run)
        found = [finding for record in self._new_records(run) for finding in self._take(record)]
        if self.last is not None and self.last.time < UNIX:
            self.pace.append((time.time(), self.last.step))
        self.run = run  # with the notes of this reading
        return found

    def _new_records(self, run: Run) -> Iterator[Record]:
        """The records after those that are known; all of them if these are not there any more."""
        records = run.records()
        if self.count:
            known = next(islice(records, self.count - 1, None), None)
            # a resume, a line that was read before it was whole, a file that was written anew
            if known is None or known.to_json() != self.last.to_json():
                self._begin(run)
                return run.records()
        return records

    def _take(self, record: Record) -> list[Finding]:
        self.count, self.last = self.count + 1, record
        for metric, value in record.metrics.items():
            if metric in self.curves or len(self.curves) < MOST_CURVES:
                self.curves.setdefault(metric, Curve()).push(record.step, value)
                self.values[metric] = value
        if record.phase == "train" and record.time > UNIX:
            self.pace.append((record.time, record.step))
        found = self.replay.take(record)
        self.findings += found
        return found

    def last_time(self) -> float:
        """When the last log came, in Unix seconds: by its own word, or when a file was written."""
        if self.last is not None and self.last.time > UNIX:
            return self.last.time
        return max((entry[2] / 1e9 for entry in self._signature or () if len(entry) == 3), default=0.0)

    def is_late(self) -> bool:
        """Whether the next log should have come long ago."""
        usual = (self.pace[-1][0] - self.pace[0][0]) / (len(self.pace) - 1) if len(self.pace) > 1 else 0.0
        return time.time() - self.last_time() > max(LATE, 5 * usual)

    def steps_per_second(self) -> float | None:
        """Speed over the last logs, waiting included; `None` where it is not known."""
        if len(self.pace) < 2:
            return None
        (first, start), (last, end) = self.pace[0], self.pace[-1]
        return (end - start) / (last - first) if last - first > 0.5 and end > start else None


def _so_far(run: Run) -> Run:
    """Where nothing says how long the run will be, its last step does not either while the log grows."""
    if run.config.get("max_steps") == run.log.config.get("max_steps"):
        return run
    return replace(run, config={**run.log.config, "logging_steps": run.config["logging_steps"]})


def _identity(run: Run) -> tuple:
    return run.kind, run.trainer, run.trl_version, run.config


def _signature(path: Path) -> tuple:
    """Changes when something is written: into a folder, a file, or the log of a database beside its file."""
    if path.is_dir():
        return tuple(map(_size_and_time, sorted(path.rglob("*"))))
    file = path.parent if path.parent.is_file() else path
    return _size_and_time(file), _size_and_time(file.with_name(f"{file.name}-wal"))


def _size_and_time(file: Path) -> tuple:
    try:
        stat = file.stat()
    except OSError:  # replaced by a new one at this moment
        return (file,)
    return file, stat.st_size, stat.st_mtime_ns
