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

"""Two real processes: both end at the same step, none hangs, and only the first one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


SCRIPTS = Path(__file__).parents[1] / "scripts"

PROGRAM = """
import json, math, os, sys
import tiny
import torch
from failure_lab.injections import scale_loss
from trl_diagnostics import DiagnosticsCallback

kind, folder, fault, overrides = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])


class Poison(tiny.TrainerCallback):
    def on_step_begin(self, args, state, control, model, **kwargs):
        if state.global_step + 1 == fault:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.fill_(math.nan)


callback = DiagnosticsCallback(stop_on_critical=True)
trainer = tiny.make_trainer(kind, folder, [Poison(), callback], ddp_backend="gloo", **overrides)
if fault < 0 and os.environ["RANK"] == "1":  # a batch that only one process gets
    scale_loss(lambda call: math.nan if call == -fault else 1.0)(trainer)
trainer.train()
torch.distributed.barrier()  # a process that left the loop early would make the other one wait here for ever
rank = int(os.environ["RANK"])
with open(os.path.join(folder, f"rank{rank}.json"), "w") as file:
    facts = {"step": trainer.state.global_step, "findings": len(callback.findings), "broken": callback.broken}
    finite = all(bool(torch.isfinite(parameter).all()) for parameter in trainer.model.parameters())
    json.dump(facts | {"world": trainer.args.world_size, "finite": finite}, file)
torch.distributed.barrier()
sys.stderr.flush()
os._exit(0)  # at a normal exit the threads of gloo sometimes abort the interpreter after all is done
"""


def run(folder, kind, fault, **overrides):
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(program)]
    command += [kind, str(folder), str(fault), json.dumps(overrides)]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)], done.stderr


def steps_on_disk(folder):
    lines = (folder / "diagnostics" / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["phase"]) for line in map(json.loads, lines)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "logging_steps", "fault", "end"),
    [("dpo", 1, 7, 7), ("sft", 5, 7, 11), ("sft", 5, 5, 6)],
    ids=["dpo-every-step", "sft-every-fifth-step", "sft-in-the-step-of-a-log"],
)
def test_a_fault_ends_both_processes_at_the_same_step(kind, logging_steps, fault, end, tmp_path):
    ranks, said = run(tmp_path, kind, fault, max_steps=20, logging_steps=logging_steps)
    assert [rank["world"] for rank in ranks] == [2, 2]
    assert [rank["step"] for rank in ranks] == [end, end]
    assert [rank["broken"] for rank in ranks] == [{}, {}]
    assert ranks[0]["findings"] > 0 and ranks[1]["findings"] == 0
    assert said.count("[STOP] ") == 1 and f", found at step {fault}. " in said
    steps = [step for step, phase in steps_on_disk(tmp_path) if phase == "train"]
    assert len(steps) == len(set(steps))  # one process wrote


@pytest.mark.slow
def test_a_healthy_run_ends_normally(tmp_path):
    ranks, said = run(tmp_path, "sft", 0, max_steps=12, logging_steps=5)
    assert [rank["step"] for rank in ranks] == [12, 12]
    assert steps_on_disk(tmp_path) == [(0, "preflight"), (5, "train"), (10, "train"), (12, "summary")]
    assert said.count("TRL diagnostics: sft (TRL ") == 1
    assert "[STOP]" not in said


@pytest.mark.slow
def test_neither_process_takes_a_step_that_is_bad_in_one_of_them(tmp_path):
    ranks, said = run(tmp_path, "sft", -7, max_steps=20, logging_steps=5)
    assert [rank["finite"] for rank in ranks] == [True, True]
    assert [rank["step"] for rank in ranks] == [11, 11]  # they ask each other in the step after a log
    assert [rank["broken"] for rank in ranks] == [{}, {}]
    assert said.count("[STOP] Training stops because of gradients_nonfinite") == 1
