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
A way to die goes in; real trainings end in it at random moments, and a table of how often their run directories tell the
truth comes out.
"""

import argparse
import ctypes
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import tiny
import torch
from tiny_data import colour_variety
from tqdm import tqdm
from transformers import TrainerCallback

from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.ending import read_postmortem


PATIENCE = 300.0  # seconds for a process to come to its end
HANG_TIMEOUT = 1.0
ALERT = "all: loss > -1 for 2 steps -> low: so that there are findings"


def _fail() -> None:
    raise RuntimeError("the trap")


def _crash() -> None:
    ctypes.string_at(0)


def _fill_memory() -> None:
    bytearray(1 << 60)


def _fill_memory_of_torch() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def _fill_memory_of_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")  # as the allocator words it


def _wait_for_the_judge() -> None:
    time.sleep(3600)


def _wait_for_the_disk() -> None:
    time.sleep(3600)


@dataclass(frozen=True)
class Death:
    """
    A way in which a training can end.

    Args:
        reason (`str`):
            The `exit_reason` that is right.
        do (`Callable`, *optional*):
            What the training does to itself.
        send (`int`, *optional*):
            The signal that comes from outside.
        says (`str`, *optional*):
            What the traceback has to have in it.
        trainer (`str`, *optional*, defaults to `"sft"`):
            Which one is trained.
        places (`tuple[str, ...]`, *optional*):
            Where it can happen: in the data, the model, the reward function, or a callback.
        status (`int`, *optional*):
            Exit status of the process, negative for a signal.
        after (`str`, *optional*, defaults to `"truth"`):
            The file, or glob, with which the time begins in which the end comes: the first log.
        within (`float`, *optional*, defaults to `1.5`):
            How long that is, in seconds.
        handler (`Callable`, *optional*):
            What the program itself does on SIGTERM.
        then (`int`, *optional*):
            A signal that comes a second later.
    """

    reason: str
    do: Callable[[], None] | None = None
    send: int | None = None
    says: str = ""
    trainer: str = "sft"
    places: tuple[str, ...] = ("data", "model", "callback")
    status: int = 1
    after: str = "truth"
    within: float = 1.5
    handler: Callable[..., None] | None = None
    then: int | None = None


def _exit(number: int, frame: Any) -> None:
    sys.exit(9)


def _go_on(number: int, frame: Any) -> None:
    print("SIGTERM")


START = {"after": "diagnostics/heartbeat.json", "within": 0.2}
SAVE = {"after": "checkpoint-*", "within": 0.05}
REPORT = {"after": "diagnostics/postmortem.json", "within": 0.3}  # training has come to its end

DEATHS = {
    "SIGKILL": Death("killed", send=signal.SIGKILL, status=-9),
    "SIGTERM": Death("sigterm", send=signal.SIGTERM, status=-15),
    "SIGTERM, checkpoint first": Death("sigterm", send=signal.SIGTERM, status=-15),
    "SIGINT": Death("interrupted", send=signal.SIGINT, says="KeyboardInterrupt", status=-2),
    "exception": Death("exception", _fail, says="RuntimeError: the trap"),
    "caught exception": Death("exception", _fail, status=0),
    "caught, inside with": Death("exception", _fail, says="RuntimeError: the trap", status=0),
    "os._exit": Death("killed", lambda: os._exit(7), status=7),
    "segfault": Death("segfault", _crash, says="_crash", status=-11),
    "abort": Death("segfault", os.abort, says="Aborted", status=-6),
    "MemoryError": Death("oom", _fill_memory, says="_fill_memory"),
    "torch out of memory": Death("oom", _fill_memory_of_torch, says="_fill_memory_of_torch"),
    "CUDA out of memory": Death("oom", _fill_memory_of_device, says="_fill_memory_of_device"),
    "reward sleeps": Death(
        "hang", _wait_for_the_judge, says="_wait_for_the_judge", trainer="grpo", places=("reward",), status=-9
    ),
    "SIGKILL at the start": Death("killed", send=signal.SIGKILL, status=-9, **START),
    "SIGTERM at the start": Death("sigterm", send=signal.SIGTERM, status=-15, **START),
    "SIGKILL in a save": Death("killed", send=signal.SIGKILL, status=-9, **SAVE),
    "SIGTERM in a save": Death("sigterm", send=signal.SIGTERM, status=-15, **SAVE),
    "SIGKILL in the report": Death("completed", send=signal.SIGKILL, status=-9, **REPORT),
    "SIGTERM in the report": Death("completed", send=signal.SIGTERM, status=-15, **REPORT),
    "SIGTERM, handler exits": Death("sigterm", send=signal.SIGTERM, status=9, handler=_exit),
    "SIGTERM outlived, SIGKILL": Death("killed", send=signal.SIGTERM, status=-9, handler=_go_on, then=signal.SIGKILL),
    "data loader stuck": Death("hang", _wait_for_the_disk, says="_wait_for_the_disk", places=("data",), status=-9),
}


@dataclass
class Outcome:
    """What one run left behind, and what is wrong with it."""

    name: str
    reason: str = ""
    status: int = 0
    records: int = 0
    missing: int = 0
    wrong: list[str] = field(default_factory=list)


class Trap(TrainerCallback):
    """Springs at the first event of its place some seconds after the first log; writes down each log."""

    def __init__(self, death: Death, seconds: float, place: str, truth: Path):
        self.death, self.seconds, self.place = death, seconds, place
        self.truth = truth.open("w")
        self.deadline = float("inf")

    def at(self, place: str) -> None:
        """Something happens in the training."""
        if place == self.place and time.monotonic() > self.deadline:
            self.deadline = float("inf")
            self.death.do()

    def on_log(self, args, state, control, **kwargs):
        if state.global_step == 1 and self.death.do:
            self.deadline = time.monotonic() + self.seconds
        self.truth.write(f"{state.global_step}\n")
        self.truth.flush()

    def on_step_end(self, args, state, control, **kwargs):
        self.at("callback")


@cache
def prepared(kind: str) -> Any:
    """A trainer that has done everything but train. Each process inherits it, which saves most of the time."""
    import matplotlib.pyplot  # noqa: F401
    import scipy.stats  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        overrides = {"max_steps": 100_000, "save_strategy": "steps", "save_steps": 40, "save_total_limit": 3}
        if kind == "grpo":
            overrides |= {"reward_funcs": judge, "per_device_train_batch_size": 8, "max_completion_length": 4}
        return tiny.make_trainer(kind, folder, **overrides)


TRAP: list["Trap"] = []  # of this process


def judge(completions, **kwargs):
    """A reward function in which the end can come."""
    TRAP[0].at("reward")
    return colour_variety(completions=completions, **kwargs)


def train(name: str, folder: Path, seconds: float, place: str) -> None:
    """Train until the end comes."""
    death = DEATHS[name]
    trap = Trap(death, seconds, place, folder / "truth")
    TRAP.append(trap)
    diagnostics = DiagnosticsCallback(
        custom_alerts=[ALERT],
        hang_timeout=HANG_TIMEOUT if death.reason == "hang" else 300.0,
        checkpoint_on_sigterm="checkpoint" in name,
    )
    trainer = prepared(death.trainer)
    trainer.args.output_dir = str(folder)
    if death.reason == "completed":
        trainer.args.max_steps = 5
    if death.handler:
        signal.signal(signal.SIGTERM, death.handler)
    trainer.add_callback(trap)
    trainer.add_callback(diagnostics)
    collate = trainer.data_collator
    trainer.data_collator = lambda rows: (trap.at("data"), collate(rows))[1]
    trainer.model.register_forward_pre_hook(lambda *_: trap.at("model"))
    if name == "caught, inside with":
        with_caught(trainer, diagnostics)
    elif name == "caught exception":
        try:
            trainer.train()
        except RuntimeError:
            print("caught")
    else:
        trainer.train()


def with_caught(trainer: Any, diagnostics: DiagnosticsCallback) -> None:
    """The way to get a traceback of an exception that the program handles."""
    try:
        with diagnostics:
            trainer.train()
    except RuntimeError:
        print("caught")


def watch(pid: int, name: str, folder: Path, seconds: float) -> int:
    """Send what comes from outside, and wait for the end; returns the exit status."""
    death, until = DEATHS[name], time.monotonic() + PATIENCE
    postmortem = folder / "diagnostics" / "postmortem.json"
    send, send_at = death.send, None
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if send_at is None and any(file.is_dir() or file.stat().st_size for file in folder.glob(death.after)):
            send_at = time.monotonic() + seconds
        expected = death.reason == "completed" or not postmortem.exists()
        if send and send_at and time.monotonic() > send_at and expected:
            os.kill(pid, send)
            send_at = time.monotonic() + (1 if death.then else 15)  # Python swallows what is raised in a destructor
            send = death.then or send
        if death.reason == "hang" and postmortem.exists():
            time.sleep(2.0)  # it is written again when the checkpoints have been looked into
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _lines(file: Path, outcome: Outcome) -> list[dict]:
    """All lines; the last one may be torn."""
    lines, found = file.read_text().split("\n") if file.exists() else [], []
    for i, line in enumerate(lines):
        try:
            found += [_strict(line)] if line else []
        except ValueError:
            if i + 1 < len(lines):
                outcome.wrong.append(f"{file.name}:{i + 1} cannot be read")
    return found


def examine(name: str, folder: Path, status: int) -> Outcome:
    """Compare what the run directory says with what happened."""
    death, run_dir = DEATHS[name], folder / "diagnostics"
    outcome = Outcome(name, status=status)
    for file in run_dir.glob("*.json"):
        try:
            _strict(file.read_text())
        except ValueError as error:
            outcome.wrong.append(f"{file.name}: {error}")
    records = [line["step"] for line in _lines(run_dir / "metrics.jsonl", outcome) if line["phase"] == "train"]
    _lines(run_dir / "findings.jsonl", outcome)
    truth = [int(step) for step in (folder / "truth").read_text().split()]
    logged = truth[: truth.index(truth[-1])] + truth[-1:] if truth else []  # without the summary at the end
    outcome.records, outcome.missing = len(records), len(logged) - len(records)
    found = read_postmortem(run_dir)
    outcome.reason = found["exit_reason"]
    if outcome.reason != death.reason:
        outcome.wrong.append(f"exit_reason is {outcome.reason}: {found['what']}")
    if death.says not in (found["traceback"] or ""):
        outcome.wrong.append(f"the traceback has no {death.says!r}")
    if status != death.status:
        outcome.wrong.append(f"exit status is {status}")
    if records != list(range(1, len(records) + 1)) or not 0 <= outcome.missing <= 1:
        outcome.wrong.append(f"{outcome.missing} records are missing")
    if not len(records) - 1 <= found["last_step"] <= len(logged) + 1:
        outcome.wrong.append(f"last_step is {found['last_step']} after {len(logged)} logs")
    saved = [int(file.parent.name.split("-")[1]) for file in folder.glob("checkpoint-*/trainer_state.json")]
    last = max(saved, default=None)
    named = found["last_verified_finite_checkpoint"]
    if last is not None and named is None:
        outcome.wrong.append("no finite checkpoint is named")
    if "checkpoint first" in name and last != found["last_step"]:
        outcome.wrong.append(f"no checkpoint of the last step {found['last_step']}")
    return outcome


def main() -> list[Outcome] | None:
    """Let trainings die; `None` in a process that is one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs of each kind")
    parser.add_argument("--only", nargs="*", choices=sorted(DEATHS), default=list(DEATHS), metavar="DEATH")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the outcomes")
    parser.add_argument("--keep", type=Path, help="folder for the run directories")
    arguments = parser.parse_args()
    noise = random.Random(arguments.seed)
    outcomes: list[Outcome] = []
    for name in arguments.only:
        for i in range(arguments.times):
            folder = Path(tempfile.mkdtemp(dir=arguments.keep, prefix=f"{name}-{i}-".replace(" ", "_")))
            prepared(DEATHS[name].trainer)
            seconds, place = noise.uniform(0.0, DEATHS[name].within), noise.choice(DEATHS[name].places)
            sys.stdout.flush()
            pid = os.fork()  # the libraries are imported once; what follows is a process of its own
            if pid == 0:
                _redirect(folder / "output")
                tqdm.set_lock(threading.RLock())  # the one of all processes goes with a child that dies holding it
                train(name, folder, seconds, place)
                return None  # on through main to the end of the interpreter, as any script
            outcome = examine(name, folder, watch(pid, name, folder, seconds))
            outcomes.append(outcome)
            for wrong in outcome.wrong:
                print(f"{name} ({seconds:.2f} s, {place}): {wrong}; see {folder}", flush=True)
            if not outcome.wrong and not arguments.keep:
                shutil.rmtree(folder)
        _print_row(name, [outcome for outcome in outcomes if outcome.name == name], first=name == arguments.only[0])
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes]))
    return outcomes


def _redirect(file: Path) -> None:
    with file.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started this in the background


def _print_row(name: str, outcomes: list[Outcome], first: bool) -> None:
    if first:
        print(f"{'':28}{'runs':>6}{'right':>7}{'faults':>8}{'records':>9}{'missing':>9}  exit_reason")
    right = sum(outcome.reason == DEATHS[name].reason for outcome in outcomes)
    faults, records = sum(len(outcome.wrong) for outcome in outcomes), sum(outcome.records for outcome in outcomes)
    missing = sum(outcome.missing for outcome in outcomes)
    row = f"{name:28}{len(outcomes):>6}{right:>7}{faults:>8}{records:>9}{missing:>9}"
    print(f"{row}  {DEATHS[name].reason}", flush=True)


if __name__ == "__main__":
    datasets.disable_progress_bars()
    done = main()
    if done is not None:
        sys.exit(any(outcome.wrong for outcome in done))
