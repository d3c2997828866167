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

"""One real training, kept in every format at once: each reader tells the same of it."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from trl_diagnostics.sources.find import find_runs
from trl_diagnostics.sources.logs import open_run


pytestmark = pytest.mark.slow
TRACKERS = [name for name in ("tensorboard", "trackio") if find_spec(name)]
TRAINING = """
import sys
import tiny
from trl_diagnostics import DiagnosticsCallback

trainer = tiny.make_trainer(
    "dpo", "out", [DiagnosticsCallback()], max_steps=12, logging_steps=2, disable_tqdm=False, report_to=sys.argv[1:],
    save_strategy="steps", save_steps=6, eval_strategy="steps", eval_steps=6,
    eval_dataset=tiny.preference_dataset(8, seed=1), run_name="mine", project="project",
)
trainer.train()
trainer.save_state()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    scripts = Path(__file__).resolve().parents[1] / "scripts"
    environment = {
        **os.environ,
        "PYTHONPATH": str(scripts),
        "TRACKIO_DIR": str(folder / "trackio"),
        "PYTHONUNBUFFERED": "1",
    }
    with (folder / "train.log").open("wb") as printed:
        command = [sys.executable, "-c", TRAINING, *TRACKERS]
        subprocess.run(command, cwd=folder, env=environment, stdout=printed, stderr=printed, check=True, timeout=600)
    return folder


def told(run) -> tuple[list, list]:
    """Step and phase of each record, and a few of their numbers."""
    kept = ("loss", "reward_margin", "eval_loss", "eval_win_rate")
    records = [record for record in run.records() if record.phase in ("train", "eval")]
    numbers = [record.metrics[name] for record in records for name in kept if name in record.metrics]
    return [(record.step, record.phase) for record in records], numbers


def test_every_format_tells_the_same(folder):
    steps, numbers = told(open_run(folder / "out" / "trainer_state.json"))
    assert [step for step, phase in steps if phase == "train"] == [2, 4, 6, 8, 10, 12]
    assert [step for step, phase in steps if phase == "eval"] == [6, 12]
    assert len(numbers) == 2 * len(steps)
    recorded = [folder / "out", folder / "train.log", *folder.glob("out/runs/*"), *folder.glob("trackio/*.db")]
    runs = {run.kind: run for run in map(open_run, recorded)}
    for kind, run in runs.items():
        assert (kind, run.trainer, run.config["max_steps"], run.config["logging_steps"]) == (kind, "dpo", 12, 2)
        assert (kind, told(run)[0]) == (kind, steps)
        assert told(run)[1] == pytest.approx(numbers, rel=1e-3)  # a printed log has four digits
        assert run.confidence > 0.9
    kept = {"tensorboard": "TensorBoard", "trackio": "trackio"}
    assert set(runs) == {"run directory", "console log", *(kept[name] for name in TRACKERS)}
    times = [record.time for record in runs["run directory"].records()]
    assert times == sorted(times) and times[0] > 1e9


def test_every_run_is_found_once(folder):
    found = [path.relative_to(folder).as_posix() for path in find_runs(folder)]
    assert found == ["out/diagnostics", *(["trackio/project.db/mine"] if "trackio" in TRACKERS else []), "train.log"]


def test_a_checkpoint_ends_where_it_was_saved(folder):
    run = open_run(folder / "out" / "checkpoint-6")
    assert (run.kind, run.trainer_how) == ("trainer_state.json", "the model card beside it says DPO")
    assert [record.step for record in run.records()] == [2, 4, 6, 6] or [r.step for r in run.records()] == [2, 4, 6]
