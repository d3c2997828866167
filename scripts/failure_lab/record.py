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

"""Recipes go in, their runs are trained in parallel, and one labelled file per run comes out; what is there is skipped."""

import argparse
import fnmatch
import gc
import importlib.metadata
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parents[1]))  # as a script, this finds only what is beside it

import datasets
import tiny
import torch
import transformers
from transformers import TrainerControl, TrainerState

from failure_lab import corpus
from failure_lab.recipe import Recipe, label_of
from failure_lab.table import RECIPES, as_text
from trl_diagnostics import DiagnosticsCallback, Record


TRL_WITH_PPO = Path(os.environ.get("TRL_WITH_PPO", Path(sys.prefix) / "trl-1.12.0"))
PLACES = ("output_dir", "logging_dir", "run_name")  # of this machine, of no use to a rule


@dataclass(frozen=True)
class Outcome:
    """How a run went: number of records, seconds, and the error that ended it, if any."""

    records: int
    seconds: float
    error: str | None


def path_of(recipe: Recipe, seed: int, folder: Path) -> Path:
    """File of one run."""
    return folder / f"{recipe.name}__{seed}{corpus.SUFFIX}"


def _config(callback: DiagnosticsCallback) -> dict:
    """Training arguments that differ from the defaults, which the engine knows by the release."""
    defaults, config = callback.metric_map.defaults, callback.engine.config
    return {key: value for key, value in config.items() if key not in PLACES and defaults.get(key) != value}


def train(recipe: Recipe, seed: int, folder: str, callback: DiagnosticsCallback) -> None:
    """Train one recipe into a folder, watched by a callback."""
    breaking = [make() for make in recipe.callbacks]
    trainer = tiny.make_trainer(recipe.trainer, folder, [callback, *breaking], **recipe.arguments(seed))
    if recipe.prepare:
        recipe.prepare(trainer)
    trainer.train()


def _replay(recipe: Recipe, seed: int, folder: str, callback: DiagnosticsCallback) -> None:
    import trl  # only now: the path may have changed which release it is

    config_class = {"grpo": trl.GRPOConfig, "sft": trl.SFTConfig}[recipe.trainer]
    constant = {"lr_scheduler_type": "constant"}  # as in the logs
    args = config_class(folder, **tiny.COMMON | constant | recipe.arguments(seed))
    state, control = TrainerState(max_steps=recipe.steps, logging_steps=args.logging_steps), TrainerControl()
    callback.on_train_begin(args, state, control)
    for state.global_step, log in enumerate(recipe.replay(seed), 1):
        callback.on_log(args, state, control, log)
    callback.on_train_end(args, state, control)


def record_run(recipe: Recipe, seed: int, folder: Path, max_steps: int | None = None) -> Outcome:
    """
    Train one recipe and write its file.

    Args:
        recipe ([`Recipe`]):
            What to train.
        seed (`int`):
            Seed of data, weights and sampling.
        folder (`Path`):
            Where the file goes.
        max_steps (`int`, *optional*):
            Fewer steps, to try it out.

    Returns:
        [`Outcome`]: a run that ends with an error is written too, for that is how some faults end.

    Raises:
        `Exception`: of the trainer, if nothing was logged: then the recipe itself is wrong. `RuntimeError` if a part of
            the callback was switched off.
    """
    # no rule runs: the corpus holds what rules are judged by later
    callback, error, start = DiagnosticsCallback(disable=["*"], enable_live_warnings=False), None, time.time()
    if max_steps:
        recipe = Recipe(**{**vars(recipe), "overrides": {**recipe.overrides, "max_steps": max_steps}})
    with tempfile.TemporaryDirectory() as scratch:
        try:
            (_replay if recipe.replay else train)(recipe, seed, scratch, callback)
        except Exception as caught:
            # what is found before the first step may say why there was none
            if callback.engine is None or (recipe.onset > 0 and not callback.engine.records):
                raise
            error = f"{type(caught).__name__}: {caught}"[:200]
        if callback.broken:
            raise RuntimeError(f"the recorder broke: {callback.broken}")
        lines = (Path(scratch) / "diagnostics" / "metrics.jsonl").read_text().splitlines()
        records = [Record.from_json(json.loads(line)) for line in lines]
    seconds = time.time() - start
    trl = {"trainer": callback.metric_map.trainer, "trl_version": importlib.metadata.version("trl")}
    label = label_of(recipe, seed) | trl | {"config": _config(callback), "error": error, "seconds": round(seconds, 1)}
    corpus.write_run(path_of(recipe, seed, folder), label, records)
    return Outcome(len(records), seconds, error)


def be_quiet() -> None:
    """The libraries keep their progress bars and warnings to themselves, and so do we."""
    warnings.filterwarnings("ignore")
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.CRITICAL)


def start(trl_path: Path | None) -> None:
    """In a new process: TRL is not imported yet, so this decides which release it is."""
    if trl_path:
        sys.path.insert(0, str(trl_path))
    torch.set_num_threads(1)
    be_quiet()
    gc.freeze()  # PPO collects garbage several times a step; the imported libraries need not be walked each time


def _job(name: str, seed: int, folder: Path, max_steps: int | None) -> Outcome:
    return record_run(RECIPES[name], seed, folder, max_steps)


Run = tuple[Recipe, int]


def _in_parallel(
    runs: list[Run], arguments: argparse.Namespace, trl_path: Path | None
) -> Iterator[tuple[Run, Future]]:
    """Each run with its result as it is done; the runs share processes, since importing takes longer than training."""
    with ProcessPoolExecutor(
        arguments.processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start,
        initargs=(trl_path,),
    ) as pool:
        futures = {
            pool.submit(_job, recipe.name, seed, arguments.folder, arguments.max_steps): (recipe, seed)
            for recipe, seed in runs
        }
        for future in as_completed(futures):
            yield futures[future], future


def _tell(run: Run, future: Future) -> bool:
    name = f"{run[0].name} seed {run[1]}"
    if broken := future.exception():
        print(f"{name}: NOT RECORDED, {type(broken).__name__}: {broken}", flush=True)
        return False
    done = future.result()
    ended = f"; it ended with {done.error}" if done.error else ""
    print(f"{name}: {done.records} records, {done.seconds:.1f} s{ended}", flush=True)
    return True


def record_all(runs: list[Run], arguments: argparse.Namespace) -> int:
    """Record all runs; the number of those that could not be."""
    arguments.folder.mkdir(parents=True, exist_ok=True)
    missing = [run for run in runs if not path_of(*run, arguments.folder).exists()]
    print(f"{len(missing)} of {len(runs)} runs to record into {arguments.folder}", flush=True)
    missing.sort(key=lambda run: -run[0].steps)  # the long ones first: no process waits at the end
    newest = [run for run in missing if run[0].trainer != "ppo"]
    ppo = [run for run in missing if run[0].trainer == "ppo"]
    if ppo and not TRL_WITH_PPO.is_dir():
        sys.exit(f"PPO needs TRL 1.12.0 in {TRL_WITH_PPO}: run `make setup`, or set TRL_WITH_PPO to its folder")
    failed = 0
    for part, trl_path in ((newest, None), (ppo, TRL_WITH_PPO)):
        if part:
            failed += sum(not _tell(run, future) for run, future in _in_parallel(part, arguments, trl_path))
    size = sum(file.stat().st_size for file in arguments.folder.glob(f"*{corpus.SUFFIX}"))
    print(f"{len(missing) - failed} runs recorded, {failed} could not be; {size / 1e3:,.0f} kB in {arguments.folder}")
    return failed


def relabel(runs: list[Run], folder: Path) -> None:
    """Write the labels of recorded runs anew, after a change of the table; the records stay."""
    for recipe, seed in runs:
        path = path_of(recipe, seed, folder)
        if path.exists():
            label, records = corpus.read_run(path)
            corpus.write_run(path, label | label_of(recipe, seed), records)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the table of runs and stop")
    parser.add_argument("--relabel", action="store_true", help="only write the labels of what is recorded anew")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of runs, for example 'nan_*' or '*__dpo*'")
    parser.add_argument(
        "--seeds", type=int, nargs="+", metavar="SEED", help="default: two of a fault, eight of health"
    )
    parser.add_argument("--max-steps", type=int, help="cut each run short, to try it out")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=corpus.FOLDER)
    return parser.parse_args()


def main() -> int:
    """Record what the command line says."""
    arguments = _arguments()
    chosen = [recipe for recipe in RECIPES.values() if fnmatch.fnmatchcase(recipe.name, arguments.only)]
    runs = [(recipe, seed) for recipe in chosen for seed in arguments.seeds or recipe.all_seeds]
    if not runs:
        sys.exit(f"no run is called {arguments.only}; --list shows all names")
    if arguments.list:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
        print(as_text(chosen))
    elif arguments.relabel:
        relabel(runs, arguments.folder)
    else:
        return int(record_all(runs, arguments) > 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
