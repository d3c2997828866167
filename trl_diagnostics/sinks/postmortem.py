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

"""How a run ended and what is known of its checkpoints go in, the content of `postmortem.json` comes out."""

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.finding import Finding, Record, Severity, json_numbers
from ..sources.rows import section
from .console import rank
from .redact import redact_text
from .run_dir import SCHEMA_VERSION


if TYPE_CHECKING:
    from ..sources.checkpoints import Checkpoint

RECORDS = 50  # the last ones, kept with the postmortem
LAST_FINDINGS = 10
RESUME = "__resume_from_checkpoint"  # an option of transformers may be written with - or _

REFUSED = "fail_on_resume_mismatch: "  # how the message of a resume that was refused begins
CAUGHT = (
    "Training was left without its end while the process went on: the program caught an exception, or called sys.exit(). "
    "Used as `with DiagnosticsCallback(...) as diagnostics:` around trainer.train(), the next postmortem has the "
    "traceback."
)
SIGTERM = "SIGTERM asked the process to end: preemption or the time limit of a cluster, or kill."
BATCH_SIZE = "auto_find_batch_size started the training again with a smaller batch: this one did not fit into memory."


def postmortem(
    exit_reason: str,
    what: str,
    *,
    last_step: int,
    at: float,
    records: list[Record],
    findings: Iterable[Finding],
    found: list["Checkpoint"],
    go_on: "Checkpoint | None" = None,
    command: str = "",
    traceback: str = "",
    hangs: Iterable[dict] = (),
) -> dict[str, Any]:
    """
    The content of `postmortem.json`.

    Args:
        exit_reason (`str`):
            `"completed"`, `"stopped_by_rule"`, `"exception"`, `"oom"`, `"interrupted"`, `"sigterm"`, `"killed"`,
            `"segfault"`, `"hang"` or `"unfinished"`.
        what (`str`):
            The same in words.
        last_step (`int`):
            The last optimizer step that was finished.
        at (`float`):
            Unix time in seconds of the end, or of the last sign of life.
        records (`list[Record]`):
            The last ones, in order.
        findings (`Iterable[Finding]`):
            All of them, in order.
        found (`list[Checkpoint]`):
            Checkpoints on disk, by step.
        go_on (`Checkpoint`, *optional*):
            The one to go on from, as [`advise`] says.
        command (`str`, *optional*):
            The command line of the run, see [`command_line`].
        traceback (`str`, *optional*):
            Of the exception, or what the training was waiting for in a hang.
        hangs (`Iterable[dict]`, *optional*):
            Times when nothing moved, whether or not the run went on.

    Returns:
        `dict[str, Any]`: strict JSON without secrets.
    """
    findings = list(findings)
    problems = rank(finding for finding in findings if finding.level > Severity.INFO)
    root = problems[0] if problems else None
    return {
        "schema_version": SCHEMA_VERSION,
        "exit_reason": exit_reason,
        "what": redact_text(what),
        "last_step": last_step,
        "timestamp": datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds"),
        "traceback": redact_text(traceback) or None,
        "hangs": list(hangs),
        "root_finding": root.to_json() if root else None,
        "last_findings": [finding.to_json() for finding in findings[-LAST_FINDINGS:]],
        **about_checkpoints(found, go_on, command, exit_reason, what),
        "final_metrics": final_metrics(records),
        "records": [record.to_json() for record in records[-RECORDS:]],
    }


def about_checkpoints(
    found: list["Checkpoint"], go_on: "Checkpoint | None", command: str, exit_reason: str, what: str
) -> dict[str, Any]:
    """
    The part of a postmortem that is about checkpoints; arguments as for [`postmortem`]. A run that is at its end or still
    going on is not to be resumed, and one that was refused is refused again.
    """
    if exit_reason in ("completed", "unfinished") or REFUSED in what:
        go_on = None
    found = [checkpoint for checkpoint in found if not checkpoint.foreign]
    finite = [checkpoint for checkpoint in found if checkpoint.finite]
    probed = [checkpoint for checkpoint in found if checkpoint.probed and checkpoint.finite is not False]
    return {
        "last_checkpoint": str(found[-1].path) if found else None,
        "last_verified_finite_checkpoint": str(finite[-1].path) if finite else None,
        "last_checkpoint_finite_by_probe": str(probed[-1].path) if probed else None,
        "checkpoint_note": found[-1].note if found else "",
        "resume_command": resume_command(command, go_on.path) if go_on else None,
    }


def in_words(written: dict[str, Any]) -> str:
    """What a postmortem says, in a line for the console."""
    root, command = written["root_finding"], written["resume_command"]
    after = f" after {root['rule']}, found at step {root['step']}" if root else ""
    go_on = f" To go on: {command}" if command else ""
    return f"TRL diagnostics: training ended ({written['exit_reason']}) at step {written['last_step']}{after}.{go_on}"


def command_line(metadata: dict[str, Any]) -> str:
    """
    What started a run, as far as its metadata tell.

    Args:
        metadata (`dict[str, Any]`):
            Content of `run_metadata_start.json`.

    Returns:
        `str`: a line for the shell, with the launcher where there were several processes, and as a comment what else it
        needs; `""` where there is none.
    """
    argv, processes = section(metadata, "command").get("argv"), metadata.get("world_size") or 1
    if not isinstance(argv, list) or not argv:
        return ""
    argv = [str(word) for word in argv]
    return shlex.join(argv) if processes == 1 else _launched(argv, processes, metadata)


def _launched(argv: list[str], processes: int, metadata: dict[str, Any]) -> str:
    """What starts all processes; the command line of one of them is known."""
    launcher, environment = metadata.get("launcher"), section(metadata, "environment")
    script = [word for word in argv[2 if argv[1:2] == ["-u"] else 1 :] if not word.startswith("--local_rank=")]
    here = int(environment.get("LOCAL_WORLD_SIZE", processes))
    nodes, note = processes // here, ""
    if launcher == "accelerate":
        words = [
            "accelerate",
            "launch",
            "--num_processes",
            processes,
            *(["--num_machines", nodes] if nodes > 1 else []),
        ]
        note = "with the --config_file it had"
    elif launcher == "torchrun":
        words = ["torchrun", "--nproc_per_node", here, *(["--nnodes", nodes] if nodes > 1 else [])]
    elif launcher == "deepspeed":
        words = ["deepspeed", "--num_gpus", here, *(["--num_nodes", nodes] if nodes > 1 else [])]
    elif launcher in ("mpi", "slurm"):
        words = ["mpirun", "-n", processes] if launcher == "mpi" else ["srun", "--ntasks", processes]
        script = argv
    else:
        words, script, note = [], argv, f"in each of {processes} processes"
    note = f"{note}, on each of {nodes} machines" if nodes > 1 else note
    return shlex.join(map(str, [*words, *script])) + (f"  # {note.removeprefix(', ')}" if note else "")


def resume_command(command: str, checkpoint: Path) -> str:
    """
    How to go on.

    Args:
        command (`str`):
            Command line that started the run, or `""`.
        checkpoint (`Path`):
            Folder to go on from.

    Returns:
        `str`: a line for the shell, the command with `--resume_from_checkpoint`, for TRL's own scripts and for others that
        were started with it; for the rest, in words, what to put into them and how to start them. As it is, such a
        command would begin at step 0 in the same folder.
    """
    argv, folder = shlex.split(command, comments=True), str(checkpoint)
    note = command.removeprefix(shlex.join(argv)).removeprefix("  # ")
    names = [word.partition("=")[0].replace("-", "_") for word in argv]
    values = {i + 1 for i, name in enumerate(names) if name == RESUME and "=" not in argv[i]}
    kept = [word for i, word in enumerate(argv) if names[i] != RESUME and i not in values]
    is_trl = argv[:1] == ["trl"] or any(word.endswith("/bin/trl") or "trl/scripts/" in word for word in argv)
    if is_trl or kept != argv:
        resumed = shlex.join([*kept, "--resume_from_checkpoint", folder])
        return f"{resumed}  # {note}" if note else resumed
    script = next((word for word in argv if word.endswith(".py")), "the script")
    start = f": {command}" if command else ""
    return f'set trainer.train(resume_from_checkpoint="{folder}") in {script} and start it as before{start}'


def final_metrics(records: list[Record]) -> dict[str, Any]:
    """The metrics of the last train record and of the last evaluation, under their canonical names."""
    metrics: dict[str, float | None] = {}
    for phase in ("train", "eval"):
        last = [record.metrics for record in records if record.phase == phase][-1:]
        metrics |= {name: value for found in last for name, value in found.items()}
    return json_numbers(metrics)
