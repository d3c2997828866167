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

"""What a user names on the command line goes in; a trainer, a run directory, or whether to fail comes out."""

from collections.abc import Iterable
from pathlib import Path

from ..engine.finding import DiagnosticsError, Finding, Severity
from ..engine.yaml_file import suggest
from ..metrics.names import MetricMap, known_trainers
from ..sinks.run_dir import check_is_run_dir
from ..sources.checkpoints import CHECKPOINT
from ..sources.trainer_guess import known_version


def map_of(trainer: str) -> MetricMap:
    """The metrics of the trainer that the option `--trainer` means."""
    metric_map, known = MetricMap(trainer.lower().removesuffix("trainer")), known_trainers()
    if metric_map.trainer not in known:
        hint = suggest(metric_map.trainer, known) or f"; known are {', '.join(known)}"
        raise DiagnosticsError(f"--trainer: no trainer '{trainer}'{hint}")
    return metric_map


def trainer_named(text: str | None) -> str | None:
    """The trainer that the option `--trainer` means; without the option `None`."""
    return None if text is None else map_of(text).trainer


def release_named(text: str | None) -> str | None:
    """The release that the option `--trl-version` means; without the option `None`."""
    if text is not None and not known_version(text):
        raise DiagnosticsError(f"--trl-version: {text!r} is no release, expected something like '0.24.0'")
    return text


def run_dir_of(path: Path) -> Path:
    """
    The run directory that is meant by a path: itself, or the folder `diagnostics` in an `output_dir`, or beside a
    checkpoint.

    Raises:
        `DiagnosticsError`: if there is none.
    """
    if not path.is_dir():
        raise DiagnosticsError(f"{path}: no such folder; expected a run directory or the output_dir of a run")
    try:
        check_is_run_dir(path)
    except DiagnosticsError:
        output_dir = path.parent if CHECKPOINT.fullmatch(path.name) else path
        if not (output_dir / "diagnostics").is_dir():
            raise
        path = output_dir / "diagnostics"
        check_is_run_dir(path)
    return path


def is_as_bad(findings: Iterable[Finding], fail_on: str) -> bool:
    """Whether a rule that is not experimental has found something of the severity of `--fail-on`, or worse."""
    counting = [finding.level for finding in findings if finding.status != "experimental"]
    return fail_on != "never" and max(counting, default=Severity.INFO) >= Severity[fail_on.upper()]
