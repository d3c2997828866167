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

"""`postmortem`, `checkpoints` and `validate-resume`: what is said after a run, in words and as JSON."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny
from cli_kit import BROKEN, recorded, run, run_dir, run_json
from safetensors.numpy import save_file

from trl_diagnostics.ending import read_postmortem
from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import MetricMap
from trl_diagnostics.sinks.postmortem import postmortem
from trl_diagnostics.sinks.run_dir import POSTMORTEM, write_json
from trl_diagnostics.sources.advice import advise, judge_checkpoints
from trl_diagnostics.sources.checkpoints import checkpoints


def checkpoint(output_dir, step, value=1.0, without=(), **state):
    """A checkpoint as far as its files tell."""
    folder = output_dir / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": np.full((4, 4), value, "float32")}, folder / "model.safetensors")
    for name in {"optimizer.pt", "scheduler.pt", "rng_state.pth"} - set(without):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", "x")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": [], **state}))
    return folder


def died(folder, reason="exception", **fields):
    """A run directory whose run died after the weights broke."""
    path = run_dir(folder, BROKEN, ended=None)
    label, records = recorded(BROKEN)
    engine = Engine(collect_rules(), label["trainer"], label["config"], MetricMap(label["trainer"]))
    findings = [finding for record in records for finding in engine.update(record)]
    said = {"last_step": 40, "at": time.time() - 7300, "records": records, "findings": findings}
    found = judge_checkpoints(checkpoints(folder), records, findings)
    said |= {
        "found": found,
        "go_on": advise(found).go_on,
        "command": "python train.py",
        "traceback": "Traceback:\n  line\nBoom: no",
    }
    write_json(path / POSTMORTEM, postmortem(reason, "ValueError: no", **{**said, **fields}))
    return path


# postmortem


def test_postmortem_in_plain_words(tmp_path, capsys):
    good = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 30, float("nan"))
    path = died(tmp_path)
    root = read_postmortem(path)["root_finding"]
    code, out, err = run(capsys, "postmortem", tmp_path)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("The run ended with an exception at step 40, 2") and lines[0].endswith("(2 hours ago).")
    assert lines[1] == "  ValueError: no"
    said = {line.split("  ")[0]: line for line in lines if line[:1].isalpha()}
    assert said["Run"] == f"Run         {path}"
    assert said["After"].startswith(f"After       [CRITICAL] {root['rule']} since step {root['first_step']}: ")
    assert str(good) in out and f'trainer.train(resume_from_checkpoint="{good}")' in " ".join(out.split())
    assert lines[-4:] == ["Traceback", "  Traceback:", "    line", "  Boom: no"]


def test_postmortem_of_a_run_that_ended_well(tmp_path, capsys):
    run_dir(tmp_path)
    code, out, _ = run(capsys, "postmortem", tmp_path / "diagnostics")
    assert code == 0 and out.startswith("The run came to its end at step 200, ")
    assert "After       no finding" in out and "To go on" not in out and "Traceback" not in out


DIES = """
import os, sys
import tiny
from transformers import TrainerCallback
from trl_diagnostics import DiagnosticsCallback

class Dies(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 14:
            os._exit(9)

options = {"max_steps": 30, "save_strategy": "steps", "save_steps": 10}
tiny.make_trainer("sft", sys.argv[1], [DiagnosticsCallback(), Dies()], **options).train()
"""


@pytest.mark.slow
def test_a_real_training_that_vanishes(tmp_path, capsys):
    scripts = str(Path(tiny.__file__).parent)
    environment = {**os.environ, "PYTHONPATH": scripts}
    done = subprocess.run([sys.executable, "-c", DIES, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    code, out, _ = run(capsys, "postmortem", tmp_path)
    assert code == 0 and re.match("The run was killed from outside at step 1[34], ", out)
    assert f"{tmp_path}/checkpoint-10, the last one; all its weights are finite" in " ".join(out.split())
    code, out, _ = run(capsys, "diagnose", tmp_path)
    assert code == 1 and "13 logs up to step 13" in " ".join(out.split())  # killed: something to look at
    assert re.match("no findings in 13 logs; the run was killed from outside at step 1[34]\n", out)
    code, out, _ = run(capsys, "checkpoints", tmp_path)
    assert code == 0 and out.startswith(f"Go on from  {tmp_path}/checkpoint-10. ")
    code, out, _ = run(capsys, "watch", tmp_path, "--interval", "0.1")
    assert code == 0 and "vanished" in out
    (tmp_path / "new.yaml").write_text("learning_rate: 1e-5\n")
    code, document = run_json(capsys, "validate-resume", tmp_path, "--config", tmp_path / "new.yaml")
    assert [one["field"] for one in document["differences"]] == ["learning_rate"]


def test_postmortem_as_json_is_the_file(tmp_path, capsys):
    path = died(tmp_path)
    code, document = run_json(capsys, "postmortem", tmp_path)
    assert (code, document.pop("run_dir")) == (0, str(path))
    assert document == json.loads((path / POSTMORTEM).read_text())


def test_a_reason_of_a_later_release_and_evidence_of_an_earlier_one(tmp_path, capsys):
    checkpoint(tmp_path, 5)
    path = died(tmp_path, "evicted")
    document = json.loads((path / POSTMORTEM).read_text())
    assert document.pop("last_checkpoint_finite_by_probe") == str(tmp_path / "checkpoint-5")
    write_json(path / POSTMORTEM, document)
    code, out, _ = run(capsys, "postmortem", tmp_path)
    assert code == 0 and out.startswith("The run ended (evicted) at step 40, ")


def test_weights_that_only_a_probe_has_seen(tmp_path, capsys):
    (checkpoint(tmp_path, 5) / "model.safetensors").rename(tmp_path / "checkpoint-5" / "pytorch_model.bin")
    (tmp_path / "checkpoint-5" / "pytorch_model.bin").write_bytes(
        (tmp_path / "checkpoint-5/optimizer.pt").read_bytes()
    )
    died(tmp_path)
    said = " ".join(run(capsys, "postmortem", tmp_path)[1].split())
    assert f"none the last one known to be finite; {tmp_path}/checkpoint-5 the last one that a probe found" in said


@pytest.mark.parametrize("resumed", [3, {"number": 1}, {"number": 1, "records": 2, "with_state": True}])
def test_a_resume_that_this_release_does_not_understand(resumed, tmp_path, capsys):
    path = run_dir(tmp_path)
    write_json(path / "run_metadata_start_1.json", {"resumed": resumed, "diagnostics": None})
    code, out, err = run(capsys, "diagnose", tmp_path)
    assert (code, err) == (0, "") and "resumed once; " in " ".join(out.split())


def test_a_long_traceback_is_cut_at_its_start(tmp_path, capsys):
    died(tmp_path, traceback="\n".join(f"line {i}" for i in range(40)))
    out = run(capsys, "postmortem", tmp_path)[1]
    assert "Traceback (the last 12 of 40 lines)\n  line 28\n" in out and out.endswith("  line 39\n")


@pytest.mark.parametrize("make", [True, False])
def test_postmortem_of_no_run(make, tmp_path, capsys):
    folder = tmp_path / "x"
    if make:
        folder.mkdir()
    said = f"{folder}: no run directory; expected a folder with metrics.jsonl or heartbeat.json\n"
    missing = f"{folder}: no such folder; expected a run directory or the output_dir of a run\n"
    assert run(capsys, "postmortem", folder) == (2, "", said if make else missing)


# checkpoints


def test_checkpoints(tmp_path, capsys):
    first = checkpoint(tmp_path, 50)
    second = checkpoint(tmp_path, 100, without=["optimizer.pt"])
    checkpoint(tmp_path, 150, float("nan"))
    run_dir(tmp_path)
    code, out, err = run(capsys, "checkpoints", tmp_path)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"Go on from  {first}. ")
    assert any(line.startswith(f"Ship        {second}. ") for line in lines)
    assert f"3 checkpoints in {tmp_path}" in lines
    rows = [line.split() for line in lines[-3:]]
    assert [row[:2] for row in rows] == [["50", "finite"], ["100", "finite"], ["150", "not"]]
    assert "lacks optimizer" in lines[-2] and "complete" in lines[-3]


def test_checkpoints_as_json(tmp_path, capsys):
    folder = checkpoint(tmp_path, 50)
    run_dir(tmp_path)
    code, document = run_json(capsys, "checkpoints", tmp_path)
    assert (code, document["go_on"], document["ship"]) == (0, str(folder), str(folder))
    assert [(one["step"], one["finite"], one["resumable"]) for one in document["checkpoints"]] == [(50, True, True)]


def test_checkpoints_of_which_none_is_fit(tmp_path, capsys):
    checkpoint(tmp_path, 50, float("inf"))
    run_dir(tmp_path)
    code, out, _ = run(capsys, "checkpoints", tmp_path)
    assert code == 1 and out.startswith("None is fit: ")
    assert run_json(capsys, "checkpoints", tmp_path)[1]["go_on"] is None


def test_all_checkpoints_of_a_run_without_a_run_directory(tmp_path, capsys):
    logs = [{"step": step, "loss": 1 / step, "learning_rate": 1e-4, "epoch": 0.1} for step in range(10, 310, 10)]
    _, second = (checkpoint(tmp_path, step, log_history=logs[: step // 10]) for step in (100, 200))
    last = checkpoint(tmp_path, 300, float("nan"), log_history=logs)
    code, document = run_json(capsys, "checkpoints", tmp_path)
    assert [one["step"] for one in document["checkpoints"]] == [100, 200, 300]
    assert (code, document["go_on"]) == (0, str(second))
    listed = [one["step"] for one in run_json(capsys, "checkpoints", second)[1]["checkpoints"]]
    assert listed == [100, 200]  # its log ends there
    (last / "trainer_state.json").write_text("{")
    document = run_json(capsys, "checkpoints", tmp_path)[1]
    assert [(one["step"], one["foreign"]) for one in document["checkpoints"]] == [(100, ""), (200, ""), (300, "")]
    assert (code, document["go_on"]) == (0, str(second))


def test_no_checkpoints(tmp_path, capsys):
    run_dir(tmp_path)
    said = f"{tmp_path}: there is no checkpoint of this run on disk\n"
    assert run(capsys, "checkpoints", tmp_path) == (2, "", said)


# validate-resume


def validate(capsys, folder, text, *arguments, name="new.yaml"):
    (folder / name).write_text(text)
    return run(capsys, "validate-resume", folder, "--config", folder / name, *arguments)


def test_the_same_config(tmp_path, capsys):
    checkpoint(tmp_path, 100)
    run_dir(tmp_path)
    code, out, err = validate(capsys, tmp_path, "learning_rate: 3e-4\nseed: 0\n")
    assert (code, err) == (0, "")
    assert out == f"It would go on as the same run.\n  From {tmp_path}/checkpoint-100.\n"


def test_the_same_config_and_no_checkpoint(tmp_path, capsys):
    run_dir(tmp_path)
    said = "There is no checkpoint of this run on disk to go on from.\n"
    assert validate(capsys, tmp_path, "seed: 0\n") == (0, said, "")


def test_another_learning_rate(tmp_path, capsys):
    checkpoint(tmp_path, 100)
    run_dir(tmp_path)
    code, out, _ = validate(capsys, tmp_path, "learning_rate: 1e-5\nlogging_steps: 5\ndataset_name: x\n")
    assert out.startswith("It would go on as another run: learning_rate was 0.0003 and is 1e-05.\n")
    assert "[" in out and "learning_rate  0.0003  1e-05  changes the run" in out
    assert "logging_steps  1       5      harmless" in out
    assert out.endswith("Not compared, for the run has no such argument: dataset_name\n")
    assert code == 1
    assert validate(capsys, tmp_path, "logging_steps: 5\n")[0] == 0
    assert validate(capsys, tmp_path, "learning_rate: 1e-5\n", "--fail-on", "never")[0] == 0


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "1e999"])
def test_a_number_that_is_not_finite(value, tmp_path, capsys):
    run_dir(tmp_path, max_grad_norm=1.0, max_length=512)
    code, out, err = validate(capsys, tmp_path, f"max_grad_norm: {value}\nmax_length: {value}\n")
    assert (code, err) == (1, "") and "max_grad_norm was 1 and is " in out and "max_length was 512 and is " in out


@pytest.mark.parametrize(("resumes", "rate"), [(0, "0.0003"), (1, "1e-05"), (None, "1e-05")])
def test_the_start_that_saved_the_checkpoint_counts(resumes, rate, tmp_path, capsys):
    """Not one that was refused later; where the checkpoint does not say which, the last one."""
    kept = {"args": {}, "attributes": {"saved": {"resumes": resumes}}}
    checkpoint(tmp_path, 100, stateful_callbacks={"TrainerControl": {"args": {}}, "DiagnosticsCallback": [kept]})
    first = json.loads((run_dir(tmp_path) / "run_metadata_start.json").read_text())
    later = {**first, "arguments": first["arguments"] | {"learning_rate": 1e-5}}
    write_json(tmp_path / "diagnostics" / "run_metadata_start_1.json", later)
    assert validate(capsys, tmp_path, f"learning_rate: {rate}\n")[1].startswith("It would go on as the same run.")


REFUSED = """
import sys
import tiny
from transformers import TrainerCallback
from trl_diagnostics import DiagnosticsCallback

class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 4

options = {"max_steps": 8, "save_strategy": "steps", "save_steps": 2}
tiny.make_trainer("sft", sys.argv[1], [DiagnosticsCallback(), Stops()], **options).train()
callback = DiagnosticsCallback(fail_on_resume_mismatch=True)
try:
    trainer = tiny.make_trainer("sft", sys.argv[1], [callback], learning_rate=1e-5, **options)
    trainer.train(resume_from_checkpoint=True)
except ValueError:
    sys.exit(9)
"""


@pytest.mark.slow
def test_after_a_start_that_was_refused(tmp_path, capsys):
    environment = {**os.environ, "PYTHONPATH": str(Path(tiny.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", REFUSED, tmp_path], env=environment, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert (tmp_path / "diagnostics" / "run_metadata_start_1.json").is_file()
    out = validate(capsys, tmp_path, "learning_rate: 1e-5\n")[1]
    assert out.startswith("It would go on as another run: learning_rate was ")


def test_a_checkpoint_without_its_optimizer(tmp_path, capsys):
    checkpoint(tmp_path, 100, without=["optimizer.pt"])
    run_dir(tmp_path)
    out = validate(capsys, tmp_path, "seed: 0\n")[1]
    assert out.startswith("It would go on as another run: checkpoint: optimizer was there and is missing.\n")


def test_against_the_metadata_of_another_run_and_as_json(tmp_path, capsys):
    checkpoint(tmp_path / "a", 100)
    batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    run_dir(tmp_path / "a", **batch)
    other = run_dir(tmp_path / "b", **batch | {"optim": "adafactor", "gradient_accumulation_steps": 4})
    code, document = run_json(capsys, "validate-resume", tmp_path / "a", "--config", other)
    assert document["checkpoint"] == str(tmp_path / "a" / "checkpoint-100")
    effects = {one["field"]: one["effect"] for one in document["differences"]}
    assert (effects["optim"], effects["effective_batch_size"]) == ("breaks it", "changes the run")
    assert document["differences"][0]["field"] == "optim"
    assert {finding["severity"] for finding in document["findings"]} and code == 1


def test_a_checkpoint_of_an_earlier_run_is_not_gone_on_from(tmp_path, capsys):
    checkpoint(tmp_path, 100)
    earlier = checkpoint(tmp_path, 900, without=["optimizer.pt"])
    run_dir(tmp_path)
    said = "It would go on as the same run.\n  From {}.\n"
    assert validate(capsys, tmp_path, "seed: 0\n") == (0, said.format(tmp_path / "checkpoint-100"), "")
    code, document = run_json(capsys, "validate-resume", earlier, "--config", tmp_path / "new.yaml")
    assert (code, document["checkpoint"]) == (1, str(earlier))  # but from one that is named


def test_json_as_a_config(tmp_path, capsys):
    run_dir(tmp_path)
    out = validate(capsys, tmp_path, '{"learning_rate": 0.0003, "seed": 7}', name="new.json")[1]
    assert out.startswith(
        "It would go on as another run: seed was 0 and is 7.\n  There is no checkpoint of this run on"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "neither YAML nor JSON: "),
        ("- 1\n", "expected training arguments by their names, such as beta: 0.1\n"),
        ("", "expected training arguments by their names, such as beta: 0.1\n"),
    ],
)
def test_a_config_that_cannot_be_read(text, said, tmp_path, capsys):
    run_dir(tmp_path)
    code, out, err = validate(capsys, tmp_path, text)
    assert (code, out) == (2, "") and err.startswith(f"--config: {tmp_path}/new.yaml: {said}")


def test_the_worst_comes_first_and_a_typo_is_named(tmp_path, capsys):
    checkpoint(tmp_path, 100)
    run_dir(tmp_path, optim="adamw_torch", loss_type="sigmoid")
    out = validate(capsys, tmp_path, "seed: 7\noptim: adafactor\nloss_type: ipo\nlerning_rate: 1\n")[1]
    severities = re.findall(r"^\[(\w+)\]", out, re.MULTILINE)
    assert severities == sorted(severities, key=["CRITICAL", "HIGH", "MEDIUM", "LOW"].index) and len(severities) == 3
    assert " resume_setting_changed: loss_type is not what it was before the resume." in " ".join(out.split())
    assert out.endswith("for the run has no such argument: lerning_rate (did you mean learning_rate?)\n")


def test_the_checkpoint_to_go_on_from_can_be_given(tmp_path, capsys):
    checkpoint(tmp_path, 50, without=["optimizer.pt"])
    checkpoint(tmp_path, 100)
    run_dir(tmp_path)
    (tmp_path / "new.yml").write_text("seed: 0\n")
    code, out, _ = run(capsys, "validate-resume", tmp_path / "checkpoint-50", "--config", tmp_path / "new.yml")
    assert code == 1 and f"From {tmp_path}/checkpoint-50.\n" in out
    assert run(capsys, "validate-resume", tmp_path, "--config", tmp_path / "new.yml")[0] == 0
    assert run(capsys, "postmortem", tmp_path / "checkpoint-50")[0] == 0


def test_a_config_in_another_format_or_a_folder_of_something_else(tmp_path, capsys):
    run_dir(tmp_path)
    said = "format not supported; give YAML or JSON (.yaml, .yml, .json), or the run directory of another run"
    assert validate(capsys, tmp_path, "seed = 1", name="new.toml") == (
        2,
        "",
        f"--config: {tmp_path}/new.toml: {said}\n",
    )
    (tmp_path / "empty").mkdir()
    said = "no run directory; expected a folder with metrics.jsonl or heartbeat.json"
    found = run(capsys, "validate-resume", tmp_path, "--config", tmp_path / "empty")
    assert found == (2, "", f"--config: {tmp_path}/empty: {said}\n")
    assert run(capsys, "validate-resume", tmp_path, "--config", tmp_path)[0] == 0


def test_a_config_that_is_not_there(tmp_path, capsys):
    run_dir(tmp_path)
    said = f"--config: {tmp_path}/none.yaml: no such file\n"
    assert run(capsys, "validate-resume", tmp_path, "--config", tmp_path / "none.yaml") == (2, "", said)


def test_nothing_in_a_config_is_run(tmp_path, capsys):
    run_dir(tmp_path)
    text = f"seed: !!python/object/apply:os.system ['touch {tmp_path}/owned']\n"
    assert validate(capsys, tmp_path, text)[0] == 2
    assert not (tmp_path / "owned").exists()
