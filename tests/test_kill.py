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

"""Real training processes die in every way, and their run directories say how."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kill_lab
import pytest

from trl_diagnostics.ending import read_postmortem


pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parents[1] / "scripts"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([str(SCRIPTS), *sys.path])}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """One death of each kind at a random moment; `scripts/kill_lab.py` does the same as often as one likes."""
    file = tmp_path_factory.mktemp("lab") / "outcomes.json"
    command = [sys.executable, str(SCRIPTS / "kill_lab.py"), "--times", "1", "--json", str(file)]
    done = subprocess.run([*command, "--seed", str(time.time_ns())], env=ENVIRONMENT, capture_output=True, text=True)
    assert file.exists(), done.stderr
    return {outcome["name"]: outcome for outcome in json.loads(file.read_text())}


@pytest.mark.parametrize("name", kill_lab.DEATHS)
def test_the_run_directory_says_how_the_process_died(name, outcomes):
    assert outcomes[name]["wrong"] == []
    assert outcomes[name]["reason"] == kill_lab.DEATHS[name].reason
    assert outcomes[name]["records"] >= ("start" not in name) and outcomes[name]["missing"] <= 1


# What needs a process of its own kind

SCRIPT = """
import signal, sys, time
import tiny
from trl_diagnostics import DiagnosticsCallback

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
callback = DiagnosticsCallback(hang_timeout=3.0)
trainer = tiny.make_trainer("sft", sys.argv[1], [callback], max_steps=100_000, **{overrides})
"""


def program(folder, body, **overrides):
    folder.mkdir(exist_ok=True)
    file = folder / "program.py"
    file.write_text(SCRIPT.format(overrides=overrides) + body)
    return [sys.executable, "-W", "ignore", str(file), str(folder)]


def wait_for_logs(process, folder, count=3):
    file, until = folder / "diagnostics" / "metrics.jsonl", time.monotonic() + 240
    while not file.exists() or file.read_text().count("\n") < count:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def test_a_cell_of_a_notebook_that_fails(tmp_path):
    body = """
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
shell.user_ns |= {"trainer": trainer, "tiny": tiny}


class Raises(tiny.TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            raise ValueError("in a cell")


trainer.add_callback(Raises())
shell.run_cell("trainer.train()")
print((callback.files.path / "postmortem.json").exists(), flush=True)  # at once, not only when the kernel ends
shell.run_cell("1 + 1")
"""
    done = subprocess.run(program(tmp_path, body), env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "True" in done.stdout.splitlines()
    found = read_postmortem(tmp_path / "diagnostics")
    assert (found["exit_reason"], found["last_step"], found["what"]) == ("exception", 3, "ValueError: in a cell")
    assert "in on_step_end\n" in found["traceback"]


def test_workers_of_a_data_loader_do_not_speak_for_the_training(tmp_path):
    """They are forked, with our hooks in them, and ended by SIGTERM; a stuck one is the training's hang."""
    body = """
import os
from pathlib import Path


class Rows:
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        if (Path(sys.argv[1]) / "stuck").exists():
            time.sleep(3600)
        return self.rows[i]


from torch.utils.data import DataLoader

collate = trainer.data_collator
trainer.get_train_dataloader = lambda: DataLoader(Rows(trainer.train_dataset), 8, collate_fn=collate, num_workers=2)
trainer.train()
"""
    with open(tmp_path / "output", "w") as output:
        process = subprocess.Popen(program(tmp_path, body, num_train_epochs=9), env=ENVIRONMENT, stderr=output)
    wait_for_logs(process, tmp_path)
    assert not (tmp_path / "diagnostics" / "postmortem.json").exists()
    (tmp_path / "stuck").touch()
    until = time.monotonic() + 120
    while not (tmp_path / "diagnostics" / "postmortem.json").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    found = read_postmortem(tmp_path / "diagnostics")
    assert found["exit_reason"] == "hang" and "_try_get_data" in found["traceback"]
    process.send_signal(signal.SIGINT)
    process.wait(timeout=120)
    found = read_postmortem(tmp_path / "diagnostics")
    assert found["exit_reason"] == "interrupted" and len(found["hangs"]) == 1


def test_the_next_start_finds_out_and_goes_on(tmp_path):
    """A killed run is resumed: the files tell one story, and how the first attempt ended is kept."""
    command = program(tmp_path, "trainer.train()", save_strategy="steps", save_steps=2)
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    wait_for_logs(process, tmp_path, 5)
    process.kill()
    process.wait()
    folders = [path for path in tmp_path.glob("checkpoint-*") if (path / "trainer_state.json").exists()]
    step = max(int(path.name.split("-")[1]) for path in folders)
    body = f"trainer.args.max_steps = {step + 3}\ntrainer.train(resume_from_checkpoint=sys.argv[1] + '/checkpoint-{step}')"
    command = program(tmp_path, body, save_strategy="no")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "TRL diagnostics: the run before in this folder ended (killed) at step " in done.stderr
    run_dir = tmp_path / "diagnostics"
    assert read_postmortem(run_dir)["exit_reason"] == "completed"
    assert json.loads((run_dir / "attempts" / "1" / "postmortem.json").read_text())["exit_reason"] == "killed"
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "train"] == list(range(1, step + 4))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_two_processes_and_a_sigterm_to_both(checkpoint, tmp_path):
    """As `torchrun` passes it on; with a checkpoint they save together and end at the same step."""
    body = f"""
import os
import torch
trainer.callback_handler.remove_callback(callback)
trainer.add_callback(DiagnosticsCallback(checkpoint_on_sigterm={checkpoint}))
trainer.train()
"""
    command = program(tmp_path, body, ddp_backend="gloo", save_strategy="no")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *command[3:]]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    wait_for_logs(process, tmp_path)
    process.terminate()
    process.wait(timeout=120)
    found = read_postmortem(tmp_path / "diagnostics")
    assert found["exit_reason"] == "sigterm"
    saved = [path.name for path in tmp_path.glob("checkpoint-*")]
    assert saved == ([f"checkpoint-{found['last_step']}"] if checkpoint else [])
    lines = [
        json.loads(line)["step"] for line in (tmp_path / "diagnostics" / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(lines) - len(set(lines)) <= 1  # one process wrote; the summary has the last step too
