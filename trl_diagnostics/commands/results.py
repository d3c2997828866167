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

"""Paths of a command line go in, the runs that they mean come out, each judged or with the reason why it could not be."""

from collections.abc import Callable
from dataclasses import dataclass
from os.path import abspath
from pathlib import Path

from ..diagnosis import Diagnosis, diagnose
from ..engine.finding import DiagnosticsError, Finding, Record
from ..sinks.console import problems
from ..sinks.report_text import failure, state
from ..sources.logs import find_runs, open_run
from .arguments import is_as_bad


UNREADABLE = "unreadable"


def runs_in(names: list[str]) -> list[Path]:
    """
    The runs that some paths hold, each once.

    Raises:
        `DiagnosticsError`: for a folder that holds none.
    """
    if not all(names):
        raise DiagnosticsError("diagnose: PATH is empty; '.' is the current folder")
    if not names:
        raise DiagnosticsError(
            "diagnose: no PATH; name a run directory, a log file or a folder with runs: trl-diagnostics diagnose out"
        )
    found: dict[str, Path] = {}
    for path in map(Path, names):
        runs = find_runs(path)
        if not runs:
            raise DiagnosticsError(
                f"{path}: no run in it: no run directory, no trainer_state.json, no log in a format that can be read"
            )
        for run in runs:
            found.setdefault(abspath(run), run)
    return list(found.values())


@dataclass(frozen=True)
class Result:
    """One run: what is known of it, or why it could not be read, and the files of its report."""

    path: Path
    diagnosis: Diagnosis | None
    error: str = ""
    report: tuple[Path, ...] = ()

    @property
    def first(self) -> Finding | None:
        """The finding to look at first, as it began."""
        same = next(iter(problems(self.diagnosis.findings)), ())
        return min(same, key=lambda finding: finding.first_step, default=None)

    @property
    def verdict(self) -> str:
        """A word or three."""
        if self.diagnosis is None:
            return UNREADABLE
        return state(self.diagnosis.findings, self.diagnosis.coverage, failure(self.diagnosis))

    def exit_code(self, fail_on: str) -> int:
        """2 if it could not be read, 1 for a finding as bad as `fail_on` or worse and for a run that failed."""
        if self.diagnosis is None:
            return 2
        failed = bool(failure(self.diagnosis)) and fail_on != "never"
        return int(failed or is_as_bad(self.diagnosis.findings, fail_on))


def result_of(
    path: Path, trainer: str | None, trl_version: str | None, on_record: Callable[[Record], None] | None = None
) -> Result:
    """Read and judge one run."""
    try:
        return Result(path, diagnose(open_run(path, trainer, trl_version), on_record=on_record))
    except DiagnosticsError as error:
        return Result(path, None, str(error))


def one_run(name: str, trainer: str | None = None, trl_version: str | None = None) -> Result:
    """
    Read and judge the one run that a path means.

    Raises:
        `DiagnosticsError`: if it holds several, or cannot be read.
    """
    paths = runs_in([name])
    if len(paths) > 1:
        raise DiagnosticsError(f"{name}: holds {len(paths)} runs; name one of them, for example {paths[0]}")
    result = result_of(paths[0], trainer, trl_version)
    if result.diagnosis is None:
        raise DiagnosticsError(result.error)
    return result
