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

"""The files a run leaves: strict JSON lines, one story per file, nothing thrown away."""

import errno
import fcntl
import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest

from trl_diagnostics import DiagnosticsError, Finding, Record
from trl_diagnostics.sinks import run_dir
from trl_diagnostics.sinks.run_dir import RunDir, check_is_run_dir, last_metadata, read_json, take_unused, write_json


def record(step, phase="train", **metrics):
    return Record(step, 1.5, phase, metrics)


def finding(step):
    return Finding("rule", "high", "started", step, step, "loss", math.nan, "m", evidence={"loss": -math.inf})


def steps(file):
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def write(folder, *wanted, start=0):
    files = RunDir(folder)
    files.begin(start)
    for step in wanted:
        files.write_record(record(step, loss=1.0))
    return files


def test_no_file_is_created_before_its_first_line(tmp_path):
    files = RunDir(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    files.begin()
    assert list((tmp_path / "a" / "b").iterdir()) == []
    files.write_finding(finding(1))
    assert [file.name for file in (tmp_path / "a" / "b").iterdir()] == ["findings.jsonl"]


def test_lines_are_strict_json_and_there_at_once(tmp_path):
    files = RunDir(tmp_path)
    files.write_record(record(1, loss=math.nan, kl=math.inf, low=-math.inf, none=None, x=0.1))
    files.write_finding(finding(1))
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"step": 1, "time": 1.5, "phase": "train", "metrics": '
        '{"loss": "NaN", "kl": "Infinity", "low": "-Infinity", "none": null, "x": 0.1}}\n'
    )
    line = json.loads((tmp_path / "findings.jsonl").read_text(), parse_constant=pytest.fail)
    assert (line["value"], line["evidence"]) == ("NaN", {"loss": "-Infinity"})
    assert Finding.from_json(line).to_json() == line


def test_a_line_after_close_opens_the_file_again(tmp_path):
    files = write(tmp_path, 1)
    files.close()
    files.write_record(record(2))
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


@contextmanager
def full_disk():
    """No file of this process gets longer than 100 bytes, as if there were no space for more; nor does pytest's own."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_did_not_fit_costs_only_itself(tmp_path):
    files = write(tmp_path, 1)
    for step in (2, 3):
        with pytest.raises(OSError, match="File too large"), full_disk():
            files.write_record(record(step, loss=1.0))
    files.write_record(record(4, loss=1.0))
    assert steps(tmp_path / "metrics.jsonl") == [1, 4]
    assert files.lines == {"metrics.jsonl": 2}


def test_a_file_that_did_not_fit_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="File too large"), full_disk():
        write_json(tmp_path / "postmortem.json", {"long": "x" * 200})
    assert list(tmp_path.iterdir()) == []


def test_a_new_run_moves_the_files_of_the_old_one_aside(tmp_path):
    for i in (1, 2, 3):
        write(tmp_path, i).write_finding(finding(i))
    write(tmp_path, 4)
    assert steps(tmp_path / "metrics.jsonl") == [4]
    assert not (tmp_path / "findings.jsonl").exists()
    for i in (1, 2, 3):
        for name in ("metrics.jsonl", "findings.jsonl"):
            assert steps(tmp_path / "attempts" / str(i) / name) == [i]


def test_attempts_of_the_user_are_left_alone(tmp_path):
    (tmp_path / "attempts" / "mine").mkdir(parents=True)
    (tmp_path / "attempts" / "7").mkdir()
    write(tmp_path, 1)
    write(tmp_path, 2)
    assert steps(tmp_path / "attempts" / "8" / "metrics.jsonl") == [1]


def test_a_resumed_run_goes_on_behind_its_checkpoint(tmp_path):
    first = write(tmp_path, 1, 2, 3, 4)
    first.write_finding(finding(2))
    first.write_finding(finding(4))
    write(tmp_path, 3, 4, 5, start=2).write_finding(finding(4))
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3, 4, 5]
    assert steps(tmp_path / "findings.jsonl") == [2, 4]
    assert steps(tmp_path / "attempts" / "1" / "metrics.jsonl") == [3, 4]
    assert steps(tmp_path / "attempts" / "1" / "findings.jsonl") == [4]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["attempts", "findings.jsonl", "metrics.jsonl"]


def test_resuming_at_the_last_line_moves_nothing(tmp_path):
    write(tmp_path, 1, 2)
    write(tmp_path, 3, start=2)
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_resuming_without_files(tmp_path):
    write(tmp_path, 3, start=2)
    assert steps(tmp_path / "metrics.jsonl") == [3]


def test_the_summary_of_the_run_before_is_no_part_of_the_longer_run(tmp_path):
    write(tmp_path, 1, 2).write_record(record(2, "summary", train_loss=1.0))
    write(tmp_path, 3, start=2)
    assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
    assert json.loads((tmp_path / "attempts" / "1" / "metrics.jsonl").read_text())["phase"] == "summary"


@pytest.mark.parametrize("torn", ['{"step": 2, "time": 1.5, "ph', json.dumps({"step": 2, "phase": "train"})])
def test_a_torn_last_line_does_not_spoil_the_next_one(torn, tmp_path):
    write(tmp_path, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, 3, start=2)
    assert steps(tmp_path / "metrics.jsonl") == [1, 3]
    assert (tmp_path / "attempts" / "1" / "metrics.jsonl").read_text() == torn


@pytest.mark.parametrize(
    "line",
    [b"5", b"{}", b'{"step": "7"}', b'{"step": null}', b"\xc3(", b"[" * 100_000, b"9" * 5_000, b"", b"[]", b'"x"'],
    ids=["number", "empty", "step as text", "no step", "no text", "deep", "long", "blank", "list", "text"],
)
def test_a_line_that_is_no_record_moves_away_on_resume(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "time": 0.0, "phase": "train", "metrics": {}}\n'
    file.write_bytes(good + line + b"\n" + good)
    RunDir(tmp_path).begin(1)
    assert file.read_bytes() == good + good
    assert (tmp_path / "attempts" / "1" / "metrics.jsonl").read_bytes() == line + b"\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["attempts", "metrics.jsonl"]


def test_the_number_of_lines_decides_where_it_is_known(tmp_path):
    """An evaluation after the last checkpoint has the checkpoint's own step."""
    run = RunDir(tmp_path)
    for i in range(3):
        run.write_record(Record(20, float(i), "eval", {}))
    run.close()
    again = RunDir(tmp_path)
    again.begin(20, {"metrics.jsonl": 2})
    assert again.lines == {"metrics.jsonl": 2}
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_coverage_is_one_object_by_rule(tmp_path):
    files = RunDir(tmp_path / "diagnostics")
    files.write_coverage({"a": "active", "b": "blind"})
    files.write_coverage({"a": "active", "b": "active"})
    assert json.loads((tmp_path / "diagnostics" / "coverage.json").read_text()) == {"a": "active", "b": "active"}
    assert [path.name for path in (tmp_path / "diagnostics").iterdir()] == ["coverage.json"]


def test_coverage_of_an_earlier_run_moves_with_its_records(tmp_path):
    files = RunDir(tmp_path)
    files.write_coverage({"a": "blind"})
    RunDir(tmp_path).begin()
    assert not (tmp_path / "coverage.json").exists()
    assert json.loads((tmp_path / "attempts" / "1" / "coverage.json").read_text()) == {"a": "blind"}


# Whole files

ATTEMPT = ["crash.log", "hang.log", "heartbeat.json", "postmortem.json", "reports"]
WHOLE = ["coverage.json", "diffs", "run_metadata_final.json", "run_metadata_start.json", "snapshots", *ATTEMPT]


def everything(folder):
    files = write(folder, 1, 2)
    files.write_finding(finding(1))
    for name in WHOLE:
        if "." in name:
            (folder / name).write_text("{}")
        else:
            (folder / name).mkdir()
            (folder / name / "inside").write_text("x")
    (folder / "mine.txt").write_text("of the user")
    (folder / "checkpoint-2").mkdir()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_an_earlier_run_everything_moves_and_nothing_else(tmp_path):
    everything(tmp_path)
    RunDir(tmp_path).begin()
    assert names(tmp_path) == ["attempts", "checkpoint-2", "mine.txt"]
    assert names(tmp_path / "attempts" / "1") == sorted([*WHOLE, "metrics.jsonl", "findings.jsonl"])
    assert (tmp_path / "attempts" / "1" / "reports" / "inside").read_text() == "x"


def test_on_a_resume_only_the_end_of_the_earlier_attempt_moves(tmp_path):
    everything(tmp_path)
    RunDir(tmp_path).begin(2)
    assert names(tmp_path / "attempts" / "1") == ATTEMPT
    stay = {*WHOLE, "metrics.jsonl", "findings.jsonl", "attempts", "checkpoint-2", "mine.txt"} - set(ATTEMPT)
    assert names(tmp_path) == sorted(stay)


def test_what_a_killed_process_left_half_written_is_thrown_away(tmp_path):
    left = ["postmortem.json.12-34-56.part", "metrics.jsonl.kept", "findings.jsonl.late"]
    for name in [*left, "users.part", "users.json.part"]:
        (tmp_path / name).write_text("{")
    RunDir(tmp_path).begin()
    assert names(tmp_path) == ["users.json.part", "users.part"]


@pytest.mark.parametrize("text", ["", "Fatal Python error"])
def test_of_a_crash_log_only_what_it_says_is_kept(text, tmp_path):
    write(tmp_path, 1)
    (tmp_path / "crash.log").write_text(text)
    RunDir(tmp_path).begin()
    assert names(tmp_path) == ["attempts"]
    assert ("crash.log" in names(tmp_path / "attempts" / "1")) == bool(text)


def test_metadata_of_each_resume_stay(tmp_path):
    ids = []
    for number in range(12):
        files = RunDir(tmp_path)
        files.begin(step=number)
        ids.append(files.start_id)
        assert files.resumes == number
        for name in (run_dir.START, run_dir.FINAL):
            files.write_metadata(name, {"number": number})
            files.write_metadata(name, {"number": "another"})  # never rewritten
    assert len(list(tmp_path.glob("*.json"))) == 24
    final = json.loads((tmp_path / "run_metadata_final_7.json").read_text())
    assert final == {"schema_version": 1, "start_id": ids[7], "number": 7}
    assert last_metadata(tmp_path)["number"] == 11  # and not 9, which is the last name
    assert last_metadata(tmp_path, 3)["number"] == 3 and last_metadata(tmp_path, 0)["number"] == 0
    assert last_metadata(tmp_path, 40) == {}
    (tmp_path / "run_metadata_start_11.json").write_text("{")
    assert last_metadata(tmp_path)["number"] == 10


def test_a_fresh_run_counts_from_the_start(tmp_path):
    for step in (0, 5, 0):
        files = RunDir(tmp_path)
        files.begin(step)
        files.write_metadata(run_dir.START, {})
    assert names(tmp_path) == ["attempts", "run_metadata_start.json"]
    assert names(tmp_path / "attempts" / "1") == ["run_metadata_start.json", "run_metadata_start_1.json"]


def begun(folder, step=0, saved_by=None):
    """A run that says that it starts, and logs the next step."""
    files = RunDir(folder)
    files.begin(step, None, saved_by)
    files.write_metadata(run_dir.START, {"from": step})
    files.write_record(record(step + 1))
    return files


def test_a_resume_finds_its_own_run_behind_another_one(tmp_path):
    first = begun(tmp_path)
    again = begun(tmp_path, 1, first.start_id)
    other = begun(tmp_path)
    for before in (first, again):  # each may have saved the checkpoint
        assert begun(tmp_path, 2, before.start_id).resumes in (2, 3)
        assert steps(tmp_path / "metrics.jsonl") == [1, 2, 3]
        assert last_metadata(tmp_path / "attempts" / "2")["start_id"] == other.start_id
    assert [last_metadata(tmp_path, n)["from"] for n in (0, 1, 2, 3)] == [0, 1, 2, 2]


def test_a_resume_whose_run_is_gone_is_not_mixed_with_another_one(tmp_path):
    other = begun(tmp_path)
    assert begun(tmp_path, 1, "0123").resumes == 0
    assert steps(tmp_path / "metrics.jsonl") == [2]
    assert last_metadata(tmp_path / "attempts" / "1")["start_id"] == other.start_id


def test_a_resume_from_a_checkpoint_that_does_not_say_by_whom_goes_on_with_what_is_there(tmp_path):
    begun(tmp_path)
    assert begun(tmp_path, 1).resumes == 1
    assert steps(tmp_path / "metrics.jsonl") == [1, 2]


def branch(folder, start, end, before=None):
    """A training from one step to another; returns who saved its checkpoints, and the lines that each one knows of."""
    files = RunDir(folder)
    files.begin(start, *before or ())
    kept = {"resumed": {"step": start, **files.kept()}} if start else {}
    files.write_metadata(run_dir.START, {"from": start, **kept})
    saved = {start: (dict(files.lines), files.start_id)}
    for step in range(start + 1, end + 1):
        files.write_record(record(step, branch=start))
        if step % 20 == 1:
            files.write_finding(finding(step))
        saved[step] = dict(files.lines), files.start_id
    files.close()
    return saved


def story(folder, name="metrics.jsonl"):
    """From where to where each branch goes, as (step from which it went on, first step, last step)."""
    data = [json.loads(line) for line in (folder / name).read_text().splitlines()]
    found = {}
    for line in data:
        found.setdefault(line["metrics"]["branch"], []).append(line["step"])
    assert [line["step"] for line in data] == [step for steps in found.values() for step in steps]
    return [(start, steps[0], steps[-1]) for start, steps in found.items()]


def test_a_resume_of_a_branch_that_was_given_up_has_its_own_record(tmp_path):
    first = branch(tmp_path, 0, 60)
    second = branch(tmp_path, 20, 45, first[20])
    third = branch(tmp_path, 60, 70, first[60])
    assert story(tmp_path) == [(0, 1, 60), (60, 61, 70)]
    assert steps(tmp_path / "findings.jsonl") == [1, 21, 41, 61]
    assert [last_metadata(tmp_path, n).get("from") for n in (0, 1, 2)] == [0, 60, None]
    assert story(tmp_path / "attempts" / "2") == [(0, 1, 20), (20, 21, 45)]
    branch(tmp_path, 40, 50, second[40])  # and back again
    assert story(tmp_path) == [(0, 1, 20), (20, 21, 40), (40, 41, 50)]
    branch(tmp_path, 65, 66, third[65])
    assert story(tmp_path) == [(0, 1, 60), (60, 61, 65), (65, 66, 66)]
    assert steps(tmp_path / "findings.jsonl") == [1, 21, 41, 61]


def test_a_branch_comes_back_over_several_resumes(tmp_path):
    first = branch(tmp_path, 0, 60)
    second = branch(tmp_path, 40, 50, first[40])
    branch(tmp_path, 50, 55, second[50])
    branch(tmp_path, 10, 15, first[10])
    branch(tmp_path, 60, 61, first[60])
    assert story(tmp_path) == [(0, 1, 60), (60, 61, 61)]


@pytest.mark.parametrize("also_metadata", [False, True])
def test_a_branch_of_which_a_part_is_gone_is_not_mixed_with_another_one(also_metadata, tmp_path):
    first = branch(tmp_path, 0, 60)
    branch(tmp_path, 20, 40, first[20])
    shutil.rmtree(tmp_path / "attempts" / "1")
    if also_metadata:  # as of an earlier release
        data = read_json(tmp_path / "run_metadata_start_1.json")
        write_json(tmp_path / "run_metadata_start_1.json", data | {"resumed": {"records": 20}})
    branch(tmp_path, 60, 70, first[60])
    assert story(tmp_path) == ([] if also_metadata else [(0, 1, 20)]) + [(60, 61, 70)]


def test_a_branch_without_findings_has_no_file_of_them(tmp_path):
    first = begun(tmp_path)
    first.write_record(record(2))
    other = RunDir(tmp_path)
    other.begin(1, {"metrics.jsonl": 1}, first.start_id)
    other.write_metadata(run_dir.START, {"resumed": other.kept()})
    other.write_finding(finding(2))
    RunDir(tmp_path).begin(2, {"metrics.jsonl": 2}, first.start_id)
    assert steps(tmp_path / "metrics.jsonl") == [1, 2] and not (tmp_path / "findings.jsonl").exists()


def test_without_a_run_there_are_no_metadata(tmp_path):
    assert last_metadata(tmp_path) == last_metadata(tmp_path / "nothing") == {}


def test_a_file_is_replaced_at_once_whoever_writes(tmp_path):
    """As when a signal handler or the watchdog writes the file that is being written."""
    file = tmp_path / "a" / "postmortem.json"
    write_json(file, {"writer": -1})
    done = threading.Event()

    def write_many(writer):
        for _ in range(50):
            write_json(file, {"writer": writer, "long": "x" * 5000}, sync=False)

    def read_many():
        while not done.is_set():
            assert set(json.loads(file.read_text())) <= {"writer", "long"}

    writers = [threading.Thread(target=write_many, args=(i,)) for i in range(4)]
    reader = threading.Thread(target=read_many)
    reader.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert names(file.parent) == ["postmortem.json"]


def test_nan_is_refused_and_the_old_file_stays(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError):
        write_json(file, {"a": math.nan})
    assert read_json(file) == {"a": 1}


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 90_000, "\x00\x00"])
def test_what_is_no_object_is_none(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") is None
    assert read_json(tmp_path / "missing.json") is read_json(tmp_path) is None


def test_a_file_that_is_no_text_is_none(tmp_path):
    (tmp_path / "x.json").write_bytes(os.urandom(64) + b"\xff\xfe")
    assert read_json(tmp_path / "x.json") is None


@pytest.mark.parametrize("name", ["metrics.jsonl", "heartbeat.json", "postmortem.json", "run_metadata_start.json"])
def test_a_run_directory_is_told_by_its_files(name, tmp_path):
    with pytest.raises(DiagnosticsError, match="no run directory"):
        check_is_run_dir(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')  # of another tool
    with pytest.raises(DiagnosticsError, match="no run directory"):
        check_is_run_dir(tmp_path)
    (tmp_path / name).write_text('{"step": 1, "time": 1.0, "phase": "train", "metrics": {}}\n')
    check_is_run_dir(tmp_path)


# Several trainings at once

TAKES = """
import os, sys, time
from pathlib import Path
from trl_diagnostics.sinks.run_dir import take_unused
for line in sys.stdin:
    files = take_unused(Path(line.strip()))
    forked = sys.argv[1:] == ["fork"]
    if forked and os.fork():
        continue
    print(files.path.name, flush=True)
    if forked:
        time.sleep(60)
"""


@contextmanager
def processes(number, *arguments):
    """Each takes the folders of which it is told on its standard input."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    command = [sys.executable, "-c", TAKES, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = [subprocess.Popen(command, env=environment, start_new_session=True, **pipes) for _ in range(number)]
    try:
        yield started
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdin.close()
            process.stdout.close()


def test_of_processes_that_start_at_once_each_has_a_folder_of_its_own(tmp_path):
    with processes(3) as started:
        for i in range(20):
            for process in started:
                process.stdin.write(f"{tmp_path / str(i)}\n")
            taken = [process.stdout.readline().strip() for process in started]
            assert sorted(taken) == [str(i), f"{i}-2", f"{i}-3"]


@pytest.mark.parametrize("arguments", [(), ("fork",)], ids=["alone", "with a forked process that outlives it"])
def test_a_folder_is_free_again_when_its_process_was_killed(arguments, tmp_path):
    with processes(1, *arguments) as (process,):
        process.stdin.write(f"{tmp_path / 'a'}\n")
        assert process.stdout.readline() == "a\n"
        process.send_signal(signal.SIGSTOP)  # it does not have to do anything for it
        assert take_unused(tmp_path / "a").path.name == "a-2"
        process.kill()
        process.wait()
        assert take_unused(tmp_path / "a").path.name == "a"


def test_a_folder_is_taken_until_it_is_released(tmp_path):
    first = take_unused(tmp_path / "a")
    (tmp_path / "a" / "run.lock").read_bytes()  # as an upload to the Hub does
    second = take_unused(tmp_path / "a")
    assert (first.path.name, second.path.name) == ("a", "a-2")
    first.release()
    assert take_unused(tmp_path / "a").path.name == "a"


def test_where_there_are_no_locks_the_folder_is_taken(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    first = take_unused(tmp_path / "a")
    monkeypatch.setattr(run_dir, "fcntl", None)  # Windows
    second = take_unused(tmp_path / "a")
    third = take_unused(tmp_path / "a" / "run.lock" / "not a folder")
    assert first.path == second.path and third.path.name == "not a folder"
