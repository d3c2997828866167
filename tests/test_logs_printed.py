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

"""What a training printed: dictionaries, progress bars, colours, Kaggle."""

import json
import math

import pytest

from trl_diagnostics.sources.console_log import printed
from trl_diagnostics.sources.logs import open_run


def bar(at: int, total: int, name: str = "") -> str:
    return f"\r{name}{100 * at // total:3d}%|{'█' * (10 * at // total):10}| {at}/{total} [00:01<00:09,  1.3it/s]"


def logs(step: int, /, **more) -> str:
    return str({"loss": 1.0 / step, "grad_norm": 1.5, "epoch": step / 100, **more}) + "\n"


def opened(tmp_path, text: str, name: str = "train.log"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return open_run(tmp_path / name)


def steps_of(run) -> list[int]:
    return [record.step for record in run.records()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'loss': 0.69, 'grad_norm': nan, 'epoch': 0.1}", {"loss": "0.69", "grad_norm": "nan", "epoch": "0.1"}),
        ("{'loss': '0.69', 'epoch': '1e-05'}", {"loss": "0.69", "epoch": "1e-05"}),
        ('{"loss": -inf, "kl": Infinity}', {"loss": "-inf", "kl": "Infinity"}),
        ("{'loss': tensor(0.5, device='cuda:0'), 'kl': np.float64(0.25)}", {"loss": "0.5", "kl": "0.25"}),
        (
            "{'loss': tensor([0.5]), 'a': [1, 2], 'b': None, 'c': True}",
            {"loss": "[0.5]", "a": "", "b": None, "c": "True"},
        ),
        ("{'loss': 1, 'note': \"it's fine\"}", {"loss": "1", "note": "it's fine"}),
        ("{'loss': __import__('os').system('x')}", None),
        ("{'loss': 1 + 1}", None),
        ("{'loss': 1", None),
        ("{'accuracy': 0.5}", None),
        ("{'loss': 0.5 'epoch': 1}", None),
        ("{}", None),
    ],
)
def test_a_printed_dictionary(text, expected):
    assert printed(text) == expected


def test_the_bar_tells_the_steps(tmp_path):
    text = bar(0, 3, "Loading weights: ") + "\n" + bar(0, 30) + bar(4, 30)
    for step in (5, 10, 15):
        text += "\r" + " " * 40 + "\r" + logs(step) + bar(step, 30) + bar(step + 3, 30)
    text += "\n" + bar(0, 2) + "\x1b[A\n" + bar(2, 2) + "\n{'eval_loss': 0.4, 'epoch': 0.15}\n" + bar(15, 30)
    run = opened(tmp_path, text)
    assert [(r.step, r.phase) for r in run.records()] == [(5, "train"), (10, "train"), (15, "train"), (15, "eval")]
    assert (run.kind, run.config, run.notes) == ("console log", {"max_steps": 30, "logging_steps": 5}, ())


def test_bars_that_come_after_all_logs_are_spread_evenly(tmp_path):
    """Standard output is kept back until it fills a buffer, the bars of standard error are not."""
    bars = "".join(bar(step, 30) for step in range(31))
    text = "".join(logs(step) for step in (10, 20, 30)) + "{'train_runtime': 5, 'train_loss': 0.5, 'epoch': 1}\n"
    for whole in (text + bars, bars + "\n" + text):
        run = opened(tmp_path, whole)
        assert [(r.step, r.phase) for r in run.records()] == [
            (10, "train"),
            (20, "train"),
            (30, "train"),
            (30, "summary"),
        ]
        assert run.notes == ("train.log: steps told from the progress bar, evenly",)


def test_an_unfinished_run_ends_where_the_bar_does(tmp_path):
    run = opened(tmp_path, logs(1) + logs(2) + bar(20, 1000))
    assert (steps_of(run), run.config) == ([10, 20], {"max_steps": 1000, "logging_steps": 10})


def test_a_bar_that_starts_in_the_middle(tmp_path):
    text = bar(0, 100) + "".join(logs(step) + bar(step, 100) for step in (60, 70))
    assert steps_of(opened(tmp_path, text)) == [60, 70]


def test_without_a_bar_the_logs_are_counted(tmp_path):
    run = opened(tmp_path, logs(7) + "{'eval_loss': 0.5, 'epoch': 0.1}\n" + logs(8))
    assert steps_of(run) == [1, 1, 2]
    assert run.notes == ("train.log: no steps in it, so the logs are counted",)


def test_steps_that_are_printed_count(tmp_path):
    run = opened(tmp_path, bar(1, 50) + logs(3, step=30) + bar(31, 50) + logs(4, step="40"))
    assert (steps_of(run), run.config["logging_steps"]) == ([30, 40], 10)


def test_colours_and_prefixes_do_not_hide_a_log(tmp_path):
    text = (
        "[rank0]: \x1b[32m" + logs(1).strip() + "\x1b[0m\nINFO:root:" + logs(2) + "config {'a': {'b': 1}} {'x': 1}\n"
    )
    assert len(steps_of(opened(tmp_path, text))) == 2


def test_nan_in_small_letters(tmp_path):
    (record,) = opened(tmp_path, "{'loss': nan, 'reward': 'nan', 'epoch': 0.1}\n").records()
    assert math.isnan(record.metrics["loss"]) and math.isnan(record.metrics["reward"])


def test_ppo_prints_no_loss(tmp_path):
    text = "".join(str({"episode": 8 * i, "objective/kl": 0.1, "lr": 1e-5, "epoch": 0.1}) + "\n" for i in (1, 2))
    assert [(r.step, r.phase) for r in open_run_ppo(tmp_path, text).records()] == [(1, "train"), (2, "train")]


def open_run_ppo(tmp_path, text):
    (tmp_path / "a.log").write_text(text)
    return open_run(tmp_path / "a.log", trainer="ppo", trl_version="0.15.0")


@pytest.mark.parametrize("name", ["kaggle.log", "kaggle.json"])
@pytest.mark.parametrize("apart", [",\n", ", "], ids=["a line each", "one line"])
def test_lines_of_kaggle(tmp_path, name, apart):
    chunks = [{"stream_name": "stderr", "time": 1.0, "data": bar(0, 20)}]
    for step in (10, 20):
        chunks.append({"stream_name": "stdout", "time": 2.0, "data": logs(step)})
        chunks.append({"stream_name": "stderr", "time": 2.0, "data": bar(step, 20)})
    run = opened(tmp_path, "[" + apart.join(map(json.dumps, chunks)) + "]", name)
    assert (run.kind, steps_of(run), run.config["max_steps"]) == ("console log", [10, 20], 20)


def test_a_long_line_of_garbage_takes_no_time(tmp_path):
    text = "{" * 50_000 + "'" * 50_000 + "%|" * 50_000 + "{'a': " * 20_000 + "\n" + logs(1)
    assert len(steps_of(opened(tmp_path, text))) == 1
