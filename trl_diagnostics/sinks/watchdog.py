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
Signs of life of a training go in; `heartbeat.json`, from which a death can be told that left no time to write, and the
news that nothing moves any more come out.
"""

import faulthandler
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from .run_dir import HEARTBEAT, SCHEMA_VERSION, read_json, write_json


EVERY = 5.0  # seconds between heartbeats
LOOK = 1.0  # seconds between two looks of the watchdog
CGROUP = Path("/sys/fs/cgroup")  # of a container, version 2
LOW_MEMORY = 0.1  # share of available memory below which every look is written down
SLOWER = 5  # times the longest that this took lately
UNKNOWN = 3  # times the floor, for what was not yet seen to end: the first step compiles, the first save is slow
REMEMBERED = 64
MOST_HANGS = 20  # kept with their stacks; hang.log has all

# What is needed of a heartbeat; a damaged one may have less, and one of another release something else.
OF_A_HEARTBEAT = ("host", "pid", "process_started", "boot_id", "time", "step", "doing", "left", "hangs")
OF_A_HEARTBEAT += ("rss_bytes", "available_bytes", "total_bytes")

# What a training does, and how one says that it does not get on with it.
DOING = {
    "start": "before the first step",
    "data": "waiting for the next batch",
    "step": "in a training step",
    "evaluate": "in an evaluation",
    "save": "saving a checkpoint",
}


class Watchdog:
    """
    A daemon thread that writes the heartbeat and notices a hang. The training thread only sets a few attributes. Random
    states and devices are not touched.

    Args:
        path (`Path`):
            Run directory.
        guard (`Callable`):
            Calls a part of the diagnostics so that its errors go no further.
        hang_timeout (`float`):
            Seconds without a sign of life below which nothing is called a hang. A hang takes longer than that and than 5
            times the longest that the same thing took lately.
        is_training (`Callable[[], bool]`):
            Whether the training thread is still in its loop; asked when nothing has come for some seconds.
        on_hang (`Callable[[dict], None]`):
            Called by the watchdog's thread once for each hang, with `seconds`, `limit`, `doing` and `step`; may add to it.
        on_recovery (`Callable[[dict], None]`):
            Called with the same dictionary when the training goes on, `seconds` being all that it took.
    """

    def __init__(
        self,
        path: Path,
        guard: Callable,
        hang_timeout: float,
        is_training: Callable[[], bool],
        on_hang: Callable[[dict], None],
        on_recovery: Callable[[dict], None],
    ):
        self.path, self.guard, self.hang_timeout, self.is_training = path, guard, hang_timeout, is_training
        self.on_hang, self.on_recovery = on_hang, on_recovery
        self.step, self.doing, self.since = 0, "start", time.monotonic()
        self.took: dict[str, deque[float]] = {doing: deque(maxlen=REMEMBERED) for doing in DOING}
        self.hangs: deque[dict[str, Any]] = deque(maxlen=MOST_HANGS)
        self.hanging: float | None = None  # `since` of the hang
        self.left = 0  # looks in a row that found the training thread elsewhere; one of them may be mistaken
        self.process = psutil.Process()
        self.identity = identity(self.process)
        self.faulthandler_taken = False
        self.written = self.looked = 0.0
        self._ended = threading.Event()
        self._moving = threading.RLock()  # a signal handler may stop what is just being stopped

    def start(self) -> None:
        """Write the first heartbeat and start watching."""
        self.since = self.looked = time.monotonic()
        self.faulthandler_taken = faulthandler.is_enabled()  # by the program, so that a crash leaves no crash.log
        self.guard("watchdog", self._write, self.since, *available_memory())
        threading.Thread(target=self._watch, name="trl-diagnostics", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, with a last heartbeat; does not wait for the thread."""
        self._ended.set()
        self._notice_moving()  # a training that ends right after a hang leaves no time for another look
        self.guard("watchdog", self._write, time.monotonic(), *available_memory())

    def beat(self, step: int, doing: str) -> None:
        """A sign of life: the optimizer step, and what is done from now on (a key of `DOING`)."""
        now = time.monotonic()
        self.took[self.doing].append(now - self.since)
        self.step, self.doing, self.since = step, doing, now

    def limit(self) -> float:
        """Seconds after which what is done now counts as a hang."""
        took = list(self.took[self.doing])  # at once, the training thread may append to it
        return max(self.hang_timeout, SLOWER * max(took)) if took else UNKNOWN * self.hang_timeout

    def _watch(self) -> None:
        pause = min(LOOK, self.hang_timeout / 4)
        while not self._ended.wait(pause):
            now = time.monotonic()
            if now - self.looked > pause + EVERY:
                self.since = now  # the whole process was stopped, not only the training
            self.looked = now
            self.guard("watchdog", self._look, now)

    def _look(self, now: float) -> None:
        self._notice_moving()
        since, step, limit = self.since, self.step, self.limit()
        self.left = self.left + 1 if now - since > EVERY and not self.is_training() else 0
        if self.hanging is None and now - since > limit and not self.left:
            self.hanging = since
            seconds = {"seconds": round(now - since, 1), "limit": round(limit, 1)}
            self.hangs.append({"time": time.time(), "step": step, "doing": self.doing, **seconds})
            self.on_hang(self.hangs[-1])
        available, total = available_memory()
        if now - self.written > EVERY or available < LOW_MEMORY * total:
            self._write(now, available, total)

    def _notice_moving(self) -> None:
        with self._moving:
            since, hanging = self.since, self.hanging
            if hanging is None or since == hanging:
                return
            self.hanging = None
        self.hangs[-1]["seconds"] = round(since - hanging, 1)
        self.on_recovery(self.hangs[-1])

    def _write(self, now: float, available: int, total: int) -> None:
        beat = {
            "schema_version": SCHEMA_VERSION,
            **self.identity,
            "time": time.time(),
            "step": self.step,
            "doing": self.doing,
            "seconds_without_a_step": round(now - self.since, 1),
            "rss_bytes": self.process.memory_info().rss,
            "available_bytes": available,
            "total_bytes": total,
            "left": self.left > 1,
            "faulthandler_taken": self.faulthandler_taken,
            "hangs": [{key: hang[key] for key in hang if key != "stack"} for hang in self.hangs],
        }
        write_json(self.path / HEARTBEAT, beat, sync=False)
        self.written = now


def write_stacks(file: Path, what: str) -> None:
    """Append to a file where all threads of this process are, below a line that says why."""
    with file.open("a", encoding="utf-8") as log:
        log.write(f"{datetime.now().isoformat(timespec='seconds')} {what}\n")
        log.flush()
        faulthandler.dump_traceback(log)
        log.write("\n")


def identity(process: psutil.Process) -> dict[str, Any]:
    """What tells a process from every other one, also after a restart of the machine."""
    return {
        "host": socket.gethostname(),
        "pid": process.pid,
        "process_started": process.create_time(),
        "boot_id": boot_id(),
        "pid_namespace": pid_namespace(),
    }


def boot_id() -> str | None:
    """Changes with each start of the machine; `None` where the system does not tell (it is Linux that does)."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else None


def pid_namespace() -> str | None:
    """In which container a process number means what it means; `None` where there is none (they are Linux's)."""
    file = "/proc/self/ns/pid"
    return os.readlink(file) if os.path.lexists(file) else None


def is_alive(beat: dict[str, Any]) -> bool:
    """Whether the process that wrote a heartbeat on this machine and in this container is still there."""
    try:
        process = psutil.Process(beat["pid"])
        # the start of a process is given to 10 ms, and moves with the clock of the machine
        same = abs(process.create_time() - beat["process_started"]) < 5
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def read_heartbeat(run_dir: Path) -> dict[str, Any] | None:
    """The last heartbeat of a run; `None` without one that this release understands."""
    beat = read_json(run_dir / HEARTBEAT)
    return beat if beat is not None and all(key in beat for key in OF_A_HEARTBEAT) else None


def available_memory() -> tuple[int, int]:
    """Bytes that can still be taken and bytes there are, of the machine or of the container, where that has less."""
    memory = psutil.virtual_memory()
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        cache = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # not in a container with this kind of limit, or it says "max"
        return memory.available, memory.total
    free = limit - used + int(cache["inactive_file"])
    return min(free, memory.available), min(limit, memory.total)
