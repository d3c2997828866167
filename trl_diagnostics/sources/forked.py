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

"""Calls go in, what each returned or raised in a process of its own comes out; the calling process stays as it is."""

import contextlib
import faulthandler
import json
import os
import select
import signal
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm import tqdm

from .unseen import Unseen


END = {"name": "end"}
CRASHED = "its process crashed"
# Errors of code that meets what it does not expect. Others speak of a network, a device or a thread, which a forked
# process may lack and the training may have.
OF_THE_CODE = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError),
    *(TypeError, ValueError),
)


@dataclass(frozen=True)
class Call:
    """
    One call that came back.

    Args:
        name (`str`):
            Which call.
        seconds (`float`):
            How long it took.
        value (`Any`, *optional*):
            What it returned, as JSON holds it.
        error (`str`, *optional*):
            What it raised.
        of_the_code (`bool`, *optional*, defaults to `False`):
            Whether that error would have come in the calling process too.
    """

    name: str
    seconds: float
    value: Any = None
    error: str | None = None
    of_the_code: bool = False


def forked_calls(
    jobs: Callable[[], Iterator[tuple[str, Callable[[], Any]]]], seconds: float
) -> tuple[list[Call], str | None]:
    """
    Make calls in a forked process, which has all that this one has and takes its changes with it.

    Args:
        jobs (`Callable`):
            Gives names and calls, one after the other; in the forked process too.
        seconds (`float`):
            After so many the process is killed.

    Returns:
        `tuple[list[Call], str | None]`: those that came back, and why the others did not.
    """
    if sys.platform in ("win32", "darwin"):
        raise Unseen(f"on {sys.platform} no process can be forked safely")
    reader, writer = os.pipe()
    try:
        pid = _fork()
    except OSError as error:
        raise Unseen(f"no process could be forked ({error.strerror})") from error
    if pid == 0:
        try:
            _work(jobs, writer)
        finally:
            os._exit(0)  # no exit hooks, no buffers that the calling process writes as well
    os.close(writer)
    try:
        lines = _read(reader, time.monotonic() + seconds)
    finally:
        os.close(reader)
        status = _end(pid)
    said = [json.loads(line) for line in lines]
    calls = [Call(**entry) for entry in said if entry != END]
    if END in said:
        return calls, None
    died = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL
    return calls, CRASHED if died else f"did not come back within {seconds:g} s"


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are other threads is known: hence the deadline
        return os.fork()


def _read(reader: int, deadline: float) -> list[bytes]:
    """Whole lines, up to the last one, the end of the process or the deadline."""
    text = b""
    end = json.dumps(END).encode()
    while end not in text and (left := deadline - time.monotonic()) > 0:
        if select.select([reader], [], [], left)[0]:
            chunk = os.read(reader, 65536)
            text += chunk
            if not chunk:
                break
    return text.split(b"\n")[:-1]


def _end(pid: int) -> int | None:
    """Kill the process and what it has started."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # the user's own handler of SIGCHLD was faster
        return None


def _work(jobs: Callable[[], Iterator[tuple[str, Callable[[], Any]]]], writer: int) -> None:
    _cut_off()
    with os.fdopen(writer, "w") as out:
        try:
            for name, job in jobs():
                out.write(json.dumps(asdict(_call(name, job))) + "\n")
                out.flush()
        except BaseException as error:
            out.write(json.dumps(asdict(Call("before the call", 0.0, error=_words(error)))) + "\n")
        out.write(json.dumps(END) + "\n")


def _call(name: str, job: Callable[[], Any]) -> Call:
    began = time.monotonic()
    try:
        value, error = job(), None
        json.dumps(value)
    except BaseException as raised:
        value, error = None, raised
    seconds = time.monotonic() - began
    if error is None:
        return Call(name, seconds, value)
    return Call(name, seconds, error=_words(error), of_the_code=isinstance(error, OF_THE_CODE))


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:  # the one that lists the others is closed
        return False


def _cut_off() -> None:
    """Nothing of what is shared with the calling process is used any more."""
    faulthandler.disable()  # its file is that of the training
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDWR)
    shared = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd != nothing and _is_socket(fd)]
    for fd in (0, 1, 2, *shared):  # a word of this process in a connection of the training would end it
        os.dup2(nothing, fd)
    import resource  # not there on Windows

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of all memory takes minutes
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  (a notebook's own go on to the notebook)
    tqdm.set_lock(threading.RLock())  # the one that all forks share would stay taken if this process is killed
    torch.set_num_threads(1)  # the threads of OpenMP are not there any more
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # nor those of tokenizers, which would be waited for
