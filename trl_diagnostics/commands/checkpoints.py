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

"""Arguments of `checkpoints` go in; what is in each checkpoint, and which to go on from or to ship, comes out."""

import argparse
from typing import Any

from rich.text import Text

from ..diagnosis import Diagnosis
from ..engine.finding import DiagnosticsError
from ..explain import wrapped
from ..sources.advice import Advice
from ..sources.checkpoints import Checkpoint
from ..words import count, number
from .results import one_run
from .terminal import facts, print_json, say, show, table


SCHEMA_VERSION = 1


def run(args: argparse.Namespace) -> int:
    """List the checkpoints of a run; exit code 1 if none is fit to go on from."""
    diagnosis = one_run(args.path).diagnosis
    if diagnosis.advice is None:
        raise DiagnosticsError(f"{args.path}: there is no checkpoint of this run on disk")
    if args.json:
        print_json(_document(diagnosis))
    else:
        _print(diagnosis, diagnosis.advice)
    return int(diagnosis.advice.go_on is None)


def _print(diagnosis: Diagnosis, advice: Advice) -> None:
    go_on, ship = (f"{one.path}. " if one else "" for one in (advice.go_on, advice.ship))
    if advice.go_on is None and advice.ship is None:
        say(wrapped(advice.why_go_on, "", "  "))
    else:
        facts([("Go on from", go_on + advice.why_go_on), ("Ship", ship + advice.why_ship)])
    found = diagnosis.checkpoints
    say(f"\n{count(len(found), 'checkpoint')} in {found[0].path.parent}")
    show(table(["step", "weights", "to go on", "score", "against it"], map(_row, found), ["step"]))


def _row(checkpoint: Checkpoint) -> list[str | Text]:
    weights = {True: Text("finite", "green"), False: Text("not finite", "bold red"), None: Text("not checked")}
    if "weights" in checkpoint.missing:
        state = Text("missing or damaged", "bold red")
    else:
        state = weights[checkpoint.finite]
    lacking = ", ".join(part for part in checkpoint.missing if part != "weights")
    score = "" if checkpoint.score is None else f"{checkpoint.scored_by} {number(checkpoint.score)}"
    too_close = [f"too close to {finding}" for finding in checkpoint.too_close]
    against = "; ".join([*filter(None, (checkpoint.foreign, checkpoint.note)), *checkpoint.suspect, *too_close])
    return [str(checkpoint.step), state, f"lacks {lacking}" if lacking else "complete", score, against]


def _document(diagnosis: Diagnosis) -> dict[str, Any]:
    advice = diagnosis.advice
    return {
        "schema_version": SCHEMA_VERSION,
        "run": diagnosis.run.path,
        "go_on": advice.go_on and advice.go_on.path,
        "why_go_on": advice.why_go_on,
        "ship": advice.ship and advice.ship.path,
        "why_ship": advice.why_ship,
        "checkpoints": [
            {**vars(one), "usable": one.usable, "resumable": one.resumable} for one in diagnosis.checkpoints
        ],
    }
