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

"""Secrets planted everywhere around a real run that crashes: none of them is in any file of its run directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_redact import KNOWN, WORD


OLD_WANDB_KEY = "ab12" * 10
JUDGE_KEY = "cd34" * 5
GROQ_KEY = "ef56" * 5
SCRIPT = """
import sys

from test_redact import KNOWN, WORD
from tiny import make_trainer
from transformers import TrainerCallback

from trl_diagnostics import DiagnosticsCallback


KEYS = " ".join(["ab12" * 10, "cd34" * 5, "ef56" * 5])


class Crash(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 34:
            password = WORD
            raise RuntimeError(f"401 for {' '.join(KNOWN.values())} password={password} https://a:{WORD}@h {KEYS}")


def tell(finding):
    raise ConnectionError(f"POST {' '.join(KNOWN.values())} with Bearer {WORD}{WORD}")


alert = f"all: learning_rate >= 0 for 1 steps -> high: See https://bob:{WORD}@example.com/runs?token={WORD}"
options = {"hub_token": WORD, "hub_model_id": f"https://a:{WORD}@h/m", "run_name": KNOWN["openai"], "optim_args": None}
options |= {"dataset_kwargs": {"token": WORD, "keys": list(KNOWN.values())}, "save_strategy": "steps", "save_steps": 10}
callbacks = [DiagnosticsCallback(custom_alerts=[alert], on_finding=tell), Crash()]
trainer = make_trainer("sft", sys.argv[1], callbacks, max_steps=40, **options)
trainer.model.config._name_or_path = f"https://bob:{WORD}@example.com/model"
trainer.args.model_init_kwargs = {"auth": {"cookie": WORD}}
trainer.train()
"""


@pytest.mark.slow
def test_nothing_planted_is_in_any_artifact(tmp_path):
    arguments = ["--token", WORD, f"--api-key={WORD} x", f"password={WORD}", "--judge_key", JUDGE_KEY, *KNOWN.values()]
    environment = {
        "PYTHONPATH": os.pathsep.join(["tests", "scripts"]),
        "MY_API_KEY": OLD_WANDB_KEY,
        "GROQ_KEY": GROQ_KEY,
        "NCCL_NET": f"x --token {WORD}",
        "HF_ENDPOINT": f"https://bob:{WORD}@example.com",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *arguments],
        cwd=Path(__file__).parent.parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert "RuntimeError: 401" in done.stderr, done.stderr
    off = [line for line in done.stderr.splitlines() if "switched off" in line or "is tried again" in line]
    assert len(off) == 1 and "on_finding failed" in off[0] and not planted_in_text(off[0]), done.stderr
    files = [file for file in (tmp_path / "diagnostics").rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {
        "run_metadata_start.json",
        "findings.jsonl",
        "postmortem.json",
        "run_report.md",
        "run_report.html",
    } <= names
    assert {file.name: found for file in files if (found := planted_in(file))} == {}
    for name in ("run_metadata_start.json", "run_metadata_final.json", "findings.jsonl", "run_report.html"):
        [text] = [file.read_text() for file in files if file.name == name]
        assert "redacted" in text, name


def planted_in(file):
    return planted_in_text(file.read_bytes().decode(errors="replace"))


def planted_in_text(text):
    planted = {**KNOWN, "word": WORD, "old wandb key": OLD_WANDB_KEY, "judge": JUDGE_KEY, "groq": GROQ_KEY}
    return [name for name, secret in planted.items() if any(piece in text for piece in pieces(secret))]


def pieces(secret):
    """The secret as a text and as JSON has it, and its middle where that is nothing else."""
    return [secret, json.dumps(secret)[1:-1]] + ([] if "PRIVATE KEY" in secret else [secret[5:30]])
