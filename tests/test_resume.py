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

"""What differs at a resume, how it is said and judged, and whether the run goes on as it was."""

import copy
import json
import math
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoints import checkpoint
from tiny import tiny_model
from tiny_data import tiny_tokenizer
from trl import GRPOConfig, SFTConfig

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.engine.rule import load_rules
from trl_diagnostics.engine.rulebook import BUILTIN, collect_rules
from trl_diagnostics.metrics.names import MetricMap, known_trainers
from trl_diagnostics.sinks.provenance import collect_provenance
from trl_diagnostics.sources.continuity import AFTER, BEFORE, Continuity, compare_logs
from trl_diagnostics.sources.resume import (
    ARGUMENTS,
    BREAKS,
    CHANGES,
    HARMLESS,
    Difference,
    differences,
    effective_batch_size,
    resume_record,
)


RULES = load_rules(BUILTIN / "resume")
ROWS = [{"text": "a" * (i % 50 + 1), "n": i} for i in range(200)]


def metadata(model=None, rows=None, config=SFTConfig, **arguments):
    """Metadata of a run, collected from real objects."""
    args = config(output_dir="out", use_cpu=True, bf16=arguments.pop("bf16", False), **arguments)
    tokenizer = tiny_tokenizer()
    data = Dataset.from_list(ROWS) if rows is None else rows
    model = tiny_model(seed=0) if model is None else model
    # without the repository: whoever works on it commits while the tests run
    return {"trainer": "sft", **collect_provenance(args, model, tokenizer, data), "git": None}


@pytest.fixture(scope="module")
def before():
    return metadata()


def changed(metadata, **fields):
    """A copy with other values; `model__class` is the field `class` of `model`."""
    other = copy.deepcopy(metadata)
    for path, value in fields.items():
        *parents, last = path.split("__")
        place = other
        for parent in parents:
            place = place[parent]
        place[last] = value
    return other


def judge(before, after, checkpoint=None, step=20):
    """Names of the rules that speak about a resume, but for what is only a remark."""
    record = Record.from_json(json.loads(json.dumps(resume_record(before, after, checkpoint, step).to_json())))
    engine = Engine(RULES, "sft", {"logging_steps": 10}, MetricMap("sft"))
    return [finding.rule for finding in engine.update(record) if finding.severity != "info"]


def said(before, after, name):
    findings = Engine(RULES, "sft", {}, MetricMap("sft")).update(resume_record(before, after, None, 20))
    return next(finding.message for finding in findings if finding.rule == name)


# What differs


def test_the_same_run_has_no_difference(before, tmp_path):
    path = checkpoint(tmp_path, 20)
    assert differences(before, metadata(), path) == []
    record = resume_record(before, metadata(), path, 20)
    assert (record.phase, record.step) == ("resume", 20)
    known = {name: value for name, value in record.metrics.items() if not name.endswith(("_before", "_after"))}
    assert set(known.values()) == {0.0}
    assert {f"resume_{topic}" for topic in ARGUMENTS if topic != "argument"} <= set(known)
    assert judge(before, metadata(), path) == []


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"learning_rate": 1e-3}, "resume_learning_rate_changed"),
        ({"lr_scheduler_type": "cosine"}, "resume_schedule_changed"),
        ({"max_steps": 700}, "resume_schedule_changed"),
        ({"seed": 43}, "resume_seed_changed"),
        ({"data_seed": 7}, "resume_data_order_changed"),
        ({"per_device_train_batch_size": 4}, "resume_batch_size_changed"),
        ({"gradient_accumulation_steps": 2}, "resume_batch_size_changed"),
        ({"bf16": True}, "resume_precision_changed"),
        ({"optim": "sgd"}, "resume_optimizer_changed"),
        ({"max_grad_norm": 5.0}, "resume_argument_changed"),
        ({"loss_type": "dft"}, "resume_setting_changed"),
        ({"assistant_only_loss": True}, "resume_setting_changed"),
        ({"ignore_data_skip": True}, "resume_data_seen_again"),
    ],
)
def test_each_argument_has_its_rule(before, arguments, rule):
    assert judge(before, metadata(**arguments)) == [rule]


@pytest.mark.parametrize(
    "arguments",
    [
        {"logging_steps": 3},
        {"save_strategy": "no"},
        {"report_to": ["tensorboard"]},
        {"eval_strategy": "steps", "eval_steps": 5},
        {"dataloader_num_workers": 4},
        {"gradient_checkpointing": False},
        {"run_name": "again", "disable_tqdm": True},
        {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    ],
)
def test_what_does_not_reach_the_weights_is_harmless(before, arguments):
    after = metadata(**arguments)
    found = differences(before, after)
    assert found and {difference.effect for difference in found} == {HARMLESS}
    assert judge(before, after) == []
    assert resume_record(before, after, None, 1).metrics["resume_other"] == 1.0


def test_numbers_and_texts_are_said(before):
    after = metadata(learning_rate=1e-3, per_device_train_batch_size=16, max_grad_norm=0.5, seed=3, loss_type="dft")
    assert said(before, after, "resume_learning_rate_changed") == (
        "learning_rate was 2e-05 and is 0.001; the checkpoint's optimizer keeps the old one."
    )
    assert said(before, after, "resume_batch_size_changed") == (
        "Samples per step were 8 and are 16: data already seen are skipped by the wrong amount."
    )
    assert said(before, after, "resume_argument_changed") == "max_grad_norm was 1 and is 0.5."
    assert said(before, after, "resume_seed_changed") == (
        "seed was 42 and is 3: what is left of the epoch comes in another order."
    )
    assert [one.field for one in differences(before, after) if one.effect == HARMLESS] == []  # the batch is said once
    assert sorted(str(one) for one in differences(before, after) if one.effect != HARMLESS) == [
        "effective_batch_size was 8 and is 16",
        "learning_rate was 2e-05 and is 0.001",
        "loss_type was nll and is dft",
        "max_grad_norm was 1 and is 0.5",
        "seed was 42 and is 3",
    ]


def test_long_values_are_cut_in_words_and_whole_in_json():
    difference = Difference("train_dataset.columns", ["c" * 100], None, CHANGES, "dataset")
    assert len(str(difference)) < 120 and str(difference).endswith("... and is None")
    assert difference.to_json() == {
        "field": "train_dataset.columns",
        "before": ["c" * 100],
        "after": None,
        "effect": "changes the run",
    }


def test_what_breaks_comes_first(before):
    after = metadata(optim="sgd", learning_rate=1e-3, logging_steps=1)
    effects = [difference.effect for difference in differences(before, after)]
    assert effects == sorted(effects, key=(BREAKS, CHANGES, HARMLESS).index)
    assert effects[0] == BREAKS and effects[-1] == HARMLESS


def shuffled(seed):
    return Dataset.from_list(ROWS).shuffle(seed=seed)


@pytest.mark.parametrize(
    ("rows", "rules"),
    [
        (Dataset.from_list(ROWS), []),
        (Dataset.from_list([*ROWS]).map(lambda row: row), []),  # another fingerprint of the same rows
        (shuffled(1), ["resume_data_order_changed"]),
        (shuffled(1).flatten_indices(), ["resume_data_order_changed"]),
        (Dataset.from_list(ROWS[::-1]), ["resume_data_order_changed"]),
        (Dataset.from_list(ROWS[:150]), ["resume_dataset_changed"]),
        (Dataset.from_list([{"text": f"{row['text']}b", "n": 0} for row in ROWS]), ["resume_dataset_changed"]),
        (Dataset.from_list([{"text": row["text"]} for row in ROWS]), ["resume_dataset_changed"]),
        (Dataset.from_list(ROWS).to_iterable_dataset(), ["resume_dataset_changed"]),
    ],
    ids=["same", "mapped", "shuffled", "flattened", "reversed", "fewer", "other texts", "other columns", "a stream"],
)
def test_data(before, rows, rules):
    assert judge(before, metadata(rows=rows)) == rules


def lora(rank):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(tiny_model(seed=0), LoraConfig(r=rank, target_modules=["q_proj"], task_type="CAUSAL_LM"))


def test_model(before):
    assert judge(before, metadata(tiny_model(seed=0).to(torch.bfloat16))) == ["resume_precision_changed"]
    trained = tiny_model(seed=5)  # the weights are others after some steps
    assert judge(before, metadata(trained)) == []
    assert judge(before, metadata(lora(4))) == ["resume_model_changed"]
    assert judge(metadata(lora(4)), metadata(lora(8))) == ["resume_model_changed"]
    assert judge(metadata(lora(4)), metadata(lora(4))) == []


def test_the_base_of_an_adapter_must_stay_what_it_was():
    other = lora(4)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.25 * (not parameter.requires_grad))
    assert judge(metadata(lora(4)), metadata(other)) == ["resume_model_changed"]
    sharded = [changed(metadata(model), model__fingerprint__sharded=True) for model in (lora(4), other)]
    assert judge(*sharded) == []


@pytest.mark.parametrize(
    ("fields", "rules"),
    [
        ({"trainer": "dpo"}, ["resume_trainer_changed"]),
        ({"world_size": 4}, ["resume_batch_size_changed", "resume_world_size_changed"]),
        ({"model__parameters": 7}, ["resume_model_changed"]),
        ({"model__config_hash": "x"}, ["resume_model_changed"]),
        ({"model__config_hash": "x", "packages__transformers": "9"}, ["resume_packages_changed"]),
        ({"model__name_or_path": "/elsewhere"}, []),
        ({"tokenizer__chat_template_hash": "x"}, ["resume_tokenizer_changed"]),
        ({"tokenizer__special_tokens__eos_token": "<end>"}, ["resume_tokenizer_changed"]),
        ({"packages__torch": "1.0"}, ["resume_packages_changed"]),
        ({"git": {"commit": "a", "dirty": True}}, []),  # one side knows no repository: nothing to compare
        ({"hardware__cpu": "another", "python__version": "3.0", "os__host": "b"}, []),
        ({"arguments__deepspeed": {"zero_optimization": {"stage": 3}}}, ["resume_sharding_changed"]),
        ({"seeds__torch": 1, "created": "later", "arguments_hash": "x", "environment": {}}, []),
        ({"model": {"error": "ValueError: no"}, "train_dataset": None}, []),
    ],
)
def test_fields(before, fields, rules):
    assert judge(before, changed(before, **fields)) == rules


def test_another_commit(before):
    one = changed(before, git={"commit": "a", "dirty": False, "branch": "main"})
    assert judge(one, changed(one, git__branch="other")) == []
    assert judge(one, changed(one, git__commit="b")) == ["resume_code_changed"]


def test_other_evaluation_data(before):
    args = SFTConfig(output_dir="out", use_cpu=True, bf16=False)
    runs = [
        {"trainer": "sft", **collect_provenance(args, None, None, None, Dataset.from_list(ROWS[:n]))} for n in (20, 30)
    ]
    assert judge(*runs) == ["resume_eval_dataset_changed"]


def test_a_world_size_with_the_same_samples_per_step(before):
    after = changed(metadata(per_device_train_batch_size=2), world_size=4)
    assert effective_batch_size(after) == effective_batch_size(before) == 8
    assert judge(before, after) == ["resume_world_size_changed"]
    assert said(before, after, "resume_world_size_changed") == (
        "1 processes before the resume, 4 now: each gets other rows and other random numbers."
    )


def test_what_follows_from_the_batch_size_is_not_said_again():
    small, large = (metadata(config=GRPOConfig, per_device_train_batch_size=n) for n in (8, 16))
    assert small["arguments"]["generation_batch_size"] != large["arguments"]["generation_batch_size"]
    assert judge(small, large) == ["resume_batch_size_changed"]


@pytest.mark.parametrize(
    ("left_out", "rules"),
    [
        (["optimizer.pt"], ["resume_optimizer_state_missing"]),
        (["scheduler.pt"], ["resume_scheduler_state_missing"]),
        (["rng_state.pth"], ["resume_random_states_missing"]),
        (["trainer_state.json"], ["resume_checkpoint_incomplete"]),
        (["model.safetensors"], ["resume_checkpoint_incomplete"]),
    ],
)
def test_what_the_checkpoint_lacks(before, left_out, rules, tmp_path):
    path = checkpoint(tmp_path, 20, left_out)
    assert judge(before, before, path) == rules
    (difference,) = differences(before, before, path)
    assert (difference.before, difference.after) == ("there", "missing")


def test_more_processes_than_random_states(before, tmp_path):
    path = checkpoint(tmp_path, 20)
    assert "resume_random_states_missing" in judge(before, changed(before, world_size=2), path)


def test_without_metadata_of_before_only_the_checkpoint_is_judged(before, tmp_path):
    path = checkpoint(tmp_path, 20, ["optimizer.pt"])
    assert judge({}, before, path) == judge({}, {}, path) == ["resume_optimizer_state_missing"]
    assert differences({}, before) == differences({}, {}) == []
    assert set(resume_record({}, {}, None, 1).metrics) == set()


def test_an_argument_that_one_release_does_not_have_is_not_compared(before):
    older = changed(before)
    del older["arguments"]["padding_free"]
    assert differences(older, before) == differences(before, older) == []


@pytest.mark.parametrize("trainer", known_trainers())
def test_every_topic_names_something_that_exists(trainer):
    """Arguments of all trainers fall under a topic, those that change the numbers not under the harmless one."""
    defaults = MetricMap(trainer).defaults
    after = {"arguments": dict.fromkeys(defaults, "other")}
    found = differences({"arguments": defaults}, after)
    assert {one.field.partition(".")[0] for one in found} == set(defaults)
    harmless = {one.field for one in found if one.effect == HARMLESS}
    reaching = {
        "beta",
        "loss_type",
        "learning_rate",
        "max_length",
        "temperature",
        "num_generations",
        "epsilon",
        "seed",
    }
    assert not harmless & reaching


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
KEYS = ["arguments", "model", "train_dataset", "world_size", "packages", "tokenizer", "trainer", "git"]
SECTION = st.none() | st.dictionaries(st.sampled_from(["class", "rows", "seed", "beta", "fingerprint"]), VALUES)


@settings(max_examples=100)
@given(*[st.dictionaries(st.sampled_from(KEYS), SECTION)] * 2)
def test_any_metadata_can_be_compared(one, other):
    record = resume_record(one, other, None, 3)
    assert (
        Record.from_json(json.loads(json.dumps(record.to_json(), allow_nan=False))).metrics.keys()
        == record.metrics.keys()
    )
    assert not [d for d in differences(one, one) if d.before == d.before]


# How the engine takes it


def sft_engine(**config):
    return Engine(collect_rules(), "sft", {"logging_steps": 1, **config}, MetricMap("sft"))


def train_records(n, first=1, seconds=1.0):
    noise = np.random.default_rng(first).normal(0, 0.02, n)
    return [
        Record(
            first + i, (first + i) * seconds, "train", {"loss": 1 + float(noise[i]), "grad_norm": 1 + float(noise[i])}
        )
        for i in range(n)
    ]


def test_a_resume_record_disturbs_no_other_rule(before):
    """The engine remembers, counts and finds the same with resume records among the others as without."""
    records = train_records(80)
    plain, resumed = sft_engine(), sft_engine()
    found = [finding for record in records for finding in plain.update(record)]
    with_resume = []
    for record in records:
        with_resume += resumed.update(record)
        if record.step == 40:
            with_resume += resumed.update(resume_record(before, metadata(learning_rate=1.0), None, 40))
    ours = [finding for finding in with_resume if finding.metric.startswith("resume")]
    assert [finding.rule for finding in ours] == ["resume_learning_rate_changed"]
    assert [finding for finding in with_resume if finding not in ours] == found
    assert resumed.records == plain.records
    state, expected = resumed.state_dict(), plain.state_dict()
    for name, history in expected["histories"].items():
        assert name.startswith("resume") or state["histories"][name] == history
    for key, episode in expected["judges"].items():
        assert key.startswith("resume") or state["judges"][key] == episode


def test_each_resume_is_judged_anew(before):
    engine = Engine(RULES, "sft", {}, MetricMap("sft"))
    rates = [1e-3, 1e-3, 2e-5, 1e-3, 5e-3]
    steps = []
    for step, rate in enumerate(rates):
        record = resume_record(before, changed(before, arguments__learning_rate=rate), None, step)
        steps += [finding.step for finding in engine.update(record) if finding.state == "started"]
        engine_after = Engine(RULES, "sft", {}, MetricMap("sft"))
        engine_after.load_state_dict(json.loads(json.dumps(engine.state_dict())))
        engine = engine_after
    assert steps == [0, 1, 3, 4]


def test_a_run_without_a_resume_is_not_blind_to_one():
    engine = sft_engine()
    for record in train_records(50):
        engine.update(record)
    states = {state for rule, state in engine.coverage().items() if rule.startswith("resume_")}
    assert states == {"not applicable"}


# How the run goes on


def series(level=1.0, noise=0.05, slope=0.0, seed=0, n=200):
    drawn = np.random.default_rng(seed).normal(0, noise, n)
    return [level + slope * i + float(drawn[i]) for i in range(n)]


def play(values, resume_at=100, metric="loss", split=False, more=None):
    """Records about continuity; with `split` everything goes through JSON at each step."""
    continuity, found = Continuity(), []
    for i, value in enumerate(values, 1):
        if split:
            state = json.loads(json.dumps(continuity.state_dict(), allow_nan=False))
            continuity = Continuity()
            continuity.load_state_dict(state)
        extra = {name: column[i - 1] for name, column in (more or {}).items()}
        record = continuity.update(Record(i, float(i), "train", {metric: value, **extra}))
        found += [record] if record else []
        if i == resume_at:
            continuity.resume(i)
    return found


def test_the_first_and_the_tenth_log_are_answered():
    first, tenth = play(series())
    assert (first.step, first.phase, first.metrics) == (101, "resume", {"resume_first_log": 1.0})
    assert (tenth.step, tenth.phase) == (100 + AFTER, "resume")
    names = ("shift", "change", "chance", "was_low", "was_high", "now")
    assert set(tenth.metrics) == {f"resume_{name}/loss" for name in names}
    assert abs(tenth.metrics["resume_shift/loss"]) < 2


def test_state_goes_through_json_at_any_point():
    values = series(slope=-0.001)
    more = {"learning_rate": [1e-3 * (1 - i / 200) for i in range(200)], "epoch": [i / 50 for i in range(200)]}
    assert play(values, more=more, split=True) == play(values, more=more)


def test_memory_is_bounded():
    continuity = Continuity()
    sizes = []
    for i in range(1, 2001):
        continuity.update(
            Record(i, float(i), "train", {"loss": 1.0 + i % 7, "learning_rate": 1e-3, f"metric_{i}": 1.0})
        )
        if i % 300 == 0:
            continuity.resume(i)
        sizes.append(len(json.dumps(continuity.state_dict())))
    assert max(sizes[1000:]) <= max(sizes[:1000]) + 10
    assert len(continuity.bands["loss"]) == BEFORE


def shifts(values, **kwargs):
    record = play(values, **kwargs)[-1]
    name = kwargs.get("metric", "loss")
    return tuple(record.metrics[f"resume_{kind}/{name}"] for kind in ("shift", "change", "chance"))


def test_a_jump_is_measured():
    values = series()
    shift, change, chance = shifts([*values[:100], *(value + 0.5 for value in values[100:])])
    assert shift == pytest.approx(10, rel=0.3) and change == pytest.approx(0.5, rel=0.1) and chance < 1e-4


def test_a_trend_may_go_on_or_end():
    falling = series(3, slope=-0.01)
    level = falling[:100] + [2.0 + value - 1 for value in series(seed=1, n=100)]
    for values in (falling, level):
        assert abs(shifts(values)[0]) < 2
    back = falling[:100] + falling[40:140]
    assert shifts(back)[0] > 4


def test_single_outliers_do_not_count():
    values = series()
    for i in (70, 80, 90, 103, 107):
        values[i] = 50.0
    assert abs(shifts(values)[0]) < 2


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=10, max_size=60), st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=10)
)
@settings(max_examples=100)
def test_any_numbers_can_be_compared(before, after):
    found = compare_logs(before, after)
    assert found is None or all(map(math.isfinite, found))


def test_what_never_scattered_has_no_band():
    assert play([1.0] * 200)[-1].metrics == {"resume_first_log": 1.0}


def test_too_few_logs_before_have_no_band_and_nan_does_not_count():
    assert [record.step for record in play(series(), resume_at=5)] == [6]
    values = series()
    for i in (60, 75, 102, 104):
        values[i] = math.nan
    assert abs(shifts(values)[0]) < 2


def test_lines_go_on():
    rate = [1e-3 * (1 - i / 200) for i in range(200)]
    more = {"learning_rate": rate, "epoch": [i / 50 for i in range(200)]}
    first = play(series(), more=more)[0].metrics
    assert first["resume_learning_rate_jump"] == pytest.approx(0, abs=1e-9)
    assert first["resume_learning_rate_usual"] == pytest.approx(1 / 200)
    assert first["resume_epoch_jump"] == pytest.approx(0, abs=1e-9)


def continuity_findings(values, more=None, resume_at=100, config=None):
    engine = sft_engine(lr_scheduler_type="linear", **(config or {}))
    records = play(values, resume_at, more=more)
    return [finding.rule for record in records for finding in engine.update(record)]


def test_a_schedule_that_starts_again_is_found():
    rate = [1e-3 * (1 - i / 200) for i in range(100)] * 2
    assert continuity_findings(series(), {"learning_rate": rate}) == ["resume_learning_rate_off_line"]


def test_the_end_of_a_warm_up_at_the_resume_is_none():
    rate = [1e-5 * i for i in range(100)] + [1e-3 * (1 - i / 100) for i in range(100)]
    assert continuity_findings(series(), {"learning_rate": rate}) == []


def test_an_epoch_that_starts_again_is_found():
    epoch = [i / 80 for i in range(100)] + [1 + i / 80 for i in range(100)]
    assert continuity_findings(series(), {"epoch": epoch}) == ["resume_data_position_jump"]


def test_steps_that_are_missing_are_found():
    engine, continuity = sft_engine(), Continuity()
    continuity.resume(20)
    record = continuity.update(Record(45, 1.0, "train", {"loss": 1.0}))
    (finding,) = engine.update(record)
    assert finding.rule == "resume_steps_lost"
    assert finding.message == "The first log after the resume came 25 steps after the checkpoint."


@pytest.mark.parametrize("trainer", ["sft", "dpo", "grpo"])
def test_smooth_and_noisy_healthy_series_go_on_in_silence(trainer):
    engine = Engine(RULES, trainer, {"logging_steps": 1, "lr_scheduler_type": "linear"}, MetricMap(trainer))
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.1, 200)
        walk = np.cumsum(np.random.default_rng(seed + 99).normal(0, 0.02, 200))
        values = [0.5 + 2 * math.exp(-i / 40) + float(noise[i] + walk[i]) for i in range(200)]
        for metric in ("loss", "grad_norm", "reward", "reward_margin", "entropy"):
            for record in play(values, 30 + 4 * seed, metric):
                assert engine.update(record) == [], (metric, seed)


def test_the_rules_are_the_folder():
    names = {path.stem for path in Path(BUILTIN / "resume").glob("*.yaml")}
    assert names == {rule.name for rule in RULES} and all(name.startswith("resume_") for name in names)


def test_what_the_rules_look_at_is_emitted(before, tmp_path):
    """A rule whose metric has another name here than where it is written would be silent for ever."""
    sections = {
        "git": {"commit": "a", "dirty": False},
        "eval_dataset": before["train_dataset"],
        "reward_functions": {"length": "a"},
    }
    resumed = metadata(max_grad_norm=5.0, loss_type="dft", ignore_data_skip=True)
    emitted = set(resume_record(before | sections, resumed | sections, checkpoint(tmp_path, 20), 20).metrics)
    for metric in ("loss", "grad_norm", "reward"):
        line = {"learning_rate": np.linspace(1.0, 0.1, 200), "epoch": np.linspace(0.0, 1.0, 200)}
        emitted.update(*(record.metrics for record in play(series(), metric=metric, more=line)))
    wanted = {(rule.name, metric) for rule in RULES for metric in (rule.metric, *rule.condition.metrics)}
    wanted -= {(rule.name, name) for rule in RULES for name in ("value", "step")}
    assert [one for one in sorted(wanted) if not any(fnmatchcase(name, one[1]) for name in emitted)] == []
