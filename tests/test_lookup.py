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

"""The spellings of metrics and who logs them, against facts read from TRL's source."""

import itertools
import json

import pytest
import typical_values
from failure_lab.corpus import write_run

from trl_diagnostics.engine.finding import Record
from trl_diagnostics.engine.rule import load_rules
from trl_diagnostics.metrics.catalogue import index, names, parse_version, typical
from trl_diagnostics.metrics.lookup import (
    entries_of_derived,
    from_transformers,
    is_passed_through,
    logged_as,
    looks_at,
    meant_by,
    spellings,
    trainers_with,
)


@pytest.mark.parametrize(
    ("text", "trainer", "meant"),
    [
        ("kl", None, ["kl", "kl_sequence", "kl_reference_point", "kl_behaviour"]),
        ("kl", "kto", ["kl_reference_point"]),
        ("kl", "asyncgrpo", ["kl_behaviour"]),
        ("objective/kl", None, ["kl_sequence"]),
        ("rewards/margins", None, ["reward_margin", "policy_ref_logp_gap"]),
        ("rewards/margins", "nashmd", ["policy_ref_logp_gap"]),
        ("eval_rewards/margins", None, ["reward_margin", "policy_ref_logp_gap"]),
        ("reward_std", None, ["reward_std", "group_reward_std"]),
        ("rewards/accuracy/mean", None, ["rewards/{name}/mean"]),
        ("rewards/accuracy/mean", "grpo", ["rewards/{name}/mean"]),
        ("is_ratio", None, ["importance_sampling_ratio"]),
        ("eval_perplexity", None, ["eval_perplexity", "perplexity"]),
        ("no_such_thing", None, []),
    ],
)
def test_meant_by(text, trainer, meant):
    assert meant_by(text, trainer) == meant


def test_every_spelling_is_known():
    assert [text for text in spellings() if not meant_by(text)] == []


def test_who_logs_it_since_when():
    rows = {(row.trainer, row.key): (row.since, row.until, row.when) for row in logged_as("kl")}
    assert rows["grpo", "kl"] == ("0.14.0", None, "beta != 0.0")
    assert ("kto", "kl") not in rows
    # GRPO's reward_std was within groups until TRL 0.26 and is over the batch since
    until = {row.trainer: row.until for row in logged_as("group_reward_std") if row.key == "reward_std"}
    since = {row.trainer: row.since for row in logged_as("reward_std") if row.key == "reward_std"}
    assert (until["grpo"], since["grpo"]) == ("0.26.2", "0.27.0")
    assert [row.key for row in logged_as("clip_fraction") if row.trainer == "grpo"] == [
        "clip_ratio/region_mean",
        "clip_ratio",
    ]


def test_overlapping_releases_of_a_trainer_are_one_span():
    spans = {}
    for name in names().names:
        for row in logged_as(name):
            spans.setdefault((name, row.key, row.trainer, row.when), []).append((row.since, row.until))
    assert spans["kl_sequence", "objective/kl", "ppo", None] == [("0.7.0", "1.12.0")]
    assert spans["kl_reference_point", "kl", "kto", None] == [("0.8.0", "0.8.1"), ("0.9.2", None)]
    for several in spans.values():
        for (_, until), (since, _) in itertools.pairwise(several):
            assert until is not None and parse_version(until) < parse_version(since)


def test_who_logs_it():
    assert trainers_with("objective/scores_margin") == ["onlinedpo", "xpo"]
    assert {"kto", "grpo"} <= set(trainers_with("kl")) and "dpo" not in trainers_with("kl")
    assert "grpo" not in trainers_with("rewards/margins")
    assert "rloo" in trainers_with("kl_penalty") and trainers_with("no_such_thing") == []


def test_every_name_comes_from_somewhere():
    nowhere = [
        name
        for name, entry in names().names.items()
        if not (logged_as(name) or from_transformers(name) or "source" in entry)
    ]
    assert nowhere == []


def test_what_passes_through():
    assert is_passed_through("perf/mfu") and is_passed_through("eval_rollout/anything")
    assert not is_passed_through("no_such_thing")


def test_looks_at(tmp_path):
    text = 'name: boom\ntrainers: [{}]\nmetric: {}\ncondition: "{}"\nseverity: low\nmessage: Boom.\n'

    def rule(trainers, metric, condition="> 1"):
        (tmp_path / "boom.yaml").write_text(text.format(trainers, metric, condition))
        return load_rules(tmp_path)[0]

    assert looks_at(rule("dpo", "rewards/margins"), "reward_margin")
    assert looks_at(rule("dpo", "loss", "> rewards/margins"), "reward_margin")
    assert looks_at(rule("all", "rewards/margins"), "reward_margin")
    assert not looks_at(rule("nashmd", "rewards/margins"), "reward_margin")
    assert looks_at(rule("kto", "kl"), "kl_reference_point") and not looks_at(rule("kto", "kl"), "kl")
    assert looks_at(rule("grpo", "'rewards/*/std'"), "rewards/{name}/std")
    assert not looks_at(rule("grpo", "'rewards/*/std'"), "rewards/{name}/mean")
    assert looks_at(rule("sft", "eval_loss"), "loss")
    assert looks_at(rule("all", "loss", "> 1 and step > 5"), "step")


def test_typical_values_are_of_known_metrics_and_trainers():
    assert len(typical()) >= 30
    for name, ranges in typical().items():
        assert name in names().names or entries_of_derived(name), name
        assert set(ranges) <= set(index()["trainers"]), name
        assert all(low <= high for low, high in ranges.values()), name


def test_typical_values_are_measured_on_healthy_trained_runs_with_even_seeds_and_default_loss(tmp_path):
    label = {"fault": None, "replayed": False, "seed": 0, "trainer": "dpo", "config": {}}
    records = [Record(step, 0.0, "train", {"loss": step / 100, "reward_margin": None}) for step in range(1, 101)]
    records += [Record(1, 0.0, "eval", {"loss": 9.0}), Record(1, 0.0, "train", {"rewards/accuracy/mean": 0.5})]
    for i, change in enumerate(
        [{}, {"seed": 1}, {"fault": "x"}, {"replayed": True}, {"config": {"loss_type": ["ipo"]}}]
    ):
        write_run(tmp_path / f"healthy__{i}.jsonl.gz", label | change, records)
    found = typical_values.collect(sorted(tmp_path.iterdir()))
    assert {name: {trainer: len(values) for trainer, values in by.items()} for name, by in found.items()} == {
        "loss": {"dpo": 100},
        "rewards/{name}/mean": {"dpo": 1},
    }
    assert typical_values.text(found) == (
        '{\n "loss": {"dpo": [0.059, 0.95]},\n "rewards/{name}/mean": {"dpo": [0.5, 0.5]}\n}\n'
    )


def test_typical_values_are_not_written_without_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(typical_values, "ROOT", tmp_path)
    monkeypatch.setattr(typical_values, "OUTPUT", tmp_path / "typical.json")
    (tmp_path / "typical.json").write_text("kept")
    assert typical_values.main([str(tmp_path / "runs"), "--write"]) == 1
    problem = f"no healthy recorded runs in {tmp_path}/runs: record them with `make lab`\n"
    assert capsys.readouterr() == ("", problem)
    assert (tmp_path / "typical.json").read_text() == "kept"
    label = {"fault": None, "replayed": False, "seed": 0, "trainer": "dpo", "config": {}}
    write_run(tmp_path / "healthy__0.jsonl.gz", label, [Record(1, 0.0, "train", {"loss": 3e-05})])
    assert typical_values.main([str(tmp_path), "--write"]) == 0
    assert json.loads((tmp_path / "typical.json").read_text()) == {"loss": {"dpo": [3e-05, 3e-05]}}
