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

"""The failure lab: its table is complete, a run comes back as it was written, one fault is trained, recorded, found."""

import math
import subprocess
import sys

import pytest
import tiny
import torch
from failure_lab import corpus, hidden, live, record
from failure_lab.recipe import WANTED, Recipe, recipes
from failure_lab.table import FAMILIES, FAULTS, RECIPES, as_text

from trl_diagnostics.engine.finding import Finding, Record
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import MetricMap
from trl_diagnostics.sources.memory import GIB, memory


RULES = collect_rules()
KNOWN = {rule.name for rule in RULES} | WANTED
FAULTY = [recipe for recipe in RECIPES.values() if recipe.fault]
HEALTHY = [recipe for recipe in RECIPES.values() if not recipe.fault]
VARIANTS = {
    "dpo": {"", "ipo", "hinge", "apo_zero", "robust"},
    "cpo": {"", "simpo"},
    "grpo": {"", "grpo", "dr_grpo", "cispo", "beta"},
}


def test_every_name_is_there_once():
    assert len(RECIPES) == sum(len(family.RECIPES) for family in FAMILIES)


def test_there_are_as_many_faults_and_runs_as_promised():
    assert len(FAULTS) >= 50
    assert sum(len(recipe.all_seeds) for recipe in FAULTY) >= 300
    assert sum(len(recipe.all_seeds) for recipe in HEALTHY) >= 200


def test_every_trainer_and_variant_is_there_faulty_and_healthy():
    assert {recipe.trainer for recipe in FAULTY} == {recipe.trainer for recipe in HEALTHY} == set(tiny.TRAINERS)
    for trainer, variants in VARIANTS.items():
        for some in (FAULTY, HEALTHY):
            assert variants <= {recipe.variant for recipe in some if recipe.trainer == trainer}


def test_what_the_logs_hide_is_of_many_kinds():
    assert len({recipe.fault for recipe in hidden.RECIPES}) >= 15
    assert {recipe.fault for recipe in hidden.RECIPES}.isdisjoint(
        recipe.fault for recipe in FAULTY if recipe not in hidden.RECIPES
    )


WRITE_ANSWERS = {"grpo", "rloo", "online_dpo", "distillation", "gkd"}


def test_health_has_eight_seeds_and_two_hundred_logs():
    for recipe in HEALTHY:
        assert len(recipe.all_seeds) >= 8, recipe.name
        writes = recipe.variant == "logging10" and recipe.trainer in WRITE_ANSWERS
        logs = recipe.steps // recipe.overrides.get("logging_steps", 1)
        assert logs >= (100 if writes else 200), recipe.name  # those that write answers take long


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_recipe_is_complete(recipe):
    unknown = {*recipe.expected, *recipe.symptoms} - KNOWN
    assert not unknown, f"neither a rule nor in recipe.WANTED: {sorted(unknown)}"
    assert recipe.trainer in tiny.TRAINERS
    assert recipe.cause and not recipe.cause.endswith(".")
    assert bool(recipe.fault) == bool(recipe.expected)
    assert (0 if recipe in hidden.RECIPES else 1) <= recipe.onset < recipe.steps
    assert recipe.arguments(0)["max_steps"] == recipe.steps


@pytest.mark.parametrize(
    "recipe", [recipe for recipe in RECIPES.values() if recipe.replay], ids=lambda recipe: recipe.name
)
def test_a_replay_gives_the_same_logs_for_the_same_seed_under_keys_of_trl(recipe):
    run, again, other = (recipe.replay(seed) for seed in (0, 0, 1))
    assert len(run) == recipe.steps
    assert repr(run) == repr(again) != repr(other)
    metric_map = MetricMap(recipe.trainer)
    assert [key for log in run for key in log if not metric_map.is_logged(key)] == []


def test_rows_add_to_what_they_have_in_common():
    first, second = recipes({"trainer": "sft", "cause": "c", "steps": 10}, {}, {"variant": "v", "steps": 20})
    assert (first.name, first.steps) == ("healthy__sft", 10)
    assert (second.name, second.steps) == ("healthy__sft__v", 20)
    assert first.arguments(3) == {"max_steps": 10, "seed": 3}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (0.693147182464599, 0.6931472),
        (0.0, 0.0),
        (-1.23456789e-12, -1.234568e-12),
        (123456789.0, 123456789.0),
        (None, None),
        ("NaN", "NaN"),
    ],
)
def test_numbers_keep_seven_digits_and_exact_ones_stay(value, stored):
    assert corpus.rounded(value) == stored


def test_a_run_comes_back_and_is_written_the_same_twice(tmp_path):
    records = [
        Record(1, 1000.25, "train", {"loss": 1 / 3, "entropy": None}),
        Record(2, 1001.5, "train", {"loss": 0.0, "grad_norm": math.nan, "kl": -math.inf}),
    ]
    corpus.write_run(tmp_path / "a.jsonl.gz", {"name": "a"}, records)
    corpus.write_run(tmp_path / "b.jsonl.gz", {"name": "a"}, records)
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl.gz", "b.jsonl.gz"]
    label, back = corpus.read_run(tmp_path / "a.jsonl.gz")
    assert label == {"name": "a"}
    assert [(one.step, one.time, one.phase) for one in back] == [(1, 0.0, "train"), (2, 1.25, "train")]
    assert back[0].metrics == {"loss": 0.3333333, "entropy": None}
    assert math.isnan(back[1].metrics["grad_norm"]) and back[1].metrics["kl"] == -math.inf


def test_a_new_label_leaves_the_records_alone(tmp_path):
    recipe = RECIPES["lr_zero__sft"]
    path = record.path_of(recipe, 0, tmp_path)
    old = record.label_of(recipe, 0) | {"expected": [], "trl_version": "1.16.0"}
    corpus.write_run(path, old, [Record(1, 0.0, "train", {"loss": 1.0})])
    record.relabel([(recipe, 0), (recipe, 1)], tmp_path)
    label, records = corpus.read_run(path)
    assert label == old | {"expected": ["lr_zero"]}
    assert records == [Record(1, 0.0, "train", {"loss": 1.0})]


def test_the_list_ends_with_the_counts():
    *lines, last = as_text([RECIPES["lr_zero__sft"], RECIPES["healthy__sft"]]).splitlines()
    assert [line.split()[0] for line in lines] == ["lr_zero__sft", "healthy__sft"]
    assert last == "1 kinds of fault; 2 faulty and 8 healthy runs"


def test_the_recorded_corpus_fits_the_table():
    files = sorted(corpus.FOLDER.glob(f"*{corpus.SUFFIX}"))
    assert sum(file.stat().st_size for file in files) <= 15e6
    for file in files:
        name, _, seed = file.name.removesuffix(corpus.SUFFIX).rpartition("__")
        assert name in RECIPES, f"{file.name} is of no recipe"
        label, _ = corpus.read_run(file)
        assert label | record.label_of(RECIPES[name], int(seed)) == label, f"{file.name}: run record.py --relabel"


def test_a_replayed_fault_is_recorded_and_found(tmp_path):
    outcome = record.record_run(RECIPES["vllm_weights_stale__grpo"], 0, tmp_path)
    assert (outcome.records, outcome.error) == (150, None)
    label, records = corpus.read_run(tmp_path / "vllm_weights_stale__grpo__0.jsonl.gz")
    assert label["replayed"] and label["config"]["use_vllm"]
    findings = [f for f in corpus.replay(label, records, RULES) if f.state == "started" and f.severity != "info"]
    assert findings[0].rule in label["expected"] and 80 < findings[0].step <= 90


@pytest.mark.slow
def test_a_fault_is_trained_recorded_skipped_and_found(tmp_path):
    """As `make lab` does it: in processes of its own."""
    command = [sys.executable, record.__file__, "--only", "labels_masked__sft__later", "--seeds", "0"]
    command += ["--processes", "1", "--folder", tmp_path]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    assert "1 of 1 runs to record" in first.stdout and "0 of 1 runs to record" in again.stdout
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 15_000
    label, records = corpus.read_run(path)
    assert label.keys() == {
        *record.label_of(RECIPES[label["name"]], 0),
        "trainer",
        "trl_version",
        "config",
        "error",
        "seconds",
    }
    assert (label["trainer"], label["error"], label["onset"]) == ("sft", None, 51)
    assert label["config"]["max_steps"] == 100 and "output_dir" not in label["config"]
    assert [one.phase for one in records] == ["preflight"] + ["train"] * 100 + ["summary"]
    assert records[1].metrics["nonfinite_parameters"] == 0
    started = [finding for finding in corpus.replay(label, records, RULES) if finding.state == "started"]
    assert started[0].rule in label["expected"] and 51 <= started[0].step <= 55


@pytest.mark.slow
def test_a_run_that_ends_with_an_error_is_kept(tmp_path):
    outcome = record.record_run(RECIPES["nan_weights__grpo"], 0, tmp_path)
    assert outcome.records == 11 and outcome.error.startswith("RuntimeError: probability tensor")
    label, records = corpus.read_run(tmp_path / "nan_weights__grpo__0.jsonl.gz")
    assert label["error"] == outcome.error
    assert records[-1].metrics["nonfinite_parameters"] > 0


@pytest.mark.slow
def test_a_training_that_cannot_begin_is_kept_with_what_was_seen_before(tmp_path):
    outcome = record.record_run(RECIPES["reward_raises__grpo__one_for_all"], 0, tmp_path)
    assert outcome.records == 1 and outcome.error.startswith(
        "ValueError: The reward function 'one_for_all' returned 1"
    )
    label, records = corpus.read_run(tmp_path / "reward_raises__grpo__one_for_all__0.jsonl.gz")
    (finding,) = (one for one in corpus.replay(label, records, RULES) if one.severity != "info")
    assert (finding.rule, finding.step, label["onset"]) == ("reward_function_wrong_count", 0, 0)


def test_memory_that_leaks_in_the_lab_takes_its_space_once():
    leak = RECIPES["host_memory_leak__sft"].callbacks[0]()
    leak.on_train_begin(None, None, None)
    before = memory(torch.device("cpu"))["cpu_memory"]
    for _ in range(20):
        leak.on_step_end(None, None, None)
    grown = memory(torch.device("cpu"))["cpu_memory"] - before
    leak.on_train_end(None, None, None)
    assert grown == pytest.approx(20 * leak.size / GIB, rel=0.2)
    assert memory(torch.device("cpu"))["cpu_memory"] - before < grown / 2


def _said(rule, severity, step):
    return Finding(rule, severity, "started", step, step, "loss", 0.0, "what is wrong")


def test_what_was_said_live_is_summed_up():
    quiet = live.Watched([], None, {})
    loud = live.Watched([_said("a", "low", 0), _said("b", "high", 7)], "b", {"probes": "ValueError"})
    assert live.as_text("one", quiet) == "one: to its end"
    assert live.as_text("two", loud).splitlines() == [
        "two: STOPPED by b",
        "    low a at step 0: what is wrong",
        "    high b at step 7: what is wrong",
        "    BROKEN probes: ValueError",
    ]
    assert live.summary([quiet, loud, loud]).splitlines() == [
        "3 healthy trainings: 2 stopped, 2 with a warning; findings by rule:",
        "    2 a (low)",
        "    2 b (high)",
    ]


@pytest.mark.slow
def test_a_recipe_is_watched_live():
    assert live.watch("healthy__sft", 0, max_steps=15) == live.Watched([], None, {})
    broken = live.watch("reference_is_the_policy__dpo", 0, max_steps=15)
    assert [one.rule for one in broken.findings][:1] == ["reference_shares_weights"]
    assert broken.stopped_by == "reference_shares_weights"


def test_an_error_in_a_recipe_is_not_taken_for_a_fault(tmp_path):
    recipe = Recipe(trainer="sft", fault="x", cause="c", overrides={"no_such_argument": 1})
    with pytest.raises(TypeError, match="no_such_argument"):
        record.record_run(recipe, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []
