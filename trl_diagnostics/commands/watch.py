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

"""Arguments of `watch` go in; a run that is being trained is shown in the terminal, again and again, until it ends."""

import argparse
import time
from collections import Counter
from pathlib import Path

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from ..ending import how_it_ended
from ..engine.engine import ACTIVE, WARMING_UP
from ..engine.finding import DiagnosticsError, Finding, Severity
from ..explain import wrapped
from ..follower import Follower
from ..sinks.console import problems, resolved, warning
from ..sinks.curves import Curve
from ..sinks.report_text import KEY_METRICS, state
from ..sources.run_files import RUN_DIRECTORY
from ..words import count, duration, number
from .arguments import release_named, trainer_named
from .terminal import colored, show, table, terminal, width


BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
HOLE = "!"  # a place without a finite number
MOST_METRICS = 8
BUSY = 10  # times as long as reading takes is waited, so that a long log does not cost a core
HINT = "Ctrl-C ends this view, not the run."
LONGEST = 60.0  # seconds between two looks for that reason
GOES_ON = ("unfinished", "hang")  # a hang may end


def run(args: argparse.Namespace) -> int:
    """Show a run until it ends, or once."""
    path = Path(args.path)
    if not path.exists() and not path.parent.is_file():  # a run in a database is behind its file
        raise DiagnosticsError(f"{path}: no such file or folder")
    if args.interval <= 0:
        raise DiagnosticsError(f"--interval: expected seconds above 0, found {args.interval:g}")
    trainer, release = trainer_named(args.trainer), release_named(args.trl_version)
    follower = Follower(path, trainer, release)
    if args.once:
        follower.look()
        if follower.run is None:
            raise DiagnosticsError(follower.waiting_for)
        show(view(follower, _ending(follower)))
        return 0
    (_live if terminal().is_terminal else _lines)(follower, args.interval)
    return 0


def _live(follower: Follower, interval: float) -> None:
    with Live(view(follower, None, HINT), console=terminal(), auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            pause = _look(follower, interval)[1]
            ending = _ending(follower)
            ended = _has_ended(follower, ending)
            live.update(view(follower, ending, "" if ended else HINT), refresh=True)
            if ended:
                return
            time.sleep(pause)


def _lines(follower: Follower, interval: float) -> None:
    """For a file or a pipe: what is waited for, where the run is, and then each finding once, as it comes."""
    told: set[tuple] = set()
    before = ""
    while True:
        found, pause = _look(follower, interval)
        ending = _ending(follower)
        now = _waiting(follower) if follower.run is None else f"Watching {follower.run.path} ({follower.run.trainer})."
        if now != before and (ending is None or ending[0] in GOES_ON):
            print(now, flush=True)
        before = now
        for finding in found:
            key = (finding.rule, finding.metric, finding.state, finding.first_step)
            if key not in told and finding.level > Severity.INFO:
                print(warning(finding) if finding.state == "started" else resolved(finding), flush=True)
            told.add(key)
        if _has_ended(follower, ending):
            show(view(follower, ending))
            return
        time.sleep(pause)


def _look(follower: Follower, interval: float) -> tuple[list[Finding], float]:
    is_first, began = follower.run is None, time.process_time()
    found = follower.look()
    took = 0.0 if is_first else time.process_time() - began  # the rules are read once
    return found, max(interval, min(BUSY * took, LONGEST))


def _ending(follower: Follower) -> tuple[str, str] | None:
    """How a run goes on or ended: by its run directory, see [`how_it_ended`], or by its last log."""
    if follower.run is None or follower.run.kind != RUN_DIRECTORY:
        is_over = follower.last is not None and follower.last.phase == "summary"
        return ("completed", "Training reached its end: the last log is the Trainer's summary.") if is_over else None
    return how_it_ended(follower.run.path)


def _has_ended(follower: Follower, ending: tuple[str, str] | None) -> bool:
    if ending is None or ending[0] in GOES_ON:
        return False
    follower.look()  # what was written between the last look and the end
    return True


def view(follower: Follower, ending: tuple[str, str] | None, hint: str = "") -> RenderableType:
    """Everything on one screen: where the run is, its metrics, what is wrong with it, and how this view ends."""
    if follower.run is None:
        return colored(_waiting(follower))
    parts = [colored(line) for line in _head(follower, ending)]
    metrics = _metrics(follower)
    parts += [Text(), table(["metric", "last", "", "lowest", "highest"], metrics, ["last", "lowest", "highest"])]
    room = terminal().height - len(parts) - len(metrics) - 4
    problems = map(colored, _problems(follower, max(room, 6)))
    return Group(*parts, Text(), *problems, *([Text(hint, "dim")] if hint else []))


def _waiting(follower: Follower) -> str:
    doing = f"waiting for the first log. {follower.waiting_for}" if follower.waiting_for else "reading ..."
    return wrapped(f"{follower.path}: {doing}", "", "  ")


def _head(follower: Follower, ending: tuple[str, str] | None) -> list[str]:
    run, last = follower.run, follower.last
    version = f", TRL {run.trl_version}" if run.trl_version else ""
    lines = [wrapped(f"{_verdict(follower, ending)}  {run.path} ({run.trainer}{version})", "", "  ")]
    if last is None:
        return [*lines, "No log yet."]
    return [
        *lines,
        wrapped(", ".join(_progress(follower, ending)), "", "  "),
        wrapped(_state(follower, ending), "", "  "),
    ]


def _verdict(follower: Follower, ending: tuple[str, str] | None) -> str:
    open_now = follower.replay.engine.open_episodes()
    going_on = [finding for finding in follower.findings if (finding.rule, finding.metric) in open_now]
    return f"[{state(going_on, follower.replay.engine.coverage(), ending[0] if ending else '').upper()}]"


def _progress(follower: Follower, ending: tuple[str, str] | None) -> list[str]:
    step, most, speed = follower.last.step, follower.run.config.get("max_steps"), follower.steps_per_second()
    known = isinstance(most, int) and most > step
    said = [f"step {step:,} of {most:,} ({step / most:.0%})" if known else f"step {step:,}"]
    said += [count(follower.replay.engine.records, "log")]
    if speed:
        said.append(f"{speed:.2f} steps/s" if speed >= 0.1 else f"{1 / speed:.0f} s per step")
        goes_on = (ending is None or ending[0] == "unfinished") and not follower.is_late()
        said += [f"{duration((most - step) / speed)} left"] if known and goes_on else []
    return said


def _state(follower: Follower, ending: tuple[str, str] | None) -> str:
    ago = f"The last log came {duration(time.time() - follower.last_time())} ago."
    return f"{ending[1]} {ago}" if ending else ago


def _metrics(follower: Follower) -> list[list[str | Text]]:
    names = [metric for metric in KEY_METRICS if metric in follower.curves][:MOST_METRICS]
    space = max(8, min(48, width() - max(map(len, names), default=0) - 36))
    rows = []
    for metric in names:
        curve = follower.curves[metric]
        lowest = (number(value) if curve.count > curve.nonfinite else "-" for value in (curve.low, curve.high))
        rows.append([metric, number(follower.values[metric]), sparkline(curve, space, _can_draw()), *lowest])
    return rows


def _can_draw() -> bool:
    try:
        BLOCKS.encode(terminal().encoding)
    except UnicodeEncodeError:
        return False
    return True


def sparkline(curve: Curve, space: int, blocks: bool = True) -> str:
    """
    A curve in one line.

    Args:
        curve ([`Curve`]):
            Metric.
        space (`int`):
            Columns.
        blocks (`bool`, *optional*, defaults to `True`):
            Whether the terminal can show block characters.

    Returns:
        `str`: one character for each stretch of the curve, the mean of its points; `!` where none of them is finite.
    """
    points = [y for _, y in curve.points()]
    columns = min(space, len(points))
    parts = [points[i * len(points) // columns : (i + 1) * len(points) // columns] for i in range(columns)]
    means = [_mean([y for y in part if y == y]) for part in parts]
    finite = [mean for mean in means if mean is not None]
    low, high, levels = min(finite, default=0.0), max(finite, default=0.0), BLOCKS if blocks else ASCII
    size = (high / 2 - low / 2) or 1.0  # halves, for the largest numbers have no difference
    places = [None if mean is None else int((mean / 2 - low / 2) / size * len(levels)) for mean in means]
    return "".join(HOLE if place is None else levels[min(place, len(levels) - 1)] for place in places)


def _mean(values: list[float]) -> float | None:
    return sum(value / len(values) for value in values) if values else None


def _problems(follower: Follower, room: int) -> list[str]:
    """What is wrong, the cause first and with what to do; what is over after what goes on."""
    shown = problems(follower.findings)
    open_now = follower.replay.engine.open_episodes()
    lines = []
    for i, same in enumerate(sorted(shown, key=lambda same: (same[0].rule, same[0].metric) not in open_now)):
        said = _problem(same, (same[0].rule, same[0].metric) in open_now, i == 0)
        if lines and len(lines) + len(said) >= room:
            lines.append(f"... and {len(shown) - i} more: trl-diagnostics diagnose {follower.path}")
            break
        lines += said
    many = Counter(follower.replay.engine.coverage().values())
    rules = f"{many[ACTIVE]} rules active, {many[WARMING_UP]} with too few logs"
    return [*(lines or ["No findings."]), f"{rules}."]


def _problem(same: list[Finding], goes_on: bool, is_first: bool) -> list[str]:
    finding, first = same[0], min(one.first_step for one in same)
    since = f"since step {first}" if goes_on else "is over"
    said = f"[{finding.severity.upper()}] {finding.rule} {since}: {finding.message}"
    fix = wrapped(f"Fix: {finding.fix}", "       ").splitlines() if is_first and finding.fix else []
    return wrapped(said, "", "       ").splitlines() + fix
