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

"""Healthy recipes are trained with all probes and `stop_on_critical=True`; what was said and what was stopped comes out."""

import argparse
import fnmatch
import multiprocessing
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, this finds only what is beside it

from failure_lab.recipe import Recipe
from failure_lab.record import TRL_WITH_PPO, start, train
from failure_lab.table import RECIPES
from trl_diagnostics import DiagnosticsCallback
from trl_diagnostics.engine.finding import Finding, Severity


@dataclass(frozen=True)
class Watched:
    """
    What was said about one training.

    Args:
        findings (`list[Finding]`):
            Above info, as they started.
        stopped_by (`str`, *optional*):
            Rule that ended the training.
        broken (`dict[str, str]`):
            Part of the diagnostics to its error.
    """

    findings: list[Finding]
    stopped_by: str | None
    broken: dict[str, str]


def watch(name: str, seed: int, max_steps: int | None = None) -> Watched:
    """Train one recipe as a user would who wants it to stop by itself."""
    recipe = RECIPES[name]
    if max_steps:
        recipe = Recipe(**{**vars(recipe), "overrides": {**recipe.overrides, "max_steps": max_steps}})
    callback = DiagnosticsCallback(stop_on_critical=True, enable_live_warnings=False)
    with tempfile.TemporaryDirectory() as scratch:
        train(recipe, seed, scratch, callback)
    loud = [one for one in callback.findings if one.state == "started" and one.level > Severity.INFO]
    because = callback.stop.because
    return Watched(loud, because and because.rule, dict(callback.broken))


Result = tuple[str, Watched | Exception]


def watch_all(recipes: list[Recipe], arguments: argparse.Namespace) -> Iterator[Result]:
    """Each recipe's name with what was said about its first seed, or the error that ended it, as it is done."""
    for ppo in (False, True):
        mine = sorted((one for one in recipes if (one.trainer == "ppo") is ppo), key=lambda one: -one.steps)
        if not mine:
            continue
        with ProcessPoolExecutor(
            arguments.processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=start,
            initargs=(TRL_WITH_PPO if ppo else None,),
        ) as pool:
            jobs = {pool.submit(watch, one.name, one.all_seeds[0], arguments.max_steps): one.name for one in mine}
            for job in as_completed(jobs):
                yield jobs[job], job.exception() or job.result()


def as_text(name: str, watched: Watched) -> str:
    """One line about a training, and one more per finding."""
    end = f"STOPPED by {watched.stopped_by}" if watched.stopped_by else "to its end"
    broken = "".join(f"\n    BROKEN {part}: {error}" for part, error in watched.broken.items())
    said = "".join(f"\n    {one.severity} {one.rule} at step {one.step}: {one.message}" for one in watched.findings)
    return f"{name}: {end}{said}{broken}"


def summary(all_watched: list[Watched]) -> str:
    """Counts of stops and warnings, and of each rule that said something."""
    rules = Counter(f"{one.rule} ({one.severity})" for watched in all_watched for one in watched.findings)
    stops = sum(watched.stopped_by is not None for watched in all_watched)
    warned = sum(any(one.level >= Severity.MEDIUM for one in watched.findings) for watched in all_watched)
    lines = [f"{len(all_watched)} healthy trainings: {stops} stopped, {warned} with a warning; findings by rule:"]
    return "\n".join([*lines, *(f"{count:5} {rule}" for rule, count in rules.most_common())])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of runs, for example '*__dpo*'")
    parser.add_argument("--max-steps", type=int, help="cut each run short, to try it out")
    parser.add_argument("--processes", type=int, default=2)
    return parser.parse_args()


def main() -> int:
    """Train all that the command line names; 1 if one was stopped or could not be trained."""
    arguments = _arguments()
    healthy = [one for one in RECIPES.values() if not one.fault and not one.replay]
    healthy = [one for one in healthy if fnmatch.fnmatchcase(one.name, arguments.only)]
    all_watched, failed = [], 0
    for name, outcome in watch_all(healthy, arguments):
        if isinstance(outcome, Exception):
            failed += 1
            print(f"{name}: NOT TRAINED, {type(outcome).__name__}: {outcome}", flush=True)
            continue
        all_watched.append(outcome)
        print(as_text(name, outcome), flush=True)
    print(summary(all_watched))
    return int(failed > 0 or any(one.stopped_by for one in all_watched))


if __name__ == "__main__":
    sys.exit(main())
