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

"""The environment of the test-suite: no network, one thread, and where the last TRL with PPO lies."""

import logging
import os
import sys
from pathlib import Path


# Before transformers, datasets and torch are imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the tests expect the same numbers on every machine
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it to 80, and what is printed has the width of the terminal

import pytest
from hypothesis import HealthCheck, settings


TRL_WITH_PPO = "1.12.0"

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")


@pytest.fixture(scope="session")
def trl_with_ppo() -> Path:
    """
    Folder of TRL 1.12.0, the last release with a `PPOTrainer`, to be put first on the path of a subprocess.

    `make setup` puts it beside the installed TRL, in `trl-1.12.0` under the environment's prefix. The environment
    variable `TRL_WITH_PPO` names another place.
    """
    folder = Path(os.environ.get("TRL_WITH_PPO", Path(sys.prefix) / f"trl-{TRL_WITH_PPO}"))
    if not (folder / "trl" / "experimental" / "ppo").is_dir():
        pytest.fail(
            f"TRL {TRL_WITH_PPO} is not in {folder}. Run `make setup`, or `pip install --no-deps --target {folder} "
            f"trl=={TRL_WITH_PPO}`.",
            pytrace=False,
        )
    return folder


@pytest.fixture
def reports(monkeypatch) -> list:
    """What trainings report at their end: folder, diagnosis, plots. Drawing it would take longer than the trainings."""
    written: list = []

    def write_report(folder, diagnosis, plots=True):
        written.append((folder, diagnosis, plots))

    monkeypatch.setattr("trl_diagnostics.run_record.write_report", write_report)
    return written


@pytest.fixture
def info_messages(caplog):
    """The log has what is not even a warning."""
    caplog.set_level(logging.INFO, "trl_diagnostics")


@pytest.fixture
def nothing_goes_on():
    """A training that a test leaves without its end is over with the test."""
    from trl_diagnostics.run_record import OPEN

    yield
    for run in OPEN[:]:
        run.close(None, "The test is over.")
