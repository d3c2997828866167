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

"""A path goes in; the finished run that it holds, in whatever format, comes out as a `Run`: records and what they are."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from ..engine.finding import DiagnosticsError, Record
from ..metrics.catalogue import index, parse_version
from ..metrics.names import MetricMap, known_trainers
from .console_log import read_console
from .find import find_runs, states
from .notebook import read_notebook
from .rows import Log, Row, loads, section
from .run_files import HEARTBEAT, METADATA, METRICS, POSTMORTEM, RUN_DIRECTORY, is_run_dir, start_files
from .tables import lines, load_json, open_text, read_csv, read_json, read_jsonl
from .tensorboard import event_files, is_event_file, read_tensorboard
from .trackio_db import SUFFIXES, read_trackio
from .trainer_guess import Guess, infer, is_known, known_version, model_card, reference_free
from .wandb_run import is_wandb_run, read_wandb


SAMPLE = 2000  # rows from which the trainer and the distance of the logs are told
FEW = 200  # rows whose numbers are compared
HEAD = 2**16  # characters by which a format is recognised
JSON_START = re.compile(r'\{\s*["}]|\[\s*[\[{]')
LISTED = 5  # runs, or metrics, that an error names
CONSOLE = "console log"
CAN_BE_READ = (
    "a run directory, trainer_state.json, TensorBoard, W&B and trackio files, CSV, JSON, JSON lines, notebooks and "
    "printed logs"
)
# Files of a run directory that may be named instead of it.
INSIDE = (METRICS, METADATA, POSTMORTEM, HEARTBEAT, "findings.jsonl", "coverage.json")


@dataclass(frozen=True)
class Run:
    """
    A finished run, or one that is still being written.

    Args:
        path (`Path`):
            File or folder that was read.
        kind (`str`):
            Format, in words: `"run directory"`, `"trainer_state.json"`, `"TensorBoard"`, `"CSV"`, `"JSON"`, `"JSONL"`,
            `"W&B"`, `"trackio"`, `"notebook"` or `"console log"`.
        trainer (`str`):
            Trainer, for example `"dpo"`, or `"unknown"`.
        trainer_how (`str`):
            How the trainer is known, in words.
        confidence (`float`):
            How sure the trainer is, 0 to 1.
        trl_version (`str` or `None`):
            TRL release; `None` for the newest, or where it is not known.
        config (`dict[str, Any]`):
            Training arguments, as far as they are known, with `max_steps` and `logging_steps` in optimizer steps.
        metadata (`dict[str, Any]`):
            `run_metadata_start.json` of a run directory, otherwise empty.
        log ([`Log`]):
            What reads the file.
    """

    path: Path
    kind: str
    trainer: str
    trainer_how: str
    confidence: float
    trl_version: str | None
    config: dict[str, Any]
    metadata: dict[str, Any]
    log: Log = field(repr=False, compare=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be read, in words. Reading the records can add to it."""
        return tuple(self.log.notes)

    def records(self) -> Iterator[Record]:
        """
        All records under canonical names, read as they are asked for; each call starts again.

        Where the file has no time, a second per step is as good as any.
        """
        metric_map = MetricMap(self.trainer, self.trl_version)
        for step, time, metrics, phase in self.log.rows():
            if phase is None:  # otherwise it is a record as we write it, with canonical names
                metrics = metric_map.record(metrics)
                phase = metric_map.phase_of(metrics)
            yield Record(step, float(step) if time is None else time, phase, metrics)


def open_run(path: str | Path, trainer: str | None = None, trl_version: str | None = None) -> Run:
    """
    Open a run that somebody recorded.

    Args:
        path (`str` or `Path`):
            A run directory, an output folder, a checkpoint, `trainer_state.json`, a folder of TensorBoard event files,
            a CSV, JSON or JSON-lines export, a folder of a W&B run, a database of trackio (with the name of the run
            behind it if it has several), a notebook, or what a training printed.
        trainer (`str`, *optional*):
            Trainer, for example `"dpo"`. By default it is told from the file.
        trl_version (`str`, *optional*):
            TRL release, for example `"0.24.0"`. By default it is told from the file.

    Raises:
        [`DiagnosticsError`]: if no run can be read there, or an argument is wrong.

    Example:

    ```python
    >>> from trl_diagnostics.sources.logs import open_run

    >>> run = open_run("dpo-model/checkpoint-500")
    >>> run.trainer, run.confidence
    ('dpo', 0.99)
    ```
    """
    path = Path(path)
    given = _given(trainer, trl_version)
    try:
        path, log = _read(path)
        sample = list(islice(log.rows(), SAMPLE))
    except OSError as error:
        raise DiagnosticsError(f"{path}: {error.strerror or error}") from None
    if not sample and log.kind != RUN_DIRECTORY:  # a run may have died before its first log
        reasons = "".join(f"; {note}" for note in log.notes)
        can = f"; what can be read: {CAN_BE_READ}" if log.kind == CONSOLE else ""
        raise DiagnosticsError(f"{path}: no logs of a training in it (read as {log.kind}){reasons}{can}")
    guess = given or _known(log) or (_card(path) if log.kind == "trainer_state.json" else None)
    names = {key: None for row in sample for key in row.metrics}
    if log.kind != RUN_DIRECTORY and not is_known(names):
        raise DiagnosticsError(
            f"{path}: no metric in it that a trainer of TRL logs, such as loss (read as {log.kind}); it has {_some(names)}"
        )
    if guess is None:
        guess = infer(names, log.config, log.partial, reference_free(row.metrics for row in sample[:FEW]))
    newest = index()["releases"][-1]
    if trl_version and parse_version(trl_version) > parse_version(newest):
        said = (
            f"TRL {trl_version} is newer than {newest}, the newest release whose metrics are known; read as {newest}"
        )
        log.notes[said] = None
    version = trl_version or log.trl_version or guess.trl_version
    # what the run itself wrote is already in optimizer steps, and the rules saw just this
    config = log.config if log.metadata and "logging_steps" in log.config else _completed(log, sample)
    return Run(path, log.kind, guess.trainer, guess.how, guess.confidence, version, config, log.metadata, log)


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:LISTED]) + (f" and {len(shown) - LISTED} more" if len(shown) > LISTED else "")


def _given(trainer: str | None, trl_version: str | None) -> Guess | None:
    if trl_version is not None and not known_version(trl_version):
        raise DiagnosticsError(f"trl_version: {trl_version!r} is no release, expected something like '0.24.0'")
    if trainer is None:
        return None
    name = trainer.lower().replace("_", "")
    if name not in {*known_trainers(), "unknown"}:
        raise DiagnosticsError(f"trainer: {trainer!r} is not one of {', '.join(known_trainers())}, unknown")
    return Guess(name, "given", 1.0)


def _known(log: Log) -> Guess | None:
    trainer = log.metadata.get("trainer")
    return Guess(trainer, "written by the run itself", 1.0) if isinstance(trainer, str) else None


def _card(path: Path) -> Guess | None:
    return model_card(path.parent) or model_card(path.parent.parent)


def _completed(log: Log, sample: list[Row]) -> dict[str, Any]:
    """
    The training arguments, with what the rows give away: how far the logs are apart, and how long the run is where the
    file does not say it.
    """
    steps = [row.step for row in sample if not {"loss", "train/loss"}.isdisjoint(row.metrics)]
    steps = steps or [row.step for row in sample]
    apart = [after - before for before, after in zip(steps, steps[1:], strict=False) if after > before]
    planned = log.config.get("max_steps")
    config = {**log.config, "logging_steps": max(1, round(median(apart))) if apart else 1}
    config["max_steps"] = planned if isinstance(planned, int) and planned > 0 else _last_step(log, sample, steps)
    warmup = log.config.get("warmup_steps") or log.config.get("warmup_ratio")
    if isinstance(warmup, float) and 0 < warmup < 1:
        config["warmup_steps"] = math.ceil(warmup * config["max_steps"])
    return config


def _last_step(log: Log, sample: list[Row], steps: list[int]) -> int:
    seen = max(steps, default=0)
    if len(sample) < SAMPLE:
        return seen
    return max(seen, log.last_step() if log.last_step else max(row.step for row in log.rows()))


def _read(path: Path) -> tuple[Path, Log]:
    """What is read in the end, and its log."""
    if path.is_dir():
        return _read_folder(path)
    if path.parent.suffix in SUFFIXES and path.parent.is_file():
        return path, read_trackio(path.parent, path.name)
    if not path.exists():
        raise DiagnosticsError(f"{path}: no such file or folder")
    if path.name in INSIDE and is_run_dir(path.parent):
        return path.parent, _read_run_dir(path.parent)
    return path, _read_file(path)


def _read_folder(folder: Path) -> tuple[Path, Log]:
    for candidate in (folder, folder / "diagnostics"):
        if is_run_dir(candidate):
            return candidate, _read_run_dir(candidate)
    if found := states(folder):
        return _read_states(found)
    names = {entry.name for entry in folder.iterdir()}
    if is_wandb_run(names) or (folder / "files" / "wandb-history.jsonl").is_file():
        return folder, read_wandb(folder)
    if event_files(folder):
        return folder, read_tensorboard(folder)
    runs = find_runs(folder)
    if len(runs) == 1:
        return _read(runs[0])
    if not runs:
        raise DiagnosticsError(f"{folder}: no run in it that can be read")
    shown = ", ".join(str(run) for run in runs[:LISTED])
    more = f" and {len(runs) - LISTED} more" if len(runs) > LISTED else ""
    raise DiagnosticsError(f"{folder}: holds {len(runs)} runs, give one of them: {shown}{more}")


def _read_states(found: list[Path]) -> tuple[Path, Log]:
    """The newest state that can be read: a process that is killed while it saves leaves half a file."""
    notes: dict[str, None] = {}
    for path in found:
        try:
            log = read_json(path)
        except DiagnosticsError as error:
            notes[str(error)] = None
            continue
        log.notes.update(notes)
        return path, log
    raise DiagnosticsError("; ".join(notes))


def _read_run_dir(folder: Path) -> Log:
    log = read_jsonl(folder / METRICS)
    found = [metadata for path in start_files(folder) if (metadata := _metadata(path, log.notes))]
    config = section(section(found[-1], "diagnostics"), "config") if found else {}
    rows = log.rows if (folder / METRICS).is_file() else lambda: iter(())
    version = found[0].get("trl_version") if found else None
    if len(found) > 1:
        times = "once" if len(found) == 2 else f"{len(found) - 1} times"
        log.notes[f"resumed {times}; the training arguments are those of the last start"] = None
    version = version if isinstance(version, str) else None
    return Log(RUN_DIRECTORY, rows, config, log.notes, log.last_step, False, version, found[0] if found else {})


def _metadata(path: Path, notes: dict[str, None]) -> dict[str, Any]:
    try:
        data = load_json(path)
    except DiagnosticsError as error:
        notes[str(error)] = None
        return {}
    data = data if isinstance(data, dict) else {}
    foreign = [key for key in ("arguments", "diagnostics") if not isinstance(data.get(key, {}), dict)]
    notes.update({f"{path.name}: '{key}' is no JSON object, it is left out": None for key in foreign})
    return {key: value for key, value in data.items() if key not in foreign}


def _read_file(path: Path) -> Log:
    if is_event_file(path.name):
        return read_tensorboard(path)
    if path.suffix == ".wandb":
        return read_wandb(path)
    if path.suffix in SUFFIXES:
        return read_trackio(path)
    if not path.stat().st_size:
        raise DiagnosticsError(f"{path}: the file is empty")
    if path.suffix == ".ipynb":
        return read_notebook(path, lambda texts: read_console(partial(iter, list(texts)), path.name))
    if path.suffix in (".csv", ".tsv"):
        return read_csv(path)
    with open_text(path) as file:
        head = file.read(HEAD).lstrip()
    if "\0" in head:
        raise DiagnosticsError(f"{path}: neither text nor a known format; what can be read: {CAN_BE_READ}")
    return _read_text(path, head)


def _read_text(path: Path, head: str) -> Log:
    """JSON, JSON lines or what a training printed; the ending of the name is not always right."""
    if '"stream_name"' in head:
        return read_console(lambda: lines(path), path.name)
    first, _, more = head.partition("\n")
    if path.suffix in (".jsonl", ".ndjson") or (more.lstrip().startswith("{") and _is_object(first)):
        return read_jsonl(path)
    if path.suffix == ".json":
        return read_json(path)
    if JSON_START.match(head):
        try:
            return read_json(path)
        except DiagnosticsError:  # the first line of something that was printed
            pass
    return read_console(lambda: lines(path), path.name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(loads(line), dict)
    except ValueError:
        return False
