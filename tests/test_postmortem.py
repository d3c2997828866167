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

"""How a run ended, from what it wrote and from what it could no longer write."""

import json
import math
import os
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from trl_diagnostics import DiagnosticsError, Finding, Record, ending
from trl_diagnostics.cli import main
from trl_diagnostics.diagnosis import diagnose
from trl_diagnostics.ending import UNREADABLE, VANISHED, how_it_ended, read_postmortem
from trl_diagnostics.sinks.postmortem import about_checkpoints, command_line, final_metrics, postmortem, resume_command
from trl_diagnostics.sinks.run_dir import write_json
from trl_diagnostics.sinks.watchdog import boot_id, identity
from trl_diagnostics.sources.advice import advise, judge_checkpoints
from trl_diagnostics.sources.checkpoints import Checkpoint, checkpoints
from trl_diagnostics.sources.logs import open_run


GIB = 2**30
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz0123456789"


def record(step, phase="train", **metrics):
    return Record(step, 1000.0 + step, phase, metrics or {"loss": 1.0 / step})


def finding(rule="r", severity="high", step=5, state="started", first_step=None, cascade_of=None):
    first = step if first_step is None else first_step
    return Finding(rule, severity, state, step, first, "loss", math.nan, "said", fix="do", cascade_of=cascade_of)


def checkpoint(step, finite=True, missing=()):
    note = {True: "", False: "layer.weight is NaN", None: "not looked at"}[finite]
    return Checkpoint(step, Path(f"/out/checkpoint-{step}"), finite, note, (), missing)


def content(**changes):
    whole = {"last_step": 9, "at": 0.0, "records": [record(9)], "findings": [], "found": []} | changes
    go_on = advise(judge_checkpoints(whole["found"], (), whole["findings"])).go_on
    return postmortem("exception", "ValueError: no", go_on=go_on, **whole)


@pytest.fixture
def gone():
    """Heartbeat of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    who = identity(psutil.Process(process.pid))
    process.communicate(b"\n")
    return who


def run(folder, who, records=(), findings=(), **beat):
    """What a run leaves that could not say how it ended."""
    folder.mkdir(exist_ok=True)
    beat = {"time": time.time() - 3, "step": 7, "doing": "step", "left": False, "hangs": []} | beat
    sizes = {"rss_bytes": GIB, "available_bytes": 8 * GIB, "total_bytes": 16 * GIB}
    write_json(folder / "heartbeat.json", {"schema_version": 1, **who, **sizes, **beat})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in records))
    (folder / "findings.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in findings))
    return folder


# What is written


def test_a_postmortem_is_strict_json_with_everything_in_its_place():
    records = [record(8, eval_loss=2.0, phase="eval"), record(9, loss=math.nan, kl=math.inf)]
    found = [checkpoint(4), checkpoint(8, False)]
    said = content(records=records, findings=[finding()], found=found, command="python t.py", traceback="trace")
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert list(said) == [
        *("schema_version", "exit_reason", "what", "last_step", "timestamp", "traceback", "hangs", "root_finding"),
        *("last_findings", "last_checkpoint", "last_verified_finite_checkpoint", "last_checkpoint_finite_by_probe"),
        *("checkpoint_note", "resume_command", "final_metrics", "records"),
    ]
    assert (said["exit_reason"], said["what"], said["last_step"]) == ("exception", "ValueError: no", 9)
    assert said["timestamp"] == "1970-01-01T00:00:00+00:00"
    assert said["final_metrics"] == {"loss": "NaN", "kl": "Infinity", "eval_loss": 2.0}
    assert said["root_finding"]["rule"] == "r" and said["root_finding"]["fix"] == "do"
    assert (said["last_checkpoint"], said["checkpoint_note"]) == ("/out/checkpoint-8", "layer.weight is NaN")
    assert said["last_verified_finite_checkpoint"] == "/out/checkpoint-4"
    how = 'set trainer.train(resume_from_checkpoint="/out/checkpoint-4") in t.py and start it as before: python t.py'
    assert said["resume_command"] == how
    assert [Record.from_json(line).step for line in said["records"]] == [8, 9]


def test_without_anything():
    said = content(records=[])
    assert said["final_metrics"] == {} and said["records"] == [] and said["traceback"] is None
    assert said["root_finding"] is said["last_checkpoint"] is said["resume_command"] is None


def test_secrets_are_hidden():
    said = json.dumps(
        postmortem("x", f"no {TOKEN}", last_step=1, at=0.0, records=[], findings=[], found=[], traceback=TOKEN)
    )
    assert TOKEN not in said and said.count("<redacted>") == 2


def test_the_last_fifty_records_and_ten_findings_are_kept():
    said = content(
        records=[record(i) for i in range(1, 80)], findings=[finding(f"r{i}", step=i) for i in range(1, 20)]
    )
    assert [line["step"] for line in said["records"]] == list(range(30, 80))
    assert [line["rule"] for line in said["last_findings"]] == [f"r{i}" for i in range(10, 20)]


def test_the_root_is_the_first_cause_and_no_remark():
    findings = [
        finding("normal", "info", 1),
        finding("first", "critical", 3),
        finding("loud", step=2, cascade_of="first"),
    ]
    assert content(findings=findings)["root_finding"]["rule"] == "first"


@pytest.mark.parametrize(
    ("found", "findings", "step"),
    [
        ([checkpoint(4), checkpoint(8)], [], 8),
        ([checkpoint(4), checkpoint(8, False)], [], 4),
        ([checkpoint(4), checkpoint(8, None)], [], 8),
        ([checkpoint(4), checkpoint(8, True, ("optimizer",))], [], 4),
        ([checkpoint(4, None), checkpoint(8, None)], [], 8),
        ([checkpoint(4, None), checkpoint(8, False)], [], 4),
        ([checkpoint(4, False)], [], None),
        ([checkpoint(4, None, ("weights",))], [], None),
        ([checkpoint(4), checkpoint(8)], [finding("r", "critical", 6)], 4),
        ([checkpoint(4), checkpoint(8)], [finding("r", "high", 6)], 4),
        ([checkpoint(4), checkpoint(8)], [finding("r", "medium", 6)], 8),
        ([checkpoint(8)], [finding("r", "critical", 6)], None),
        ([], [], None),
    ],
)
def test_where_to_go_on_from(found, findings, step):
    said = content(found=found, findings=findings)["resume_command"]
    how = 'set trainer.train(resume_from_checkpoint="/out/checkpoint-{}") in the script and start it as before'
    assert said == (None if step is None else how.format(step))


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("trl sft --config a.yaml", "trl sft --config a.yaml --resume_from_checkpoint '/c 1'"),
        ("/v/bin/python /v/bin/trl dpo", "/v/bin/python /v/bin/trl dpo --resume_from_checkpoint '/c 1'"),
        ("python trl/scripts/sft.py", "python trl/scripts/sft.py --resume_from_checkpoint '/c 1'"),
        ("python my.py --resume_from_checkpoint old --lr 1", "python my.py --lr 1 --resume_from_checkpoint '/c 1'"),
        ("python my.py --resume-from-checkpoint=old '# 1'", "python my.py '# 1' --resume_from_checkpoint '/c 1'"),
        ("srun x/bin/trl sft  # a note", "srun x/bin/trl sft --resume_from_checkpoint '/c 1'  # a note"),
        (
            "python my.py  # a note",
            'set trainer.train(resume_from_checkpoint="/c 1") in my.py and start it as before: python my.py  # a note',
        ),
        ("", 'set trainer.train(resume_from_checkpoint="/c 1") in the script and start it as before'),
    ],
)
def test_the_command_to_go_on_with(command, line):
    assert resume_command(command, Path("/c 1")) == line


PYTHON = ["/v/bin/python", "-u", "my.py", "--local_rank=0", "--lr", "1"]


@pytest.mark.parametrize(
    ("metadata", "line"),
    [
        ({}, ""),
        ({"command": {"error": "OSError"}}, ""),
        ({"command": None, "world_size": 2}, ""),
        ({"launcher": "accelerate", "world_size": 1}, "/v/bin/python -u my.py --local_rank=0 --lr 1"),
        (
            {"launcher": "accelerate", "world_size": 2},
            "accelerate launch --num_processes 2 my.py --lr 1  # with the --config_file it had",
        ),
        ({"launcher": "torchrun", "world_size": 2}, "torchrun --nproc_per_node 2 my.py --lr 1"),
        (
            {"launcher": "torchrun", "world_size": 16, "environment": {"LOCAL_WORLD_SIZE": "8"}},
            "torchrun --nproc_per_node 8 --nnodes 2 my.py --lr 1  # on each of 2 machines",
        ),
        ({"launcher": "deepspeed", "world_size": 4}, "deepspeed --num_gpus 4 my.py --lr 1"),
        ({"launcher": "slurm", "world_size": 4}, "srun --ntasks 4 /v/bin/python -u my.py --local_rank=0 --lr 1"),
        ({"launcher": "mpi", "world_size": 4}, "mpirun -n 4 /v/bin/python -u my.py --local_rank=0 --lr 1"),
        (
            {"launcher": "python", "world_size": 2},
            "/v/bin/python -u my.py --local_rank=0 --lr 1  # in each of 2 processes",
        ),
    ],
)
def test_what_started_the_run(metadata, line):
    assert command_line({"command": {"argv": PYTHON}} | metadata if metadata else {}) == line


def test_final_metrics_are_the_last_of_each_phase():
    records = [
        record(1, loss=3.0, lost=1.0),
        record(2, "eval", eval_loss=4.0),
        record(3, loss=2.0),
        record(3, "summary", train_loss=9.0),
    ]
    assert final_metrics(records) == {"loss": 2.0, "eval_loss": 4.0}
    assert final_metrics([]) == {}


# What is inferred


def test_what_was_written_counts(tmp_path, gone):
    run(tmp_path, gone)
    said = content()
    write_json(tmp_path / "postmortem.json", said)
    assert read_postmortem(tmp_path) == said


def test_a_process_that_vanished_was_killed(tmp_path, gone):
    run(tmp_path, gone, [record(1), record(6)], [finding()])
    said = read_postmortem(tmp_path)
    assert (said["exit_reason"], said["what"], said["last_step"]) == ("killed", VANISHED, 7)
    assert said["root_finding"]["rule"] == "r" and said["final_metrics"] == {"loss": 1 / 6}


def test_nearly_full_memory_speaks_for_the_oom_killer(tmp_path, gone):
    run(tmp_path, gone, available_bytes=GIB // 2, rss_bytes=14 * GIB)
    assert read_postmortem(tmp_path)["what"] == (
        f"{VANISHED} Memory was nearly full at the last sign of life (0.5 GiB of 16.0 GiB left, the training process "
        "held 14.0 GiB), so most likely the system killed it for lack of memory (OOM killer)."
    )


def test_a_zombie_is_gone(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    run(tmp_path, identity(psutil.Process(process.pid)))
    process.stdin.close()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert read_postmortem(tmp_path)["exit_reason"] == "killed"
    process.wait()


def test_another_process_with_its_number_is_not_the_run(tmp_path):
    who = identity(psutil.Process())
    run(tmp_path, who | {"process_started": who["process_started"] - 60})
    assert read_postmortem(tmp_path)["exit_reason"] == "killed"


@pytest.mark.skipif(boot_id() is None, reason="this system does not tell its starts apart")
def test_after_a_restart_of_the_machine_nothing_of_it_runs(tmp_path):
    run(tmp_path, identity(psutil.Process()) | {"boot_id": "another"})
    said = read_postmortem(tmp_path)
    assert said["exit_reason"] == "killed"
    assert said["what"] == "The machine was restarted while the run was going on: power loss or a reboot."


def test_a_run_that_goes_on_is_unfinished(tmp_path):
    run(tmp_path, identity(psutil.Process()))
    said = read_postmortem(tmp_path)
    assert said["exit_reason"] == "unfinished"
    assert said["what"] == f"The run goes on: process {os.getpid()} is still there (in a training step, last step 7)."


def test_a_record_may_be_later_than_the_heartbeat(tmp_path):
    run(tmp_path, identity(psutil.Process()) | {"doing": "begin"}, [record(9)])
    said = read_postmortem(tmp_path)
    assert said["what"] == f"The run goes on: process {os.getpid()} is still there (in a training step, last step 9)."


def test_a_run_without_heartbeats_is_held_by_something(tmp_path):
    run(tmp_path, identity(psutil.Process()), time=time.time() - 600)
    said = read_postmortem(tmp_path)
    assert said["exit_reason"] == "unfinished"
    assert said["what"] == (
        f"Process {os.getpid()} is still there (in a training step, last step 7), but the last heartbeat was 10 min "
        "ago: it was stopped, or something holds Python's interpreter lock. "
        f"See `py-spy dump --pid {os.getpid()}`."
    )


OTHERS = [
    ({"host": "node-7"}, "node-7"),
    ({"pid_namespace": "pid:[1]"}, f"{socket.gethostname()} in another container"),
]


@pytest.mark.parametrize(("other", "where"), OTHERS, ids=["host", "container"])
def test_another_machine_cannot_be_asked(other, where, tmp_path, gone):
    run(tmp_path, gone | other, time=time.time() - 540)
    assert how_it_ended(tmp_path) == (
        "unfinished",
        f"The run is or was on {where}, which cannot be asked from here; the last heartbeat was 9 min ago.",
    )
    run(tmp_path, gone | other, time=time.time() - 3 * 86400)
    assert how_it_ended(tmp_path) == (
        "killed",
        f"The run was on {where}, which cannot be asked from here. That it ended is told from its silence: the last "
        "heartbeat was 3 days ago.",
    )


def test_a_heartbeat_of_an_earlier_release_has_no_container(tmp_path, gone):
    del gone["pid_namespace"]
    run(tmp_path, gone)
    assert how_it_ended(tmp_path) == ("killed", VANISHED)


def test_a_crash_that_only_the_faulthandler_of_the_user_saw(tmp_path, gone):
    run(tmp_path, gone, faulthandler_taken=True)
    assert how_it_ended(tmp_path) == (
        "killed",
        f"{VANISHED} It may have crashed in native code, too: the program used Python's faulthandler itself, so the stack "
        "of a crash is in its own output (stderr) and not here.",
    )


def test_a_crash_in_native_code(tmp_path, gone):
    run(tmp_path, gone)
    stack = "Fatal Python error: Segmentation fault\n\nCurrent thread ...\n"
    (tmp_path / "crash.log").write_text(
        f"{stack}\nExtension modules: numpy.linalg._umath_linalg, torch._C (total: 2)\n"
    )
    said = read_postmortem(tmp_path)
    assert said["exit_reason"] == "segfault"
    assert said["what"] == "Crashed in native code: Fatal Python error: Segmentation fault"
    assert said["traceback"] == stack
    assert said["traceback"].endswith("Current thread ...\n")


def test_an_empty_crash_log_is_no_crash(tmp_path, gone):
    run(tmp_path, gone)
    (tmp_path / "crash.log").touch()
    assert read_postmortem(tmp_path)["exit_reason"] == "killed"


def test_a_hang_from_which_the_process_vanished_stays_a_hang(tmp_path, gone):
    hang = content() | {"exit_reason": "hang", "what": "No sign of life for 400 s."}
    write_json(tmp_path / "postmortem.json", hang)
    run(tmp_path, gone)
    assert read_postmortem(tmp_path) == hang | {"what": f"No sign of life for 400 s. {VANISHED}"}
    run(tmp_path, identity(psutil.Process()))
    assert read_postmortem(tmp_path) == hang


def save(folder, weight=1.0):
    """A checkpoint that is complete."""
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": int(folder.name.split("-")[1])}))
    save_file({"w": np.full(3, weight, np.float32)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        zipfile.ZipFile(folder / name, "w").close()


@pytest.mark.parametrize("reason", ["hang", "sigterm"])
def test_checkpoints_that_there_was_no_time_for_are_looked_into_later(tmp_path, reason):
    output, run_dir = tmp_path / "out", tmp_path / "out" / "diagnostics"
    run_dir.mkdir(parents=True)
    for step, weight in ((4, 1.0), (8, math.nan)):
        save(output / f"checkpoint-{step}", weight)
    hurried = content(found=checkpoints(output, 0.0)) | {"exit_reason": reason}
    assert hurried["last_checkpoint"] == str(output / "checkpoint-8")
    assert hurried["last_verified_finite_checkpoint"] is None
    write_json(run_dir / "postmortem.json", hurried)
    later = read_postmortem(run_dir)
    assert later["last_verified_finite_checkpoint"] == str(output / "checkpoint-4")
    assert "checkpoint-4" in later["resume_command"]
    (output / "checkpoint-4").rename(tmp_path / "elsewhere-4")
    (output / "checkpoint-8").rename(tmp_path / "elsewhere-8")
    assert read_postmortem(run_dir) == hurried  # what is gone now was there then


@pytest.mark.parametrize(
    "change",
    [{"last_step": ...}, {"timestamp": "now"}, {"root_finding": {"rule": "r"}}, {"root_finding": "r"}],
    ids=["a key less", "timestamp", "finding", "text"],
)
def test_a_postmortem_that_cannot_be_understood_is_replaced_by_what_the_other_files_tell(change, tmp_path, gone):
    whole = content(findings=[finding()]) | change
    write_json(tmp_path / "postmortem.json", {key: value for key, value in whole.items() if value is not ...})
    run(tmp_path, gone)
    said = read_postmortem(tmp_path)
    assert (said["exit_reason"], said["what"], said["last_step"]) == ("killed", f"{UNREADABLE} {VANISHED}", 7)


def test_a_reason_that_this_release_does_not_know_is_kept(tmp_path, gone):
    run(tmp_path, gone)
    write_json(tmp_path / "postmortem.json", content() | {"exit_reason": "evicted", "schema_version": 2})
    assert how_it_ended(tmp_path) == ("evicted", "ValueError: no")


@pytest.mark.parametrize("change", [{"left": ...}, {"doing": "dreaming"}])
def test_a_heartbeat_of_another_release(change, tmp_path, gone):
    run(tmp_path, identity(psutil.Process()), [record(3)])
    beat = json.loads((tmp_path / "heartbeat.json").read_text()) | change
    write_json(tmp_path / "heartbeat.json", {key: value for key, value in beat.items() if value is not ...})
    assert how_it_ended(tmp_path)[0] == "unfinished"


def test_metadata_of_another_release_costs_only_the_command(tmp_path, gone):
    save(tmp_path / "checkpoint-4")
    run(tmp_path / "diagnostics", gone, findings=[finding()])
    write_json(
        tmp_path / "diagnostics" / "run_metadata_start.json", {"command": "x", "arguments": [], "diagnostics": 1}
    )
    said = read_postmortem(tmp_path / "diagnostics")["resume_command"]
    where = f'trainer.train(resume_from_checkpoint="{tmp_path}/checkpoint-4")'
    assert said == f"set {where} in the script and start it as before"


def test_how_a_run_ended_is_told_without_a_look_into_checkpoints(tmp_path, gone, monkeypatch):
    monkeypatch.setattr("trl_diagnostics.ending.checkpoints", None)
    save(tmp_path / "checkpoint-4")
    run(tmp_path / "diagnostics", gone)
    assert how_it_ended(tmp_path / "diagnostics") == ("killed", VANISHED)


@pytest.mark.parametrize(
    ("reason", "what", "resumed"),
    [
        ("exception", "ValueError: no", True),
        ("stopped_by_rule", "no", True),
        ("completed", "Training reached its end, step 9.", False),
        ("unfinished", "The run goes on.", False),
        ("exception", "DiagnosticsError: fail_on_resume_mismatch: this is not the run that was recorded in x:", False),
    ],
)
def test_how_to_resume_is_said_where_it_makes_sense(reason, what, resumed):
    found = [Checkpoint(4, Path("checkpoint-4"), True, "", (), ())]
    said = about_checkpoints(found, found[0], "python my.py", reason, what)
    assert bool(said["resume_command"]) == resumed and said["last_checkpoint"] == "checkpoint-4"


def test_a_run_that_hangs_has_to_be_ended_first(tmp_path, gone, capsys):
    run_dir = run(tmp_path / "diagnostics", identity(psutil.Process()))
    write_json(run_dir / "postmortem.json", content() | {"exit_reason": "hang", "resume_command": "trl sft --x"})
    for who, said in (({}, f"end process {os.getpid()} first, then trl sft --x"), (gone, "trl sft --x")):
        run(run_dir, identity(psutil.Process()) | who)
        with pytest.raises(SystemExit):
            main(["postmortem", str(run_dir)])
        assert f"\nTo go on    {said}\n" in capsys.readouterr().out


def test_what_the_report_decides_by_all_records_is_in_the_postmortem(tmp_path, gone):
    for step in (4, 8):
        save(tmp_path / f"checkpoint-{step}")
    run_dir = run(tmp_path / "diagnostics", gone, [record(i) for i in range(1, 10)], [finding("r", "high", 7)])
    diagnosis = diagnose(open_run(run_dir), [])
    assert diagnosis.advice.go_on.step == 8 and "checkpoint-8" in diagnosis.postmortem["resume_command"]
    assert "checkpoint-4" in read_postmortem(run_dir)["resume_command"]  # by the findings of the run


def test_hangs_that_were_over_are_told(tmp_path, gone):
    hang = {"time": 0.0, "step": 3, "doing": "data", "seconds": 400.0, "limit": 300.0}
    run(tmp_path, gone, hangs=[hang])
    assert read_postmortem(tmp_path)["hangs"] == [hang]


@pytest.mark.parametrize("beat", ["", "{", "[]", "\x00" * 300], ids=["empty", "torn", "list", "zeros"])
def test_a_heartbeat_that_cannot_be_read_is_none(beat, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record(3).to_json()) + "\n")
    (tmp_path / "heartbeat.json").write_text(beat)
    said = read_postmortem(tmp_path)
    assert (said["exit_reason"], said["last_step"]) == ("unfinished", 3)
    assert said["what"] == "There is no heartbeat, so whether the run goes on or how it ended is not known."


def test_the_summary_of_the_trainer_is_an_end(tmp_path):
    lines = [record(3), record(3, "summary", train_loss=1.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one.to_json()) + "\n" for one in lines))
    assert read_postmortem(tmp_path)["exit_reason"] == "completed"


@pytest.mark.parametrize("torn", ['{"step": 8, "ti', '{"step": 8}', "5", "[" * 90_000, "\xff", ""])
def test_a_torn_line_costs_only_itself(torn, tmp_path, gone):
    run(tmp_path, gone, [record(6)], [finding()], step=0)
    for name in ("metrics.jsonl", "findings.jsonl"):
        with (tmp_path / name).open("a", encoding="latin-1") as file:
            file.write(torn)
    said = read_postmortem(tmp_path)
    assert [line["step"] for line in said["records"]] == [6] and said["last_step"] == 6
    assert len(said["last_findings"]) == 1


def test_only_the_end_of_a_long_file_is_read(tmp_path, gone):
    run(tmp_path, gone)
    line = json.dumps(record(1, note=0.5).to_json())
    with (tmp_path / "metrics.jsonl").open("w") as file:
        file.writelines(line.replace('"step": 1', f'"step": {i}') + "\n" for i in range(1, 40_001))
    begin = time.perf_counter()
    said = read_postmortem(tmp_path)
    assert time.perf_counter() - begin < 5
    assert [one["step"] for one in said["records"]] == list(range(39_951, 40_001))


def test_the_checkpoints_and_the_command_are_those_of_the_run(tmp_path, gone):
    save(tmp_path / "out" / "checkpoint-4")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    run(folder, gone)
    start = {
        "schema_version": 1,
        "command": {"argv": ["trl", "sft", "--seed", "a b"]},
        "arguments": {"output_dir": str(tmp_path / "out")},
    }
    write_json(folder / "run_metadata_start.json", start)
    said = read_postmortem(folder)
    checkpoint = str(tmp_path / "out" / "checkpoint-4")
    assert said["last_checkpoint"] == said["last_verified_finite_checkpoint"] == checkpoint
    assert said["resume_command"] == f"trl sft --seed 'a b' --resume_from_checkpoint {checkpoint}"


@pytest.mark.parametrize("make", [False, True], ids=["missing", "empty"])
def test_a_folder_without_a_run_is_an_error(make, tmp_path):
    folder = tmp_path / "nothing"
    if make:
        folder.mkdir()
    with pytest.raises(DiagnosticsError) as error:
        read_postmortem(folder)
    assert str(error.value) == f"{folder}: no run directory; expected a folder with metrics.jsonl or heartbeat.json"


def test_each_file_is_read_once_for_an_answer(tmp_path, gone, monkeypatch):
    """Those of a run that goes on change, and one answer must not be of two moments."""
    run(tmp_path, gone, [record(9)])
    seen = []
    for name in ("read_heartbeat", "read_json", "tail"):
        real = getattr(ending, name)
        monkeypatch.setattr(ending, name, lambda path, real=real: seen.append(path) or real(path))
    assert read_postmortem(tmp_path)["last_step"] == 9
    assert sorted(seen) == [tmp_path, tmp_path / "metrics.jsonl", tmp_path / "postmortem.json"]
