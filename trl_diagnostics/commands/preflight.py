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

"""Arguments of `preflight` go in; what is wrong with the training that a script is about to begin comes out."""

import argparse
import contextlib
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from transformers import Trainer

from ..before_training import preflight
from ..engine.finding import DiagnosticsError, Finding
from ..sinks.console import problems
from ..words import count
from .arguments import is_as_bad
from .terminal import print_json, say


SCHEMA_VERSION = 1


class TrainingBegins(BaseException):  # so that no `except Exception` of the script goes on after it
    """Raised in place of `Trainer.train()`, with the trainer."""

    def __init__(self, trainer: Trainer):
        self.trainer = trainer


def run(args: argparse.Namespace) -> int:
    """Run a script up to its first `Trainer.train()` and look at what would be trained."""
    path = Path(args.script)
    if not path.is_file():
        raise DiagnosticsError(f"{path}: no such file; expected the Python script that trains")
    # standard output is for what is found
    with contextlib.redirect_stdout(sys.stderr):
        findings = preflight(trainer_of_script(path, args.arguments))
    if args.json:
        print_json(_document(path, findings, args.fail_on))
    else:
        say(_summary(findings))
    return int(is_as_bad(findings, args.fail_on))


def trainer_of_script(path: Path, arguments: list[str]) -> Trainer:
    """
    The trainer whose `train()` a script calls first. The script does not go on after that.

    Raises:
        `DiagnosticsError`: if it ends before.
    """
    train, argv, folders = Trainer.train, sys.argv, sys.path
    Trainer.train = _train
    sys.argv, sys.path = [str(path), *arguments], [str(path.parent.absolute()), *sys.path]
    try:
        runpy.run_path(str(path), run_name="__main__")
    except TrainingBegins as begins:
        return begins.trainer
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise DiagnosticsError(f"{path}: ended with {ended.code!r} before Trainer.train()") from None
    except Exception as error:
        traceback.print_exc()
        raise DiagnosticsError(f"{path}: {type(error).__name__} before Trainer.train()") from None
    finally:
        Trainer.train, sys.argv, sys.path = train, argv, folders
    raise DiagnosticsError(f"{path}: it has ended, and Trainer.train() was not called")


def _train(self: Trainer, *args: Any, **kwargs: Any) -> None:
    raise TrainingBegins(self)


def _summary(findings: list[Finding]) -> str:
    found = [same[0] for same in problems(findings)]
    if not found:
        return "Preflight: nothing is wrong as far as it can be seen before training"
    lines = [f"  [{finding.severity.upper()}] {finding.rule}: {finding.message}" for finding in found]
    return "\n".join([f"Preflight: {count(len(found), 'finding')}", *lines])


def _document(path: Path, findings: list[Finding], fail_on: str) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "script": path,
        "fail_on": fail_on,
        "exit_code": int(is_as_bad(findings, fail_on)),
        "findings": [finding.to_json() for finding in findings],
    }
