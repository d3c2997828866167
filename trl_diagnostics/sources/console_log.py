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

"""What a training printed goes in (dictionaries between progress bars, warnings and colours), its `Log` comes out."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from .rows import Log, loads, to_rows


COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
# A printed dictionary without others inside; a bar of tqdm without a description, `3%|▎         | 10/300 [00:01<`.
SHOWN = re.compile(r"(?P<logs>\{[^{}]*\})|(?:^|[\r\n])[ \t]*\d+%\|[^|]*\|\s*(?P<at>\d{1,12})/(?P<total>\d{1,12}) \[")
PAIR = re.compile(
    r"""\s*(?P<quote>['"])(?P<key>[^'"]+)(?P=quote)\s*:\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)"|"""
    r"""[\w.]+\((?P<inside>[^,()\s]*)[^()]*\)|(?P<list>\[[^\[\]]*\])|(?P<plain>[^,\s'"()\[\]{}]+))\s*[,}]"""
)
OF_TRAINING = {"loss", "epoch", "train/loss", "train/epoch"}  # every printed log has one; other dictionaries rarely do


def printed(text: str) -> dict[str, Any] | None:
    """
    A dictionary as Python prints it, such as `{'loss': nan, 'epoch': '0.1', 'kl': tensor(0.5)}`. It is never evaluated.

    Returns:
        `dict[str, Any]` or `None`: texts by name; `None` for anything that is no log of a training.
    """
    found, at = {}, 1
    while pair := PAIR.match(text, at):
        at = pair.end()
        value = next((pair[name] for name in ("single", "double", "inside", "plain") if pair[name] is not None), "")
        found[pair["key"]] = None if value == "None" else value
    return found if at >= len(text) and not OF_TRAINING.isdisjoint(found) else None


def unwrapped(line: str) -> str:
    """The text in a line of Kaggle's log, which is a list of JSON objects; any other line as it is."""
    if '"stream_name"' not in line:
        return line
    try:
        chunks = loads(f"[{line.strip().strip('[,]')}]")
    except ValueError:
        return line
    return "".join(f"{chunk.get('data', '')}\n" for chunk in chunks if isinstance(chunk, dict))


def events(texts: Iterator[str]) -> Iterator[dict[str, Any] | tuple[int, int]]:
    """Printed logs, and the positions of progress bars as step and total, in order."""
    for line in texts:
        if "{" not in line and "%|" not in line:
            continue
        for shown in SHOWN.finditer(COLOUR.sub("", unwrapped(line))):
            if shown["logs"] is None:
                yield int(shown["at"]), int(shown["total"])
            elif logs := printed(shown["logs"]):
                yield logs


def read_console(texts: Callable[[], Iterator[str]], name: str) -> Log:
    """
    The logs in a printed text.

    Args:
        texts (`Callable[[], Iterator[str]]`):
            Starts reading its lines.
        name (`str`):
            Name of the file, for notes.
    """
    steps, total, how = _steps(events(texts()))
    log = Log("console log", lambda: to_rows(_with_steps(events(texts()), steps)))
    if total:
        log.config["max_steps"] = total
    if how:
        log.notes[f"{name}: {how}"] = None
    return log


def _steps(found: Iterator[dict[str, Any] | tuple[int, int]]) -> tuple[list[int] | None, int, str]:
    """
    Step of each log of training (`None` where the logs say it), the length of the run, and a note. The bar is drawn
    again after each log with the step it has then; where text and bars went different ways before they met in one file,
    the steps are spread evenly.
    """
    total = last = logs = 0
    after: list[int] = []  # the bar's step that follows each log
    stated = finished = False
    for one in found:
        if isinstance(one, dict):
            logs += _is_train(one)
            stated |= "step" in one
            finished |= "train_runtime" in one
        elif not total or one[1] == total:  # the first bar is that of training, others are of evaluation
            last, total = max(last, one[0]), one[1]
            after += [one[0]] * (logs - len(after))
    end = total if finished else last
    after += [end] * (logs - len(after))
    if stated:
        return None, total, ""
    if all(step < later for step, later in zip([0, *after], after, strict=False)):
        return after, total, ""
    apart = max(1, end // logs)
    how = "steps told from the progress bar, evenly" if end else "no steps in it, so the logs are counted"
    return [(i + 1) * apart for i in range(logs)], total, how


def _is_train(logs: dict[str, Any]) -> bool:
    return "train_runtime" not in logs and not any(key.startswith(("eval_", "eval/")) for key in logs)


def _with_steps(
    found: Iterator[dict[str, Any] | tuple[int, int]], steps: list[int] | None
) -> Iterator[dict[str, Any]]:
    step, following = 0, iter(steps or ())
    for one in found:
        if isinstance(one, dict):
            step = next(following, step) if _is_train(one) else step
            yield one if steps is None else {"step": step, **one}
