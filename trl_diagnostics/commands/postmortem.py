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

"""Arguments of `postmortem` go in; how a run ended, after which finding, and where to go on from comes out."""

import argparse
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from ..ending import read_postmortem, still_there
from ..engine.finding import Finding, from_json_number
from ..explain import wrapped
from ..sinks.report_text import ENDED, KEY_METRICS, MOST_LINES
from ..words import duration, number
from .arguments import run_dir_of
from .terminal import facts, print_json, say


MOST_METRICS = 8


def run(args: argparse.Namespace) -> int:
    """Say how a run ended."""
    path = run_dir_of(Path(args.path))
    found = read_postmortem(path)
    if args.json:
        print_json(found | {"run_dir": path})
    else:
        _print(path, found)
    return 0


def _print(path: Path, found: dict[str, Any]) -> None:
    ended = ENDED.get(found["exit_reason"], f"ended ({found['exit_reason']})")
    say(wrapped(f"The run {ended} at step {found['last_step']}, {_when(found['timestamp'])}.", "", "  "))
    say(wrapped(found["what"]) + "\n" if found["exit_reason"] != "completed" else "")
    facts(_facts(path, found))
    if found["traceback"]:
        lines = found["traceback"].rstrip().splitlines()
        say("\nTraceback" + (f" (the last {MOST_LINES} of {len(lines)} lines)" if len(lines) > MOST_LINES else ""))
        say("\n".join(f"  {line}" for line in lines[-MOST_LINES:]))


def _when(timestamp: str) -> str:
    at = datetime.fromisoformat(timestamp)
    ago = duration(time.time() - at.timestamp())
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago} ago)"


def _facts(path: Path, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Run", str(path)
    root = found["root_finding"] and Finding.from_json(found["root_finding"])
    if root:
        said = f"[{root.severity.upper()}] {root.rule} since step {root.first_step}: {root.message}"
        yield "After", said
        yield "Fix", root.fix
    else:
        yield "After", "no finding"
    metrics = found["final_metrics"]
    names = sorted(metrics, key=lambda name: KEY_METRICS.index(name) if name in KEY_METRICS else len(KEY_METRICS))
    said = ", ".join(f"{name} {number(from_json_number(metrics[name]))}" for name in names[:MOST_METRICS])
    yield "Metrics", said + (f" and {len(names) - MOST_METRICS} more" if len(names) > MOST_METRICS else "")
    for hang in found["hangs"]:
        yield "Hang", f"{duration(hang['seconds'])} without a step after step {hang['step']}"
    yield "Checkpoint", _checkpoint(found)
    pid, command = still_there(path) if found["exit_reason"] == "hang" else None, found["resume_command"] or ""
    yield "To go on", f"end process {pid} first, then {command}" if pid and command else command


def _checkpoint(found: dict[str, Any]) -> str:
    last, finite = found["last_checkpoint"], found["last_verified_finite_checkpoint"]
    if last is None:
        return "none on disk"
    if last == finite:
        return f"{last}, the last one; all its weights are finite"
    note = f" ({found['checkpoint_note']})" if found["checkpoint_note"] else ""
    by_probe = found.get("last_checkpoint_finite_by_probe")  # an earlier release does not say it
    probed = f"; {by_probe} the last one that a probe found finite when it was saved" if by_probe else ""
    return f"{last} is the last one{note}, {finite or 'none'} the last one known to be finite{probed}"
