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

"""The heartbeat is there and true, a hang is said once, and what is only slow is no hang."""

import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

from trl_diagnostics.guard import Guard
from trl_diagnostics.sinks import watchdog as module
from trl_diagnostics.sinks.run_dir import write_json
from trl_diagnostics.sinks.watchdog import (
    DOING,
    MOST_HANGS,
    REMEMBERED,
    Watchdog,
    available_memory,
    identity,
    is_alive,
)


def watch(folder, hang_timeout=300.0, guard=lambda part, function, *args: function(*args)):
    hangs, moves = [], []
    dog = Watchdog(
        folder,
        guard,
        hang_timeout,
        lambda: True,
        lambda hang: hangs.append(dict(hang)),
        lambda hang: moves.append(dict(hang)),
    )
    return dog, hangs, moves


def heartbeat(folder):
    return json.loads((folder / "heartbeat.json").read_text())


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_first_heartbeat_is_there_at_once(tmp_path):
    dog, *_ = watch(tmp_path / "diagnostics")
    dog.start()
    dog.stop()
    beat = heartbeat(tmp_path / "diagnostics")
    assert (beat["schema_version"], beat["step"], beat["doing"], beat["hangs"]) == (1, 0, "start", [])
    assert beat["pid"] == os.getpid() and beat["host"] and is_alive(beat)
    assert abs(beat["time"] - time.time()) < 60
    assert 0 < beat["rss_bytes"] < beat["total_bytes"] and 0 < beat["available_bytes"] <= beat["total_bytes"]


def test_heartbeats_follow_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.02)
    monkeypatch.setattr(module, "LOOK", 0.01)
    dog, *_ = watch(tmp_path)
    dog.start()
    dog.beat(3, "data")
    wait_for(lambda: heartbeat(tmp_path)["step"] == 3)
    assert heartbeat(tmp_path)["doing"] == "data"
    dog.beat(4, "save")
    wait_for(lambda: heartbeat(tmp_path)["step"] == 4)
    dog.stop()


def test_the_last_heartbeat_is_from_the_end(tmp_path):
    dog, *_ = watch(tmp_path)
    dog.start()
    dog.beat(3, "data")
    dog.stop()
    assert (heartbeat(tmp_path)["step"], heartbeat(tmp_path)["doing"]) == (3, "data")


def test_after_the_stop_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "EVERY", 0.0)
    monkeypatch.setattr(module, "LOOK", 0.01)
    dog, *_ = watch(tmp_path)
    dog.start()
    dog.stop()
    time.sleep(0.3)
    (tmp_path / "heartbeat.json").unlink()
    time.sleep(0.3)
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_stopped_while_it_is_being_stopped(tmp_path):
    """As a signal handler does."""
    dog, *_ = watch(tmp_path)
    lock = dog._moving

    class Interrupted:
        def __enter__(self):
            lock.acquire()
            dog._moving = lock
            dog.stop()

        def __exit__(self, *args):
            lock.release()

    dog._moving = Interrupted()
    thread = threading.Thread(target=dog.stop, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize("taken", [False, True])
def test_the_heartbeat_says_whether_a_crash_would_be_seen(taken, tmp_path):
    enabled = faulthandler.is_enabled()
    (faulthandler.enable if taken else faulthandler.disable)()
    dog, *_ = watch(tmp_path)
    dog.start()
    dog.stop()
    (faulthandler.enable if enabled else faulthandler.disable)()
    assert heartbeat(tmp_path)["faulthandler_taken"] is taken


# Hangs; the clock is ours


def test_a_hang_is_said_once_and_so_is_its_end(tmp_path):
    dog, hangs, moves = watch(tmp_path, 10.0)
    dog.since = 1000.0
    dog.took["step"].append(1.0)
    dog.step, dog.doing = 7, "step"
    dog._look(1010.0)
    assert hangs == []
    for now in (1010.1, 1020.0, 1500.0):
        dog._look(now)
    (hang,) = hangs
    assert (hang["seconds"], hang["limit"], hang["step"], hang["doing"]) == (10.1, 10.0, 7, "step")
    assert moves == []
    dog.since = 1600.5
    dog._look(1601.0)
    dog._look(1602.0)
    assert moves == [hang | {"seconds": 600.5}] == list(dog.hangs)
    dog._look(1700.0)
    assert len(hangs) == 2 and len(moves) == 1


def test_the_heartbeat_tells_of_hangs(tmp_path):
    dog, *_ = watch(tmp_path, 10.0)
    dog.since = 1000.0
    dog._look(1100.0)
    assert heartbeat(tmp_path)["hangs"] == json.loads(json.dumps(list(dog.hangs)))
    dog.hangs[0]["stack"] = "many lines"
    for since in range(2000, 4000, 50):  # each of them a hang
        dog.since = float(since)
        dog._look(since + 49.0)
    assert len(heartbeat(tmp_path)["hangs"]) == len(dog.hangs) == MOST_HANGS
    assert all("stack" not in hang for hang in heartbeat(tmp_path)["hangs"])


@pytest.mark.parametrize(
    ("took", "limit"),
    [
        ([], 30.0),  # nothing is known yet
        ([0.1] * 9, 10.0),
        ([4.0, 1.0], 20.0),
        ([4.0] + [1.0] * REMEMBERED, 10.0),  # long ago
    ],
)
def test_how_long_a_step_may_take(took, limit, tmp_path):
    dog, *_ = watch(tmp_path, 10.0)
    dog.doing = "step"
    dog.took["step"].extend(took)
    dog.took["save"].append(1000.0)  # something else
    assert dog.limit() == limit


def test_each_thing_that_is_done_has_its_own_time(tmp_path):
    dog, *_ = watch(tmp_path)
    for doing in DOING:
        dog.beat(1, doing)
    assert {doing: len(took) for doing, took in dog.took.items()} == {**dict.fromkeys(DOING, 1), "save": 0, "start": 2}


def test_a_process_that_was_stopped_did_not_hang(tmp_path):
    program = """
import sys, time
from pathlib import Path
from trl_diagnostics.sinks import watchdog
watchdog.LOOK, watchdog.EVERY = 0.05, 1.0
dog = watchdog.Watchdog(Path(sys.argv[1]), lambda part, f, *args: f(*args), 2.0, lambda: True, lambda hang: print("hang"), print)
dog.took["start"].append(0.1)
dog.start()
print("ready", flush=True)
time.sleep(1.0)
"""
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(4.0)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == ""


def test_a_full_disk_costs_only_the_heartbeats_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)
    monkeypatch.setattr(module, "EVERY", 0.02)
    full = [OSError(28, "No space left on device")] * 3

    def write(*args, **options):
        if full:
            raise full.pop()
        write_json(*args, **options)

    dog, *_ = watch(tmp_path, guard=Guard())
    dog.start()
    monkeypatch.setattr(module, "write_json", write)
    dog.beat(3, "data")
    wait_for(lambda: heartbeat(tmp_path)["step"] == 3)
    dog.stop()
    assert dog.guard.broken == {"watchdog": "3 times OSError: [Errno 28] No space left on device"}


def test_an_error_of_the_watchdog_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.01)
    calls = []

    def guard(part, function, *args):
        calls.append(part)

    dog, *_ = watch(tmp_path, guard=guard)
    dog.start()
    wait_for(lambda: len(calls) > 3)
    dog.stop()
    assert set(calls) == {"watchdog"}


# Processes and memory


def test_a_process_is_told_by_more_than_its_number():
    me = identity(psutil.Process())
    assert is_alive(me)
    assert not is_alive(me | {"process_started": me["process_started"] + 100})
    assert not is_alive(me | {"pid": 2**22 + 1})


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("2000\n", (900, 2000)), ("max\n", None), (None, None)],
    ids=["a container", "a container without a limit", "no container"],
)
def test_memory_is_that_of_the_container(limit, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CGROUP", tmp_path)
    if limit:
        (tmp_path / "memory.max").write_text(limit)
        (tmp_path / "memory.current").write_text("1500\n")
        (tmp_path / "memory.stat").write_text("anon 1000\ninactive_file 400\n")
    available, total = available_memory()
    if expected:
        assert (available, total) == expected
    else:
        assert total == psutil.virtual_memory().total and 0 < available <= total


def test_with_little_memory_left_every_look_is_written_down(tmp_path, monkeypatch):
    dog, *_ = watch(tmp_path)
    sizes = [(50, 100), (9, 100), (8, 100), (50, 100)]
    monkeypatch.setattr(module, "available_memory", lambda: sizes[0])
    dog.written = 1000.0
    seen = []
    for now in (1001.0, 1002.0, 1003.0, 1004.0):
        dog._look(now)
        file = tmp_path / "heartbeat.json"
        seen.append(heartbeat(tmp_path)["available_bytes"] if file.exists() else None)
        sizes.pop(0)
        sizes.append((50, 100))
    assert seen == [None, 9, 8, 8]
