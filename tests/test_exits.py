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

"""Every way to leave a training is noticed once, and what was hooked in before still works."""

import json
import re
import signal
import subprocess
import sys

import pytest

from trl_diagnostics.sinks.exits import reason_of, shortened, words_of


# What each program has at hand. `said` collects what happens, `ends` is what the hooks call.
PROLOGUE = """
import atexit, faulthandler, json, os, signal, sys, threading, time
from pathlib import Path
from trl_diagnostics.sinks.exits import ExitHooks, Sigterm, reason_of, release_left
from trl_diagnostics.sinks.training_loop import TrainingLoop

folder = Path(sys.argv[1])

def say(*words):
    with (folder / "said").open("a") as file:  # survives whatever comes
        file.write(json.dumps(words) + "\\n")

def ends(error):
    say("end", None if error is None else repr(error))

loop = TrainingLoop(None)
crash_log = folder / "crash.log"
"""
HOOKED = "exits = ExitHooks(ends, lambda: None, crash_log)\nexits.install()\n"


def run(folder, program, **options):
    """Exit status, what was said in order, and standard error."""
    command = [sys.executable, "-c", PROLOGUE + program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
    file = folder / "said"
    return (
        done.returncode,
        [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else [],
        done.stderr,
    )


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")


def caused(error, cause):
    error.__cause__ = cause
    return error


def while_handling(error, before):
    error.__context__ = before
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("x"), "exception"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "oom"),
        (OutOfMemoryError("HIP out of memory. Tried"), "oom"),
        (OutOfMemoryError("anything"), "oom"),
        (RuntimeError("CUDA error: out of memory"), "oom"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "oom"),
        (ValueError("the user is out of memory"), "exception"),
        (caused(RuntimeError("the engine died"), MemoryError()), "oom"),
        (caused(RuntimeError("a"), ValueError("b")), "exception"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "oom"),
        (while_handling(ValueError("a"), MemoryError()), "oom"),
        (while_handling(OSError("a"), KeyboardInterrupt()), "interrupted"),
        (caused(while_handling(ValueError("a"), MemoryError()), None), "exception"),  # raise ... from None
        (while_handling(a := ValueError("a"), caused(ValueError("b"), a)), "exception"),
        (SystemExit(3), "exception"),
        (SystemExit("why"), "exception"),
        (Mute(), "exception"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_reason_of_an_exception(error, reason):
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("x"), "ValueError: x"),
        (KeyboardInterrupt(), "Interrupted from the keyboard (Ctrl-C)."),
        (SystemExit(3), "SystemExit: 3"),
        (while_handling(ValueError("x"), MemoryError("y")), "ValueError: x It came from: MemoryError: y"),
        (
            RuntimeError("DataLoader worker (pid 4242) is killed by signal: Killed. "),
            "RuntimeError: DataLoader worker (pid 4242) is killed by signal: Killed. A worker that gets SIGKILL was most "
            "likely killed by the system for lack of memory (OOM killer).",
        ),
    ],
)
def test_the_words_of_an_exception(error, words):
    assert words_of(error) == words


def test_a_traceback_without_end_keeps_both_ends():
    key = "hf_" + "a" * 34
    trace = f"Traceback {key}\n" + f"{key} 0.5, 0.25\n" * 100_000 + "ValueError: the end"
    text = shortened(trace)
    assert len(text) < 101_000 and "aaa" not in text
    assert text.startswith("Traceback <redacted>\n") and text.endswith("ValueError: the end")
    assert re.search(r"\n\.\.\. 47\d{5} characters left out \.\.\.\n", text)
    assert shortened(f"short {key}") == "short <redacted>"


# Exceptions


def test_an_exception_reaches_us_and_then_the_hook_before(tmp_path):
    program = "sys.excepthook = lambda *args: say('before', args[0].__name__)\n" + HOOKED + "raise ValueError('x')"
    status, said, _ = run(tmp_path, program)
    # a real callback releases at the end; without that the end of the process is noticed too
    assert (status, said) == (1, [["end", "ValueError('x')"], ["before", "ValueError"], ["end", None]])


def test_the_traceback_is_printed_as_ever(tmp_path):
    _, _, plain = run(tmp_path, "1 / 0")
    _, _, hooked = run(tmp_path, "exits = ExitHooks(ends, lambda: None, crash_log); exits.install(); 1 / 0")
    assert "ZeroDivisionError: division by zero" in plain
    assert plain.splitlines()[-1] == hooked.splitlines()[-1]


def test_a_process_that_ends_without_a_word(tmp_path):
    assert run(tmp_path, HOOKED + "sys.exit(3)")[:2] == (3, [["end", None]])


def test_nothing_is_left_after_the_release(tmp_path):
    program = """
before = sys.excepthook, signal.getsignal(signal.SIGTERM), faulthandler.is_enabled()
exits, sigterm = ExitHooks(ends, lambda: None, crash_log), Sigterm(say, loop, False)
exits.install(), sigterm.install()
say(faulthandler.is_enabled(), crash_log.exists())
exits.release(), sigterm.release()
say(before == (sys.excepthook, signal.getsignal(signal.SIGTERM), faulthandler.is_enabled()), crash_log.exists())
exits.release(), sigterm.release()
raise ValueError
"""
    assert run(tmp_path, program)[1] == [[True, True], [True, False]]


@pytest.mark.parametrize("order", ["a, b", "b, a"])
def test_two_trainings_side_by_side_leave_nothing_whoever_ends_first(order, tmp_path):
    program = f"""
before = sys.excepthook, signal.getsignal(signal.SIGTERM)
a, b = [(ExitHooks(ends, lambda: None, folder / name), Sigterm(say, loop, False)) for name in ("a.log", "b.log")]
for exits, sigterm in (a, b):
    exits.install(), sigterm.install()
for exits, sigterm in ({order}):
    exits.release(), sigterm.release()
say(before == (sys.excepthook, signal.getsignal(signal.SIGTERM)))
"""
    assert run(tmp_path, program)[1] == [[True]]


def test_a_hook_that_was_put_on_top_stays_and_still_reaches_the_one_below(tmp_path):
    program = """
sys.excepthook = lambda *args: say("bottom")
exits = ExitHooks(ends, lambda: None, crash_log)
exits.install()
below = sys.excepthook
sys.excepthook = lambda *args: (say("top"), below(*args))
exits.release()
raise ValueError
"""
    assert run(tmp_path, program)[1] == [["top"], ["bottom"]]


# SIGTERM

TERM = "sigterm = Sigterm(lambda frame: say('signal', frame.f_lineno > 0), loop, {postpone})\nsigterm.install()\n"
KILL = "os.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.1)\nsay('goes on')\n"


def test_the_process_dies_of_the_signal_as_before(tmp_path):
    program = TERM.format(postpone=False) + "say(sigterm.is_last)\n" + KILL
    assert run(tmp_path, program)[:2] == (-signal.SIGTERM, [[True], ["signal", True]])


def test_a_handler_of_the_user_is_called_and_decides(tmp_path):
    program = "signal.signal(signal.SIGTERM, lambda number, frame: say('user', number, frame.f_lineno > 0))\n"
    program += TERM.format(postpone=False) + "say(sigterm.is_last)\n" + KILL + "say(sigterm.received)"
    said = [[False], ["signal", True], ["user", 15, True], ["goes on"], [True]]
    assert run(tmp_path, program)[:2] == (0, said)


def test_an_error_of_the_users_handler_goes_where_it_went(tmp_path):
    program = "def handler(number, frame):\n    raise SystemExit(9)\nsignal.signal(signal.SIGTERM, handler)\n"
    assert run(tmp_path, program + TERM.format(postpone=False) + KILL)[:2] == (9, [["signal", True]])


def test_an_ignored_signal_stays_ignored(tmp_path):
    program = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + TERM.format(postpone=False) + KILL
    assert run(tmp_path, program)[:2] == (0, [["signal", True], ["goes on"]])


@pytest.mark.parametrize(("before", "status"), [("SIG_DFL", -signal.SIGTERM), ("SIG_IGN", 0), ("bye", 9)])
def test_a_postponed_signal_arrives_with_the_release(before, status, tmp_path):
    program = "def bye(number, frame):\n    say('bye')\n    sys.exit(9)\n"
    program += f"signal.signal(signal.SIGTERM, {before if before == 'bye' else f'signal.{before}'})\n"
    program += TERM.format(postpone=True) + KILL + "sigterm.release()\nsay('released')\n"
    said = [["signal", True], ["goes on"], *{"SIG_DFL": [], "SIG_IGN": [["released"]], "bye": [["bye"]]}[before]]
    assert run(tmp_path, program)[:2] == (status, said)


def test_outside_of_the_main_thread_signals_are_left_alone(tmp_path):
    program = """
def train():
    sigterm = Sigterm(say, loop, True)
    sigterm.install()
    say(sigterm.active, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)
    sigterm.release()

thread = threading.Thread(target=train)
thread.start()
thread.join()
"""
    assert run(tmp_path, program)[:2] == (0, [[False, True]])


@pytest.mark.parametrize(("before", "ours"), [("default_int_handler", True), ("SIG_IGN", False), ("SIG_DFL", False)])
def test_ctrl_c_does_what_it_did_and_is_noted(before, ours, tmp_path):
    program = f"""
from trl_diagnostics.sinks.exits import SIGINT
signal.signal(signal.SIGINT, before := signal.{before})
a, b = [ExitHooks(ends, lambda: None, folder / name) for name in ("a.log", "b.log")]
for exits in (a, b):
    exits.install()
say(signal.getsignal(signal.SIGINT) is not before)
a.release(), a.release()
noted = SIGINT.last
try:
    if {ours}:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)
except KeyboardInterrupt:
    say("caught", SIGINT.last > noted)
b.release()
say(signal.getsignal(signal.SIGINT) is before)
"""
    assert run(tmp_path, program)[:2] == (0, [[ours], *([["caught", True]] if ours else []), [True]])


LOOP = """
from types import ModuleType
handler = ModuleType("transformers.trainer_callback")  # it stands between a training loop and its callbacks
exec("def call_callback(function, *args): return function(*args)", handler.__dict__)
handler = handler.call_callback

class Training:
    def __init__(self, name, postpone=True):
        self.name, self.postpone = name, postpone

    def begin(self, inside):
        self.loop = TrainingLoop(self)
        release_left(self.loop)
        self.sigterm = Sigterm(lambda frame: say(self.name, self.loop.is_running()), self.loop, self.postpone)
        self.sigterm.install()
        inside()

    def train(self, inside=lambda: None):
        handler(self.begin, inside)

def fails():
    raise RuntimeError

def caught(training, inside):
    try:
        training.train(inside)
    except RuntimeError:
        pass

def kill():
    os.kill(os.getpid(), signal.SIGTERM)

signal.signal(signal.SIGTERM, lambda *args: say("before"))
a, b = Training("a"), Training("b")
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("a.train(kill); a.sigterm.release()", [["a", True], ["before"]]),
        ("caught(a, fails); kill(); kill()", [["a", False], ["before"]] * 2),  # nobody had to release it
        ("caught(a, lambda: (kill(), fails())); say('caught'); b.train()", [["a", True], ["caught"], ["before"]]),
        ("caught(a, fails); b.train(kill); b.sigterm.release()", [["b", True], ["before"]]),
        ("caught(a, fails); (lambda: b.train(kill))(); b.sigterm.release()", [["b", True], ["before"]]),
        (
            "a.train(lambda: (b.train(kill), b.sigterm.release())); a.sigterm.release()",
            [["b", True], ["a", True], ["before"]],
        ),
        ("a.train(lambda: caught(b, fails)); kill()", [["b", False], ["a", False], ["before"]]),
    ],
    ids=["within", "after", "left waiting", "the next one", "the next one elsewhere", "inside", "left inside"],
)
def test_a_signal_is_postponed_while_its_loop_runs(program, expected, tmp_path):
    assert run(tmp_path, LOOP + program)[:2] == (0, expected)


# Forks, such as the workers of a data loader


@pytest.mark.parametrize(
    "end", ["raise ValueError", "sys.exit(4)", "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"]
)
def test_the_end_of_a_forked_worker_is_not_the_end_of_the_training(end, tmp_path):
    program = (
        HOOKED
        + TERM.format(postpone=True)
        + f"""
pid = os.fork()
if pid == 0:
    {end}
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
exits.release(), sigterm.release()
"""
    )
    status = {"r": 1, "s": 4, "o": -signal.SIGTERM}[end[0]]
    assert run(tmp_path, program)[:2] == (0, [[status]])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("torch_exits", [False, True])
def test_the_exception_of_a_worker_that_trains(method, torch_exits, tmp_path):
    program = f"""
import multiprocessing, sys
from pathlib import Path
from trl_diagnostics.sinks.exits import ExitHooks

def ends(error):
    with open({str(tmp_path / "said")!r}, "a") as file:
        file.write(f'["end", "{{error!r}}"]' + chr(10))

def work():
    exits = ExitHooks(lambda error: (ends(error), exits.release()), lambda: None, Path({str(tmp_path / "crash.log")!r}))
    exits.install()
    try:
        raise ValueError(1)
    except ValueError:
        if {torch_exits}:  # as torch.multiprocessing does, having sent the traceback to the process above
            sys.exit(1)
        raise

if __name__ == "__main__":
    worker = multiprocessing.get_context({method!r}).Process(target=work)
    worker.start()
    worker.join()
    sys.exit(worker.exitcode)
"""
    file = tmp_path / "program.py"
    file.write_text(program)
    status = subprocess.run([sys.executable, str(file)], capture_output=True, timeout=240).returncode
    assert (status, (tmp_path / "said").read_text()) == (1, '["end", "ValueError(1)"]\n')


# Crashes in native code

CRASH = "import ctypes\nctypes.string_at(0)"


def test_a_crash_leaves_the_stacks(tmp_path):
    status, said, _ = run(tmp_path, HOOKED + CRASH)
    assert (status, said) == (-signal.SIGSEGV, [])
    assert (tmp_path / "crash.log").read_text().startswith("Fatal Python error: Segmentation fault\n")


def test_a_faulthandler_of_the_user_stays_where_it_is(tmp_path):
    status, _, error = run(tmp_path, "faulthandler.enable()\n" + HOOKED + CRASH)
    assert status == -signal.SIGSEGV and "Fatal Python error: Segmentation fault" in error
    assert not (tmp_path / "crash.log").exists()
    assert run(tmp_path, "faulthandler.enable()\n" + HOOKED + "exits.release()\nsay(faulthandler.is_enabled())")[
        1
    ] == [[True]]


@pytest.mark.parametrize("handler", ["of the user", "ours"])
def test_the_crash_of_a_forked_process_is_not_that_of_the_training(handler, tmp_path):
    program = ("faulthandler.enable()\n" if handler == "of the user" else "") + HOOKED
    program += f"""
pid = os.fork()
if pid == 0:
    {CRASH.replace(chr(10), "; ")}
say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), faulthandler.is_enabled())
if crash_log.exists():
    say(crash_log.read_text())
exits.release()
"""
    status, said, error = run(tmp_path, program)
    assert (status, said[0]) == (0, [-signal.SIGSEGV, True])
    if handler == "ours":
        assert said[1:] == [[""]]
    else:
        assert said[1:] == [] and "Segmentation fault" in error


def test_the_crash_of_a_forked_process_that_trains_itself_is_its_own(tmp_path):
    program = f"""{HOOKED}
pid = os.fork()
if pid == 0:
    ExitHooks(ends, lambda: None, folder / "own.log").install()
    {CRASH.replace(chr(10), "; ")}
os.waitpid(pid, 0)
exits.release()
"""
    assert run(tmp_path, program)[:2] == (0, [])
    assert (tmp_path / "own.log").read_text().startswith("Fatal Python error: Segmentation fault\n")
    assert not (tmp_path / "crash.log").exists()


# Notebooks

NOTEBOOK = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.user_ns |= globals()
for cell in {cells!r}:
    shell.run_cell(cell)
    say("cell")
say(len(shell.events.callbacks["post_run_cell"]))
"""
START = "exits = ExitHooks(lambda error: (ends(error), exits.release()), lambda: None, crash_log); exits.install()"


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([START + "\n1 / 0", "2"], [["end", "ZeroDivisionError('division by zero')"], ["cell"], ["cell"], [0]]),
        ([START + "\nraise KeyboardInterrupt", "2"], [["end", "KeyboardInterrupt()"], ["cell"], ["cell"], [0]]),
        ([START + "\ntry:\n    1 / 0\nexcept ValueError.__mro__[1]:\n    pass"], [["end", None], ["cell"], [0]]),
        ([START + "\nexits.release()", "1 / 0"], [["cell"], ["cell"], [0]]),
        (
            [
                "thread = threading.Thread(target=lambda: exec(START, globals()))",
                "thread.start(); thread.join()",
                "1 / 0",
                "exits.release()",
            ],
            None,
        ),
    ],
    ids=["exception", "interrupt", "caught", "ended", "in another thread"],
)
def test_a_cell_that_ends_is_the_end_of_its_training(cells, said, tmp_path):
    _, heard, _ = run(tmp_path, f"START = {START!r}\n" + NOTEBOOK.format(cells=cells))
    assert heard == (said or [["cell"]] * 4 + [[0]])
