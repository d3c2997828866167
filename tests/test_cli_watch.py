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

"""`watch`: a log that grows is followed to the letter, whatever its format, and Ctrl-C ends the view cleanly."""

import csv
import json
import math
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
from cli_kit import BROKEN, append, jsonl, moved, recorded, run, run_dir, trackio
from hypothesis import given
from hypothesis import strategies as st

from trl_diagnostics.commands import watch
from trl_diagnostics.commands.watch import BLOCKS, sparkline
from trl_diagnostics.diagnosis import Replay, diagnose
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.follower import Follower
from trl_diagnostics.sinks.curves import Curve
from trl_diagnostics.sinks.run_dir import METRICS
from trl_diagnostics.sources.logs import open_run


def said(findings):
    return [finding.to_json() for finding in findings]


def follow(follower, grow, parts):
    """What a follower says while a log grows; it looks after each part."""
    found = []
    for part in parts:
        grow(part)
        found += follower.look()
    return found


def in_parts(records, sizes=(1, 3, 40, 2, 7)):
    start, i = 0, 0
    while start < len(records):
        yield records[start : start + sizes[i % len(sizes)]]
        start, i = start + sizes[i % len(sizes)], i + 1


@pytest.mark.parametrize("name", [BROKEN, "lr_too_high__sft__0", "reward_constant__grpo__0"])
def test_a_run_directory_in_parts_says_what_it_says_at_once(name, tmp_path):
    records = recorded(name)[1]
    folder = run_dir(tmp_path, name, records[:0], ended=None)
    follower = Follower(tmp_path)
    found = follow(follower, lambda part: append(folder, *part), in_parts(records))
    made = diagnose(open_run(tmp_path))
    assert said(found) == said(made.findings) and found
    assert (follower.count, follower.replay.engine.coverage()) == (len(records), made.coverage)


def test_a_torn_last_line_is_read_when_it_is_complete(tmp_path):
    records = recorded(BROKEN)[1]
    folder = run_dir(tmp_path, BROKEN, records[:5], ended=None)
    follower = Follower(tmp_path)
    follower.look()
    line = json.dumps(records[5].to_json()) + "\n"
    for cut in (1, 20, len(line) - 2, len(line) - 1):
        with (folder / METRICS).open("r+") as file:
            lines = file.read().splitlines(keepends=True)[:5]
        (folder / METRICS).write_text("".join(lines) + line[:cut])
        follower.look()
        assert follower.count in (5, 6) and follower.last.step == follower.count
    (folder / METRICS).write_text("".join(lines) + line)
    follower.look()
    assert follower.count == 6 and follower.last.to_json() == records[5].to_json()
    append(folder, *records[6:])
    follower.look()
    assert said(follower.findings) == said(diagnose(open_run(tmp_path)).findings)


def grown_csv(file, records):
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    with file.open("w", newline="") as stream:
        rows = csv.DictWriter(stream, ["step", *names])
        rows.writeheader()
        rows.writerows({"step": record.step, **record.metrics} for record in records)


def grown_state(file, records):
    history = [{"step": record.step, **record.metrics} for record in records]
    file.write_text(json.dumps({"global_step": records[-1].step, "max_steps": 200, "log_history": history}))


def grown_console(file, records):
    lines = ["Loading the model\n"]
    for record in records:
        lines.append(f"{record.metrics}\n")
        lines.append(f" 10%|#         | {record.step}/200 [00:10<01:30]\n")
    file.write_text("".join(lines))


@pytest.mark.parametrize(
    ("name", "grow"),
    [
        ("log.csv", grown_csv),
        ("trainer_state.json", grown_state),
        ("train.log", grown_console),
        ("log.jsonl", jsonl),
    ],
)
def test_every_kind_of_log_that_grows(name, grow, tmp_path):
    """What is shown in the end is what `diagnose` says of the whole file."""
    file, records = tmp_path / name, recorded(BROKEN)[1]
    follower = Follower(file)
    for most in (3, 4, 17, 30, len(records)):
        grow(file, records[:most])
        follower.look()
    made = diagnose(open_run(file))
    assert (follower.run.kind, follower.run.trainer) == (made.run.kind, made.run.trainer)
    assert follower.replay.engine.records == made.records
    assert said(follower.findings) == said(made.findings) and made.findings


def test_tensorboard(tmp_path):
    writer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter(tmp_path)
    follower, records = Follower(tmp_path), recorded()[1]
    for record in records[:40]:
        for name, value in record.metrics.items():
            writer.add_scalar(f"train/{name}", value, record.step)
        if record.step in (3, 20):
            writer.flush()
            follower.look()
    writer.close()
    follower.look()
    assert (follower.run.kind, follower.last.step) == ("TensorBoard", 40)


def test_a_run_of_a_trackio_project(tmp_path):
    records = recorded()[1]
    run = trackio(tmp_path / "project.db", a=records[:60]) / "a"
    follower = Follower(run)
    follower.look()
    assert (follower.run.kind, follower.count) == ("trackio", 60)
    trackio(run.parent, a=records[60:90])
    follower.look()
    assert (follower.count, follower.last.step) == (90, 90)


def test_a_run_that_starts_again_is_followed_from_its_start(tmp_path):
    records = recorded()[1]
    folder = run_dir(tmp_path, records=records[:50], ended=None)
    follower = Follower(tmp_path)
    follower.look()
    (folder / METRICS).unlink()
    append(folder, *[moved(record, 0) for record in recorded("healthy__dpo__2")[1][:20]])
    follower.look()
    assert (follower.count, follower.last.step) == (20, 20)
    assert follower.curves["loss"].count == 20


def test_a_run_that_went_back_to_a_checkpoint(tmp_path):
    records = recorded()[1]
    folder = run_dir(tmp_path, records=records[:50], ended=None)
    follower = Follower(tmp_path)
    follower.look()
    (folder / METRICS).write_text("")
    append(folder, *records[:40], *[moved(record, 40) for record in recorded("healthy__dpo__2")[1][:20]])
    follower.look()
    assert (follower.count, follower.last.step) == (60, 60)


def test_nothing_is_read_again_while_nothing_changes(tmp_path, monkeypatch):
    run_dir(tmp_path, ended=None)
    follower = Follower(tmp_path)
    follower.look()
    monkeypatch.setattr("trl_diagnostics.follower.open_run", lambda *_: pytest.fail("read again"))
    assert follower.look() == []


def test_a_log_that_is_not_there_yet(tmp_path):
    follower = Follower(tmp_path)
    assert follower.look() == [] and "no run in it" in follower.waiting_for
    folder = run_dir(tmp_path, records=[], ended=None)
    follower.look()
    assert (follower.waiting_for, follower.count) == ("", 0)
    append(folder, recorded()[1][0])
    follower.look()
    assert follower.count == 1


def test_speed_comes_from_the_times_in_the_log(tmp_path):
    records = [Record(10 * i, 1.7e9 + 5 * i, "train", {"loss": 1.0}) for i in range(1, 120)]
    run_dir(tmp_path, records=records, ended=None)
    follower = Follower(tmp_path)
    assert follower.steps_per_second() is None
    follower.look()
    assert follower.steps_per_second() == pytest.approx(2.0)


def test_a_log_without_the_length_of_the_run_is_judged_once(tmp_path, monkeypatch):
    """Neither its records are judged again at each look, nor is its last step taken for the end of the run."""
    taken, take = [], Replay.take
    monkeypatch.setattr(Replay, "take", lambda replay, record: taken.append(record.step) or take(replay, record))
    now = iter(range(1_000, 10_000, 10))
    monkeypatch.setattr("trl_diagnostics.follower.time.time", lambda: float(next(now)))
    file, records, follower = tmp_path / "log.jsonl", recorded()[1], Follower(tmp_path / "log.jsonl")
    for most in range(20, 120, 20):
        jsonl(file, records[:most])
        follower.look()
    assert taken == list(range(1, 101)) and follower.steps_per_second() == pytest.approx(2.0)
    assert "max_steps" not in follower.run.config and follower.run.config["logging_steps"] == 1


# The view


def test_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    folder = run_dir(tmp_path, BROKEN)
    code, out, err = run(capsys, "watch", tmp_path, "--once")
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert out.startswith(f"[CRITICAL] {folder}".partition("/")[0])
    assert "step 40" in out and "40 logs" in out
    assert [line.split()[0] for line in lines if line.startswith(("metric", "loss", "grad_norm"))][:3] == [
        "metric",
        "loss",
        "grad_norm",
    ]
    assert "[CRITICAL] " in out and "Fix: " in out and "Ctrl-C" not in out and "\x1b" not in out
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_once_with_nothing_to_read(tmp_path, capsys):
    assert run(capsys, "watch", tmp_path / "nowhere", "--once") == (
        2,
        "",
        f"{tmp_path}/nowhere: no such file or folder\n",
    )
    code, out, err = run(capsys, "watch", tmp_path, "--once")
    assert (code, out) == (2, "") and err.startswith(f"{tmp_path}: ")
    assert run(capsys, "watch", tmp_path, "--interval", "0")[::2] == (
        2,
        "--interval: expected seconds above 0, found 0\n",
    )


def test_how_a_run_goes_on_is_asked_once_for_each_view(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(watch, "how_it_ended", lambda path: asked.append(path) or ("completed", "It has ended."))
    path = run_dir(tmp_path)
    code, out, _ = run(capsys, "watch", tmp_path)
    assert (code, asked) == (0, [path]) and "It has ended." in out


def test_a_run_that_has_ended_ends_the_view(tmp_path, capsys):
    run_dir(tmp_path, BROKEN, ended="exception")
    code, out, _ = run(capsys, "watch", tmp_path, "--interval", "0.1")
    assert code == 0
    findings = [f for f in diagnose(open_run(tmp_path)).findings if f.severity != "info"]
    assert out.count("] ") >= len(findings) and out.startswith(f"[{findings[0].severity.upper()}] {findings[0].rule}")


class Watching:
    """`watch` in a terminal of its own."""

    def __init__(self, *arguments):
        self.ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "trl_diagnostics", "watch", *map(str, arguments), "--interval", "0.1"]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "30"}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.text = ""

    def until(self, words, seconds=60):
        """Read what is shown until it has some words."""
        end = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < end, self.text[-3000:]
            if select.select([self.ours], [], [], 0.2)[0]:
                data = os.read(self.ours, 65536).decode(errors="replace")
                self.text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data)

    def interrupt(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def test_a_terminal_shows_what_comes_and_ctrl_c_is_no_error(tmp_path):
    records = recorded(BROKEN)[1]
    folder = run_dir(tmp_path, BROKEN, records[:4], ended=None)
    watching = Watching(tmp_path)
    watching.until("Ctrl-C ends this view")
    watching.until("step 4 of ")
    append(folder, *records[4:])
    watching.until("[CRITICAL]")
    assert watching.interrupt() == 0
    assert "Traceback" not in watching.text


def test_a_pipe_gets_each_finding_once(tmp_path):
    records = recorded(BROKEN)[1]
    folder = run_dir(tmp_path, BROKEN, records[:4], ended=None)
    command = [sys.executable, "-m", "trl_diagnostics", "watch", tmp_path, "--interval", "0.05"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == f"Watching {folder} (dpo).\n"
    append(folder, *records[4:])
    first = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert re.match(r"\[[A-Z]+\] \w+  step \d+", first)
    heads = re.findall(r"^\[[A-Z]+\] (\w+)  step (\d+)", first + rest, re.MULTILINE)
    assert len(heads) == len(set(heads))


def test_a_pipe_is_told_at_once_what_is_waited_for(tmp_path):
    command = [sys.executable, "-m", "trl_diagnostics", "watch", tmp_path, "--interval", "0.05"]
    # what is started in the background may ignore SIGINT, and hand that down
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=hear)
    said = f"{tmp_path}: waiting for the first log. {tmp_path}: no run in it that can be read\n"
    assert " ".join(process.stdout.readline().split()) in " ".join(said.split())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_printed_log_with_its_summary_has_ended(tmp_path, capsys):
    file = tmp_path / "train.log"
    lines = [f"{{'loss': {2 - i / 100}, 'epoch': {i / 100}}}\n" for i in range(1, 61)]
    file.write_text("".join(lines) + "{'train_runtime': 3.2, 'train_loss': 1.3, 'epoch': 0.6}\n")
    code, out, _ = run(capsys, "watch", file, "--interval", "0.05")
    assert code == 0 and "Training reached its end: the last log is the Trainer's summary." in out
    assert "No findings." in out


def test_what_is_cut_off_is_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    run_dir(tmp_path, BROKEN)
    shown = run(capsys, "watch", tmp_path, "--once")[1]
    heads = len(re.findall(r"^\[[A-Z]+\] \w+ (?:since|is over)", shown, re.MULTILINE))
    every = {(f.rule, f.metric) for f in diagnose(open_run(tmp_path)).findings if f.severity != "info"}
    assert 0 < heads < len(every)
    assert f"... and {len(every) - heads} more: trl-diagnostics diagnose" in " ".join(shown.split())


def test_nothing_is_left_of_a_run_that_hangs_or_is_late(tmp_path, capsys):
    records = recorded()[1][:60]
    now = time.time()
    late = [Record(r.step, now - 600 + r.step, r.phase, r.metrics) for r in records]
    path = run_dir(tmp_path / "late", records=late, ended=None)
    assert " left" not in run(capsys, "watch", path, "--once")[1].splitlines()[1]
    fresh = [Record(r.step, now - 60 + r.step, r.phase, r.metrics) for r in records]
    path = run_dir(tmp_path / "fresh", records=fresh, ended=None)
    assert " left" in run(capsys, "watch", path, "--once")[1].splitlines()[1]
    path = run_dir(tmp_path / "hangs", records=fresh, ended="hang")
    assert " left" not in run(capsys, "watch", path, "--once")[1].splitlines()[1]


# Curves in a line


def curve(values):
    made = Curve()
    for step, value in enumerate(values):
        made.push(step, value)
    return made


@pytest.mark.parametrize(
    ("values", "space", "shown"),
    [
        ([], 10, ""),
        ([1.0], 10, "▁"),
        ([1.0, 1.0, 1.0], 10, "▁▁▁"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, BLOCKS),
        ([7, 0, math.nan, None, 7], 5, "█▁!!█"),
        ([0, 0, 7, 7], 2, "▁█"),
        ([math.inf, math.nan], 5, "!!"),
        ([-1.7e308, 1.7e308], 5, "▁█"),
    ],
)
def test_sparkline(values, space, shown):
    assert sparkline(curve(values), space) == shown


def test_sparkline_where_there_are_no_blocks():
    assert sparkline(curve([0, 1, 2, 3, 4, 5, 6, 7]), 8, blocks=False).isascii()


@given(st.lists(st.floats(), max_size=3000), st.integers(1, 60))
def test_sparkline_of_anything(values, space):
    shown = sparkline(curve(values), space)
    assert len(shown) <= space and set(shown) <= {*BLOCKS, "!"} and bool(shown) == bool(values)
