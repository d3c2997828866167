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

"""Arguments of `validate-resume` go in; whether a run would go on as the same run with another config comes out."""

import argparse
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from ..ending import checkpoints_of_run
from ..engine.engine import Engine
from ..engine.finding import DiagnosticsError, Finding, Severity
from ..engine.rulebook import collect_rules
from ..explain import wrapped
from ..metrics.names import MetricMap
from ..sinks.console import rank
from ..sinks.run_dir import last_metadata
from ..sources.checkpoints import CHECKPOINT, saved_memories
from ..sources.resume import BREAKS, CHANGES, HARMLESS, Difference, differences, resume_record
from ..words import count
from .arguments import is_as_bad, run_dir_of
from .terminal import cut, print_json, say, show, table


SCHEMA_VERSION = 1
READABLE = (".yaml", ".yml", ".json")
VERDICTS = {
    BREAKS: "It would not go on: {}.",
    CHANGES: "It would go on as another run: {}.",
    None: "It would go on as the same run.",
}


def run(args: argparse.Namespace) -> int:
    """Compare the start of a run that saved the last checkpoint with the config with which it shall be resumed."""
    path, given = run_dir_of(Path(args.path)), Path(args.path)
    found = checkpoints_of_run(path, last_metadata(path), seconds=0)
    if CHECKPOINT.fullmatch(given.name):
        found = [one for one in found if one.path.name == given.name]
    else:
        found = [one for one in found if not one.foreign]
    checkpoint, step = (found[-1].path, found[-1].step) if found else (None, 0)
    before = last_metadata(path, checkpoint and _saved_in(checkpoint))
    if not before.get("arguments"):
        raise DiagnosticsError(f"{path}: has no run_metadata_start.json with the training arguments of the run")
    after, unknown = _after(before, Path(args.config))
    differing = differences(before, after, checkpoint)
    findings = _findings(before, after, checkpoint, step)
    if args.json:
        print_json(_document(path, checkpoint, differing, findings, unknown))
    else:
        _print(checkpoint, differing, findings, unknown)
    is_another = any(one.effect != HARMLESS for one in differing) and args.fail_on != "never"
    return int(is_another or is_as_bad(findings, args.fail_on))


def _saved_in(checkpoint: Path) -> int | None:
    """How many resumes there had been when a checkpoint was saved, by what the callback left in it."""
    known = (memory.get("resumes") for memory in reversed(saved_memories(checkpoint)))
    return next((number for number in known if isinstance(number, int)), None)


def _after(before: dict[str, Any], file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The metadata that the run would have, and the keys of the file that are no arguments of it, with what is meant."""
    new = _metadata(file) if file.is_dir() else _read(file)
    if isinstance(new.get("arguments"), dict):  # the metadata of another run
        return new, {}
    old = before["arguments"]
    known = {key: _like(old[key], value) for key, value in new.items() if key in old}
    unknown = {str(key): "".join(get_close_matches(str(key), old, 1, 0.8)) for key in new if key not in old}
    return {**before, "arguments": {**old, **known}}, unknown


def _metadata(folder: Path) -> dict[str, Any]:
    """Of another run."""
    try:
        return last_metadata(run_dir_of(folder))
    except DiagnosticsError as error:
        raise DiagnosticsError(f"--config: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    if file.suffix not in READABLE:
        raise DiagnosticsError(
            f"--config: {file}: format not supported; give YAML or JSON ({', '.join(READABLE)}), or the run directory "
            "of another run"
        )
    try:
        text = file.read_text(encoding="utf-8")
        data = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise DiagnosticsError(f"--config: {file}: no such file") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise DiagnosticsError(f"--config: {file}: neither YAML nor JSON: {error}") from None
    if not isinstance(data, dict):
        raise DiagnosticsError(f"--config: {file}: expected training arguments by their names, such as beta: 0.1")
    return data


def _like(old: Any, new: Any) -> Any:
    """YAML takes 5e-6 for a text, and 1 for a whole number where the run has 1.0."""
    if isinstance(old, int | float) and not isinstance(old, bool) and isinstance(new, str | int | float):
        try:
            number = float(new)
        except ValueError:
            return new
        return int(number) if isinstance(old, int) and number.is_integer() else number
    return new


def _findings(before: dict[str, Any], after: dict[str, Any], checkpoint: Path | None, step: int) -> list[Finding]:
    trainer = before.get("trainer")
    engine = Engine(collect_rules(), trainer, after["arguments"], MetricMap(trainer or "", before.get("trl_version")))
    found = engine.update(resume_record(before, after, checkpoint, step))
    return sorted(rank(f for f in found if f.level > Severity.INFO), key=lambda finding: -finding.level)


def _print(
    checkpoint: Path | None, differing: list[Difference], findings: list[Finding], unknown: dict[str, str]
) -> None:
    worst = differing[0].effect if differing and differing[0].effect in VERDICTS else None
    grave = [str(one) for one in differing if one.effect == worst]
    more = f", and {count(len(grave) - 3, 'other difference')}" if len(grave) > 3 else ""
    where = f"From {checkpoint}." if checkpoint else "There is no checkpoint of this run on disk to go on from."
    if checkpoint or worst:
        say(wrapped(VERDICTS[worst].format("; ".join(grave[:3]) + more), "", "  "))
    say(wrapped(where, "  " if checkpoint or worst else ""))
    for finding in findings:
        say("\n" + wrapped(f"[{finding.severity.upper()}] {finding.rule}: {finding.message}", "", " " * 7))
        say(wrapped(f"Fix: {finding.fix}", " " * 7) if finding.fix else "")
    if differing:
        say("")
        rows = [[one.field, cut(str(one.before), 24), cut(str(one.after), 24), one.effect] for one in differing]
        show(table(["differs", "before", "after", "effect"], rows))
    if unknown:
        named = ", ".join(f"{key} (did you mean {near}?)" if near else key for key, near in unknown.items())
        say("\n" + wrapped(f"Not compared, for the run has no such argument: {named}", "", "  "))


def _document(
    path: Path, checkpoint: Path | None, differing: list[Difference], findings: list[Finding], unknown: dict[str, str]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run": path,
        "checkpoint": checkpoint,
        "differences": [one.to_json() for one in differing],
        "findings": [finding.to_json() for finding in findings],
        "not_compared": list(unknown),
    }
