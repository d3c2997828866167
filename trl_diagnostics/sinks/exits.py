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

"""The ways in which a training can end without `on_train_end` go in, one call that says how comes out."""

import faulthandler
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from multiprocessing.util import Finalize
from pathlib import Path
from traceback import format_exception_only
from types import FrameType, MethodType, TracebackType
from typing import Any, TextIO

from .redact import redact_text
from .training_loop import TrainingLoop


# CUDA, ROCm, XPU and MPS say the first, the CPU the second, libraries of CUDA such as cuBLAS the third
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "status_alloc_failed")
INTERRUPTED = "Interrupted from the keyboard (Ctrl-C)."
WORKER_KILLED = "is killed by signal: Killed"  # torch of a worker of its data loader
NO_MEMORY_FOR_IT = "A worker that gets SIGKILL was most likely killed by the system for lack of memory (OOM killer)."
CRASHES: list[TextIO] = []  # crash.log, while faulthandler writes into it because we asked it to
MOST_WORDS = 2000  # characters of what an exception says; the traceback has more
MOST_TRACE = 100_000  # characters of a traceback; to redact ten million takes six seconds


def reason_of(error: BaseException) -> str:
    """
    The `exit_reason` of a training that an exception ended: `"interrupted"`, `"oom"` or `"exception"`. What it came from,
    and what was being handled when it came, counts as well.
    """
    return next(filter(None, map(_known_reason, _chain(error))), "exception")


def _known_reason(error: BaseException) -> str | None:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    said = "".join(format_exception_only(error)).lower()  # str() of a foreign exception may raise
    if isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY):
        return "oom"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return "oom"
    return None


def _chain(error: BaseException | None) -> list[BaseException]:
    """The exception and what led to it, as a traceback shows it; the program may have made a circle of it."""
    chain: list[BaseException] = []
    while error is not None and not any(error is one for one in chain):
        chain.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return chain


def words_of(error: BaseException) -> str:
    """What an exception says, and what the one says that gave it its reason, in not too many words."""
    root = next(filter(_known_reason, _chain(error)), error)
    said = _words(error) if root is error else f"{_words(error)} It came from: {_words(root)}"
    return f"{said} {NO_MEMORY_FOR_IT}" if WORKER_KILLED in said else said


def _words(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return "".join(format_exception_only(error)).strip()[:MOST_WORDS]


def shortened(trace: str) -> str:
    """A traceback without secrets, and without its middle where it is too long, as with a tensor in its message."""
    if len(trace) <= MOST_TRACE:
        return redact_text(trace)
    half = MOST_TRACE // 2  # without the words that are cut: half a secret has no longer the form of one
    head, tail = trace[:half].rsplit(None, 1)[0], trace[-half:].split(None, 1)[-1]
    left_out = len(trace) - len(head) - len(tail)
    return redact_text(f"{head}\n... {left_out} characters left out ...\n{tail}")


class Sigterm:
    """
    Notices SIGTERM. The handler that was there before is called after it, or when [`Sigterm.release`] is.

    Args:
        on_signal (`Callable[[FrameType | None], None]`):
            Called with where the program is.
        loop ([`TrainingLoop`]):
            Of the training.
        postpone (`bool`):
            Whether the earlier handler has to wait for the release, as long as the loop runs.
    """

    def __init__(self, on_signal: Callable[[FrameType | None], None], loop: TrainingLoop, postpone: bool):
        self.on_signal, self.loop, self.postpone = on_signal, loop, postpone
        self.received = self.active = False
        self.pid = os.getpid()
        self.previous: Any = None

    def install(self) -> None:
        """Python handles signals in the main thread only, and cannot put back a handler that C code installed."""
        self.previous = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and self.previous is not None:
            self.active = True
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.active and os.getpid() == self.pid:  # a forked worker inherits the handler
            self.received = True
            self.postpone = self.postpone and self.loop.is_running()  # nobody releases what an exception left
            self.on_signal(frame)
            if self.postpone:
                return
        if callable(self.previous):
            self.previous(number, frame)
        elif self.previous == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)

    def is_training(self) -> bool:
        """Called by the watchdog's thread: whether the loop is running, for which a signal may be waiting."""
        running = self.loop.is_running()
        if not running and self.waits:  # an exception has left the loop, and now it is not put off again
            os.kill(os.getpid(), signal.SIGTERM)
        return running

    @property
    def is_last(self) -> bool:
        """Whether the process dies of the signal as soon as the handler is through."""
        return not self.postpone and self.previous == signal.SIG_DFL

    @property
    def waits(self) -> bool:
        """Whether a signal came that the earlier handler does not know of."""
        return self.active and self.received and self.postpone

    def release(self) -> None:
        """Put the earlier handler back; a signal that had to wait reaches it now."""
        if not self.active:
            return
        waits, self.active = self.waits, False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, _first_active(self.previous))
        if waits:
            signal.raise_signal(signal.SIGTERM)


class Sigint:
    """Notes when Ctrl-C came, which the program may catch, in front of Python's own handler; any other one stays."""

    def __init__(self):
        self.last = -math.inf  # on the clock of time.monotonic
        self.trainings = 0

    def install(self) -> None:
        """Another training begins."""
        self.trainings += 1
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.last = time.monotonic()
        signal.default_int_handler(number, frame)

    def release(self) -> None:
        """A training has ended; after the last one Python's handler is back."""
        self.trainings -= 1
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not self.trainings and in_main_thread and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, signal.default_int_handler)


SIGINT = Sigint()  # of all trainings of this process


def release_left(loop: TrainingLoop) -> None:
    """Give SIGTERM back where a training still has it that was left without its end, when another one begins."""
    handler = signal.getsignal(signal.SIGTERM)
    while isinstance(handler, MethodType) and isinstance(handler.__self__, Sigterm):
        sigterm, handler = handler.__self__, handler.__self__.previous
        if not sigterm.loop.goes_on_beside(loop):
            sigterm.release()


class ExitHooks:
    """
    Hooks into the ways in which a process or a notebook cell ends, for one training. What was hooked before is still
    called, and all is put back by [`ExitHooks.release`].

    Args:
        on_end (`Callable[[BaseException | None], None]`):
            Called with the exception that ended the training, or `None` where it is not known.
        after (`Callable[[], None]`):
            Called after that, when the user has been shown the exception.
        crash_log (`Path`):
            File for the stacks of a crash in native code.
    """

    def __init__(self, on_end: Callable[[BaseException | None], None], after: Callable[[], None], crash_log: Path):
        self.on_end, self.after, self.crash_log = on_end, after, crash_log
        self.active = False
        self.pid = os.getpid()
        self.thread = threading.get_ident()
        self.previous: Callable = sys.excepthook
        self.finalizer: Finalize | None = None
        self.shell: Any = None
        self.crashes: TextIO | None = None

    def install(self) -> None:
        """Hook in."""
        self.active = True
        SIGINT.install()
        self.previous, sys.excepthook = sys.excepthook, self._on_exception
        # unlike atexit it reaches a worker of multiprocessing, too
        self.finalizer = Finalize(None, self._at_exit, exitpriority=1)
        if "IPython" in sys.modules:
            from IPython import get_ipython

            self.shell = get_ipython()
        if self.shell is not None:
            self.shell.events.register("post_run_cell", self._after_cell)
        if not faulthandler.is_enabled():  # there is only one, and the user's own stays where it is
            self.crash_log.parent.mkdir(parents=True, exist_ok=True)
            self.crashes = self.crash_log.open("w", encoding="utf-8")
            faulthandler.enable(self.crashes)
            CRASHES.append(self.crashes)
            _leave_forks_out()

    def _is_mine(self) -> bool:
        return self.active and os.getpid() == self.pid  # a fork inherits the hooks

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if mine := self._is_mine():
            self.on_end(error)
        self.previous(kind, error, trace)
        if mine:
            self.after()

    def _at_exit(self) -> None:
        if self._is_mine():
            error = sys.exception()  # multiprocessing calls this while it is on its way; torch makes an exit of it
            self.on_end(error.__context__ or error if isinstance(error, SystemExit) else error)
            self.after()

    def _after_cell(self, result: Any) -> None:
        if self._is_mine() and threading.get_ident() == self.thread:  # or else it trains in the background
            self.on_end(result.error_in_exec)
            self.after()

    def release(self) -> None:
        """Put everything back."""
        if self.active:
            SIGINT.release()
        self.active = False
        if sys.excepthook == self._on_exception:
            sys.excepthook = _first_active(self.previous)
        if self.finalizer is not None:
            self.finalizer.cancel()
        if self.shell is not None:
            self.shell.events.unregister("post_run_cell", self._after_cell)
            self.shell = None
        if self.crashes is not None:
            faulthandler.disable()
            CRASHES.clear()
            self.crashes.close()
            self.crashes = None
            if self.crash_log.exists() and not self.crash_log.stat().st_size:
                self.crash_log.unlink()


@cache
def _leave_forks_out() -> None:
    """The crash of a forked process, such as one in which a reward function runs code, is none of the training."""
    if os.name == "posix":
        os.register_at_fork(after_in_child=_forget_crashes)


def _forget_crashes() -> None:
    if CRASHES:
        CRASHES.clear()
        faulthandler.disable()


def _first_active(hook: Any) -> Any:
    """The hook itself, or the one before it where it is of a training that has ended."""
    while isinstance(hook, MethodType) and isinstance(hook.__self__, ExitHooks | Sigterm) and not hook.__self__.active:
        hook = hook.__self__.previous
    return hook
