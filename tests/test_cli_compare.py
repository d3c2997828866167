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

"""`compare`: which of two runs is better, what differs between them, and what is not said."""

import math

import numpy as np
import pytest
from cli_kit import BROKEN, HEALTHY, jsonl, recorded, run, run_dir, run_json

from trl_diagnostics.commands.terminal import broken
from trl_diagnostics.engine.finding import Record


def trained(folder, rewards, **arguments):
    """A GRPO run with these rewards."""
    records = [
        Record(step, 1e9 + step, "train", {"reward": float(value), "loss": 0.0, "grad_norm": 1.0})
        for step, value in enumerate(rewards, 1)
    ]
    return run_dir(folder, "healthy__grpo__0", records, **arguments)


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(0, 0.1, (2, 200))


def test_the_better_run_is_named_first(tmp_path, capsys, noise):
    a, b = trained(tmp_path / "a", noise[0]), trained(tmp_path / "b", 0.5 + noise[1], learning_rate=1.0)
    code, out, err = run(capsys, "compare", a, b)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith("B is better: reward is ") and " over steps 151 to 200" in lines[0]
    assert "95 % interval +0.4" in out and "p < 0.001)." in " ".join(out.split())
    assert "learning_rate  0.0003  1" in lines
    assert any(line.startswith("reward  higher") for line in lines)
    assert f" A {a}: grpo, 200 logs up to step 200, " in " ".join(out.split())
    assert "autocorrelation" in out and "another seed" in " ".join(out.split())


def test_a_worse_run_is_exit_code_1(tmp_path, capsys, noise):
    a, b = trained(tmp_path / "a", noise[0]), trained(tmp_path / "b", noise[1] - 0.5)
    code, document = run_json(capsys, "compare", a, b)
    assert (code, document["better"], document["metric"]) == (1, "A", "reward")
    assert run(capsys, "compare", a, b, "--fail-on", "never")[0] == 0
    code, document = run_json(capsys, "compare", b, a)
    assert (code, document["better"]) == (0, "B")


def test_noise_makes_no_difference(tmp_path, capsys, noise):
    a, b = trained(tmp_path / "a", noise[0]), trained(tmp_path / "b", noise[1])
    code, out, _ = run(capsys, "compare", a, b)
    assert code == 0 and out.startswith("Neither is known to be better: reward is ")
    assert "Arguments, data, model and packages are the same." in out


def test_too_few_logs_are_said_to_be_too_few(tmp_path, capsys):
    a, b = trained(tmp_path / "a", [0.1] * 6), trained(tmp_path / "b", [0.9] * 6)
    out = run(capsys, "compare", a, b)[1]
    assert "too little to tell (6 logs in common, 20 are needed)" in " ".join(out.split())
    assert "t-test" not in out


def test_equal_step_means_the_steps_that_both_have(tmp_path, capsys, noise):
    long = np.concatenate([noise[0], np.full(100, 9.0)])
    a, b = trained(tmp_path / "a", long), trained(tmp_path / "b", noise[1])
    _, document = run_json(capsys, "compare", a, b)
    assert (document["metrics"][0]["last_step"], document["better"]) == (200, None)


def test_ruined_weights_lose_whatever_the_curves_say(tmp_path, capsys):
    a, b = run_dir(tmp_path / "a"), run_dir(tmp_path / "b", BROKEN)
    code, document = run_json(capsys, "compare", a, b)
    assert (code, document["better"]) == (1, "A")
    assert document["because"].startswith("B has ") and " (critical) since step " in document["because"]
    assert document["findings"]["only_a"] == [] and document["findings"]["only_b"]
    out = run(capsys, "compare", a, b)[1]
    assert "  only in B  [CRITICAL] " in out and "Left out in B, since NaN, infinite or null: " in out
    assert run(capsys, "compare", b, a)[0] == 0


def test_a_loss_on_another_scale_decides_nothing(tmp_path, capsys):
    _, records = recorded("healthy__kto__0")
    a = run_dir(tmp_path / "a", "healthy__kto__0", beta=0.1)
    b = run_dir(tmp_path / "b", "healthy__kto__0", records, beta=0.9)
    code, document = run_json(capsys, "compare", a, b)
    assert (code, document["better"], document["metric"]) == (0, None, None)
    assert "reward_margin has another scale: beta differs" in document["because"]


def test_the_losses_of_two_trainers_decide_nothing(tmp_path, capsys):
    a, b = (jsonl(tmp_path / f"{name}.jsonl", recorded(f"healthy__{name}__0")[1]) for name in ("sft", "dpo"))
    code, out, _ = run(capsys, "compare", a, b)
    assert code == 0
    assert out.startswith("Neither is known to be better: loss has another scale: trainer differs.\n")
    assert any(line.split() == ["trainer", "sft", "dpo"] for line in out.splitlines())


def test_the_loss_of_a_policy_gradient_has_no_better_direction(tmp_path, capsys):
    a, b = run_dir(tmp_path / "a", "healthy__grpo__0"), run_dir(tmp_path / "b", "healthy__grpo__2")
    metrics = {one["metric"]: one["better"] for one in run_json(capsys, "compare", a, b)[1]["metrics"]}
    assert (metrics["reward"], metrics["loss"]) == ("higher", None)


def test_a_name_that_is_too_long_ends_its_lines_after_its_words():
    assert broken("completions_clipped_ratio", 16) == "completions_\nclipped_ratio"
    assert broken("rewards/a_very_long_function/mean", 1000) == "rewards/a_very_long_function/mean"
    assert broken("loss", 2) == "loss"


def test_the_metric_can_be_chosen(tmp_path, capsys):
    a, b = run_dir(tmp_path / "a"), run_dir(tmp_path / "b", "healthy__dpo__2")
    _, document = run_json(capsys, "compare", a, b, "--metric", "rewards/margins")
    assert document["metric"] == document["metrics"][0]["metric"] == "reward_margin"
    code, out, err = run(capsys, "compare", a, b, "--metric", "reward_margn")
    assert (code, out) == (2, "")
    assert err == "--metric: the runs have no steps in common with 'reward_margn'; did you mean 'reward_margin'?\n"


def test_a_run_compared_with_itself(tmp_path, capsys):
    folder = run_dir(tmp_path)
    code, document = run_json(capsys, "compare", folder, folder)
    assert (code, document["better"], document["differences"]) == (0, None, [])
    assert {one["p"] for one in document["metrics"]} <= {1.0, None}


def test_logs_of_different_kinds_and_densities(tmp_path, capsys):
    label, records = recorded()
    a = jsonl(tmp_path / "a.jsonl", records)
    b = jsonl(tmp_path / "b.jsonl", [record for record in records if record.step % 5 == 0])
    code, out, _ = run(capsys, "compare", a, b)
    assert code == 0
    assert "The log of A and of B does not have the training arguments." in out
    assert "40 logs" in out and "steps 105 to 200" in out


def test_not_a_number_in_the_json_is_a_text(tmp_path, capsys):
    records = [Record(step, 1e9, "train", {"loss": 1.0, "kl": math.nan}) for step in range(1, 41)]
    a = run_dir(tmp_path / "a", HEALTHY, records)
    code, document = run_json(capsys, "compare", a, a)
    assert code == 0 and [one["metric"] for one in document["metrics"]] == ["loss"]


def test_several_runs_in_one_path(tmp_path, capsys):
    for name in "abc":
        run_dir(tmp_path / "runs" / name)
    code, out, err = run(capsys, "compare", tmp_path / "runs", tmp_path / "runs" / "a")
    first = tmp_path / "runs" / "a" / "diagnostics"
    assert (code, out) == (2, "")
    assert err == f"{tmp_path}/runs: holds 3 runs; name one of them, for example {first}\n"
