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

"""Keys, aliases, values and versions go in, names.yaml and the maps are asked about them, the answers are compared."""

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_diagnostics.engine.alert import parse_alert
from trl_diagnostics.engine.condition import parse_sum
from trl_diagnostics.metrics.catalogue import (
    formula_inputs,
    index,
    load_map,
    names,
    option_holds,
    parse_version,
    spans_version,
)
from trl_diagnostics.metrics.checks import check_metric, check_rule, suggest
from trl_diagnostics.metrics.names import MetricMap, known_trainers, trainer_of


FACTS = json.loads((Path(__file__).parent / "data" / "trl_log_keys_1_16.json").read_text())
SNAKE = re.compile(r"[a-z][a-z0-9_]*")


# The names that users write

USERS_NAMES = {
    "loss": ["sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "distillation", "onlinedpo"],
    "dpo_loss": ["dpo", "xpo"],
    "win_rate": ["dpo", "cpo", "orpo", "tpo", "onlinedpo", "xpo"],
    "reward_margin": ["dpo", "kto", "bco", "cpo", "orpo", "tpo", "onlinedpo", "xpo", "reward"],
    "logps_chosen": ["dpo", "kto", "bco", "cpo", "orpo", "tpo", "onlinedpo", "xpo", "nashmd"],
    "logps_rejected": ["dpo", "kto", "bco", "cpo", "orpo", "tpo", "onlinedpo", "xpo"],
    "rewards_chosen": ["dpo", "kto", "bco", "cpo", "orpo", "tpo", "onlinedpo", "xpo"],
    "rewards_rejected": ["dpo", "kto", "bco", "cpo", "orpo", "tpo", "onlinedpo", "xpo"],
    "policy_loss": ["ppo", "grpo", "rloo", "sdpo"],
    "value_loss": ["ppo"],
    "entropy": ["sft", "dpo", "kto", "tpo", "grpo", "rloo", "ppo", "distillation", "asyncgrpo"],
    "clip_fraction": ["ppo", "grpo", "rloo", "gmpo", "asyncgrpo"],
    "advantages": ["ppo", "dppo", "a2po"],
    "kl": ["grpo", "rloo", "ppo", "kto", "onlinedpo", "xpo", "nashmd", "asyncgrpo"],
    "group_reward": ["grpo", "rloo"],
    "completion_length": ["grpo", "rloo", "ppo", "distillation", "sdpo", "asyncgrpo"],
    "perplexity": ["sft", "orpo", "cpo"],
    "accuracy": ["sft", "reward", "dpo"],
    "sft_loss": ["sft", "orpo", "cpo"],
    "odds_ratio_loss": ["orpo"],
    "log_odds_ratio": ["orpo"],
    "importance_sampling_ratio": ["grpo", "ppo", "asyncgrpo"],
}


@pytest.mark.parametrize(("name", "trainer"), [(name, item) for name, rows in USERS_NAMES.items() for item in rows])
def test_users_name_resolves(name, trainer):
    assert MetricMap(trainer).is_logged(name)
    assert check_metric(name, (trainer,)) is None


@pytest.mark.parametrize(
    ("name", "trainer"),
    [
        ("win_rate", "kto"),
        ("dpo_loss", "kto"),
        ("value_loss", "grpo"),
        ("perplexity", "dpo"),
        ("perplexity", "gkd"),
        ("importance_sampling_ratio", "rloo_"),  # underscores do not count; RLOO until 0.21 has PPO's ratio
        ("entropy", "onlinedpo"),
        ("rewards_chosen", "nashmd"),
        ("advantages", "grpo"),
        ("odds_ratio_loss", "cpo"),
    ],
)
def test_a_quantity_that_a_trainer_lacks_does_not_resolve(name, trainer):
    assert MetricMap(trainer).is_logged(name) == (trainer == "rloo_")


@pytest.mark.parametrize(
    ("trainer", "alias", "name"),
    [
        ("dpo", "dpo_loss", "loss"),
        ("xpo", "dpo_loss", "dpo_loss"),
        ("sft", "sft_loss", "loss"),
        ("orpo", "sft_loss", "nll_loss"),
        ("dpo", "accuracy", "win_rate"),
        ("sft", "accuracy", "token_accuracy"),
        ("reward", "accuracy", "accuracy"),
        ("ppo", "importance_sampling_ratio", "policy_ratio"),
        ("grpo", "importance_sampling_ratio", "importance_sampling_ratio"),
        ("ppo", "kl", "kl_sequence"),
        ("kto", "kl", "kl_reference_point"),
        ("asyncgrpo", "kl", "kl_behaviour"),
        ("grpo", "kl", "kl"),
        ("orpo", "logps_chosen", "logps_chosen_per_token"),
        ("reward", "reward_margin", "margin"),
    ],
)
def test_alias_means_the_name_that_the_trainer_logs(trainer, alias, name):
    assert MetricMap(trainer).canonical(alias) == name


# Keys


@pytest.mark.parametrize(
    ("trainer", "key", "name"),
    [
        ("dpo", "rewards/margins", "reward_margin"),
        ("dpo", "eval_rewards/margins", "eval_reward_margin"),
        ("dpo", "eval_loss", "eval_loss"),
        ("dpo", "eval/rewards/margins", "eval_reward_margin"),
        ("dpo", "train/loss", "loss"),
        ("grpo", "completions/mean_length", "completion_length"),
        ("grpo", "completions/clipped_ratio", "completions_clipped_ratio"),
        ("grpo", "clip_ratio/region_mean", "clip_fraction"),
        ("grpo", "sampling/importance_sampling_ratio/mean", "importance_sampling_ratio"),
        ("grpo", "sampling/sampling_logp_difference/mean", "sampling_logp_difference"),
        ("grpo", "rewards/accuracy_reward/mean", "rewards/accuracy_reward/mean"),
        ("grpo", "rewards/*/std", "rewards/*/std"),
        ("ppo", "objective/entropy", "sequence_surprisal"),
        ("ppo", "objective/kl", "kl_sequence"),
        ("ppo", "lr", "learning_rate"),
        ("nashmd", "rewards/chosen", "policy_score"),
        ("nashmd", "rewards/margins", "policy_ref_logp_gap"),
        ("online_dpo", "rewards/accuracies", "win_rate"),
        ("kto", "train/kl", "kl_reference_point"),
        ("asyncgrpo", "tools/search_call_total", "tools/search/call_total"),
        ("asyncgrpo", "rewards/accuracy_reward", "rewards/accuracy_reward/mean"),
        ("grpo", "my_own_metric", "my_own_metric"),
        ("unheard_of", "rewards/margins", "reward_margin"),
        ("unheard_of", "kl", "kl"),
    ],
)
def test_canonical(trainer, key, name):
    assert MetricMap(trainer).canonical(key) == name


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("completion_length", "completion_length"),
        ("clip_ratio", "clip_fraction"),
        ("rewards/accuracy_reward", "rewards/accuracy_reward/mean"),
    ],
)
def test_old_and_new_spellings_have_one_name(key, name):
    for version in ("0.16.0", None):
        metrics = MetricMap("grpo", version)
        assert metrics.canonical(key) == name
        assert metrics.is_logged(name)


def test_a_key_whose_meaning_changed_has_two_names():
    assert MetricMap("grpo", "0.26.2").canonical("reward_std") == "group_reward_std"
    assert MetricMap("grpo", "0.27.0").canonical("reward_std") == "reward_std"
    assert MetricMap("kto", "1.8.0").canonical("logits/chosen") == "logits_chosen_sum"
    assert MetricMap("kto", "1.9.0").canonical("logits/chosen") == "logits_chosen"


def test_logged_in_a_release():
    assert not MetricMap("grpo", "0.17.0").is_logged("entropy")
    assert MetricMap("grpo", "0.20.0").is_logged("entropy")
    assert not MetricMap("reward", "0.16.0").is_logged("accuracy")
    assert MetricMap("reward", "0.16.0").is_logged("eval_accuracy")
    assert MetricMap("kto", "0.8.4").is_logged("rewards_chosen")  # as train/rewards/chosen
    assert MetricMap("rloo", "0.21.0").is_logged("kl_sequence")
    assert not MetricMap("rloo", "1.16.0").is_logged("kl_sequence")
    assert not MetricMap("ppo", "1.12.0").is_logged("grad_norm")  # its training loop logs its own numbers only
    assert MetricMap("ppo", "1.12.0").is_logged("epoch")


@pytest.mark.parametrize(
    ("metric", "logged"),
    [
        ("rewards/*/std", True),
        ("rewards/*", True),
        ("eval_rewards/*/mean", True),
        ("tools/*", True),
        ("logps*", False),
    ],
)
def test_globs(metric, logged):
    assert MetricMap("grpo").is_logged(metric) is logged


def test_every_known_key_is_logged():
    for name, keys in FACTS["trainers"].items():
        metrics = MetricMap(name, FACTS["release"])
        assert [key for key in keys if key != "{name}" and not metrics.is_logged(key)] == []


spellings = st.sampled_from(
    sorted(
        {*names().names, *names().keys, *names().aliases, *(item["name"] for item in names().derived)}
        | {entry["key"] for name in index()["trainers"] for entry in load_map(name)["keys"]}
    )
)
prefixes = st.sampled_from(["", "eval_", "eval_eval_", "train/", "eval/", "x_"])
texts = st.builds(lambda prefix, text: prefix + text, prefixes, st.one_of(spellings, st.text(max_size=12)))


@given(st.sampled_from([*known_trainers(), "unheard_of"]), st.sampled_from([None, *index()["releases"]]), texts)
def test_canonical_is_idempotent(trainer, version, text):
    metrics = MetricMap(trainer, version)
    name = metrics.canonical(text)
    assert metrics.canonical(name) == name
    assert MetricMap(trainer, version).canonical(name) == name  # whatever was asked before


@given(
    st.dictionaries(
        st.one_of(texts, st.integers()),
        st.one_of(
            st.floats(),
            st.none(),
            st.text(),
            st.booleans(),
            st.lists(st.integers()),
            st.integers(),
            st.binary(),
            st.complex_numbers(),
            st.just(object()),
        ),
    )
)
def test_record_never_raises(logs):
    for value in MetricMap("dpo").record(logs).values():
        assert value is None or type(value) is float


# Records


def test_record_converts_numbers_and_leaves_the_rest_out():
    logs = {
        "loss": 1,
        "grad_norm": np.float32(0.5),
        "rewards/margins": None,
        "rewards/chosen": math.inf,
        "learning_rate": np.array(1e-6),
        "entropy": 10**400,
        "note": "0.5",
        "table": {"a": 1},
        "vector": [1.0, 2.0],
        "eval_rewards/accuracies": 1.0,
    }
    assert MetricMap("dpo").record(logs) == {
        "loss": 1.0,
        "grad_norm": 0.5,
        "reward_margin": None,
        "rewards_chosen": math.inf,
        "learning_rate": 1e-6,
        "eval_win_rate": 1.0,
    }


def test_record_takes_tensors():
    torch = pytest.importorskip("torch")
    logs = {"loss": torch.tensor(0.5), "grad_norm": torch.tensor(2, dtype=torch.bfloat16), "x": torch.ones(3)}
    assert MetricMap("sft").record(logs) == {"loss": 0.5, "grad_norm": 2.0}


def test_record_keeps_nan():
    assert math.isnan(MetricMap("sft").record({"loss": float("nan")})["loss"])


def test_record_of_35_keys_is_cheap():
    metrics = MetricMap("grpo")
    keys = [entry["key"] for entry in load_map("grpo")["keys"] if "{" not in entry["key"]]
    logs = dict.fromkeys([*keys, *(f"eval_{key}" for key in keys)][:35], 0.5)
    metrics.record(logs)
    best = math.inf
    for _ in range(20):
        start = time.process_time()
        for _ in range(200):
            metrics.record(logs)
        best = min(best, (time.process_time() - start) / 200)
    assert best < 20e-6  # 3 microseconds on an idle core; a regression that matters costs ten times that


# Defaults


@pytest.mark.parametrize(
    ("trainer", "version", "option", "value"),
    [
        ("grpo", "0.16.0", "beta", 0.04),
        ("grpo", "1.16.0", "beta", 0.0),
        ("grpo", "0.19.0", "loss_type", "bnpo"),
        ("grpo", "1.16.0", "loss_type", "dapo"),
        ("grpo", "1.9.0", "use_bias_correction_kl", False),
        ("grpo", "1.16.0", "use_bias_correction_kl", True),
        ("grpo", "1.9.0", "max_completion_length", 256),
        ("grpo", "1.16.0", "max_completion_length", 512),
        ("grpo", None, "max_grad_norm", 1.0),
        ("dpo", None, "learning_rate", 1e-6),
        ("dpo", None, "logging_steps", 10),
        ("dpo", None, "beta", 0.1),
        ("rloo", "1.16.0", "beta", 0.05),
        ("sft", "1.16.0", "loss_type", "nll"),
        ("unheard_of", None, "max_grad_norm", 1.0),
    ],
)
def test_default(trainer, version, option, value):
    assert MetricMap(trainer, version).defaults[option] == value


def test_an_option_that_a_release_lacks_has_no_default():
    assert "loss_type" not in MetricMap("sft", "0.15.0").defaults
    assert "rpo_alpha" in MetricMap("dpo", "0.20.0").defaults
    assert "rpo_alpha" not in MetricMap("dpo", "1.16.0").defaults


def test_training_arguments_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    fields = {field.name: field.default for field in dataclasses.fields(transformers.TrainingArguments)}
    stated = names().training_arguments
    assert {name: fields[name] for name in stated} == stated


def test_defaults_are_those_of_the_installed_configs():
    trl = pytest.importorskip("trl")
    for config, trainer in ((trl.SFTConfig, "sft"), (trl.DPOConfig, "dpo"), (trl.GRPOConfig, "grpo")):
        defaults = MetricMap(trainer, trl.__version__).defaults
        for field in dataclasses.fields(config):
            if field.name in defaults and field.default is not dataclasses.MISSING:
                assert defaults[field.name] == field.default, (trainer, field.name)


# Trainers


@pytest.mark.parametrize(
    ("classes", "trainer"),
    [
        (["GRPOConfig", "TrainingArguments", "object"], "grpo"),
        (["MyConfig", "OnlineDPOConfig", "TrainingArguments"], "onlinedpo"),
        (["PPOv2Config"], "ppo"),
        (["GFPOConfig", "GRPOConfig"], "gfpo"),
        (["TrainingArguments", "object"], None),
        ([], None),
    ],
)
def test_trainer_of(classes, trainer):
    assert trainer_of(classes) == trainer


@pytest.mark.parametrize(
    ("trainer", "bases"),
    [("gmpo", ("grpo",)), ("xpo", ("onlinedpo",)), ("nashmd", ("onlinedpo",)), ("gkd", ("sft",)), ("grpo", ())],
)
def test_bases(trainer, bases):
    assert MetricMap(trainer).bases == bases


# names.yaml


def test_every_name_says_what_it_is():
    for name, entry in names().names.items():
        assert set(entry) <= {"unit", "meaning", "better", "keys", "aliases", "source"}, name
        assert isinstance(entry["unit"], str) and isinstance(entry["meaning"], str), name
        assert entry.get("better") in (None, "lower", "higher"), name
        assert SNAKE.fullmatch(name) or "{" in name, name


def test_every_key_of_every_map_has_a_name_or_passes_deliberately():
    nameless = set()
    for trainer in known_trainers():
        for entry in load_map(trainer)["keys"]:
            key = entry["key"].removeprefix("eval_").removeprefix("eval/").removeprefix("train/")
            known = any(source.trainers is None or trainer in source.trainers for source in names().sources(key))
            passes = any(fnmatchcase(key, pattern) for pattern in names().passthrough)
            if not (known or passes or entry.get("user")):
                nameless.add((trainer, entry["key"]))
    assert nameless == set()


def test_every_key_of_names_yaml_is_in_a_map():
    logged = {entry["key"] for trainer in known_trainers() for entry in load_map(trainer)["keys"]}
    logged |= {f"eval_{key}" for key in names().base_keys["eval"]} | set(names().base_keys["train"])
    plain = {re.sub(r"\{\w+\}", "{}", key).removeprefix("eval_") for key in logged} | set(names().base_keys["all"])
    assert {key for key in names().keys if re.sub(r"\{\w+\}", "{}", key) not in plain} == set()


def test_trainers_of_names_yaml_exist_and_log_the_key():
    for key, sources in names().keys.items():
        for source in sources:
            for trainer in source.trainers or ():
                assert re.sub(r"\{\w+\}", "{}", key) in {
                    re.sub(r"\{\w+\}", "{}", entry["key"]).removeprefix("eval_") for entry in load_map(trainer)["keys"]
                }, (trainer, key)


# Two keys of one log for one number: SDPO and SDFT log their loss twice.
TWICE = {"distillation_loss"}


def test_no_log_has_two_keys_of_one_name():
    for trainer in known_trainers():
        for version in index()["releases"]:
            entries = [entry for entry in load_map(trainer)["keys"] if spans_version(entry, version)]
            metrics = MetricMap(trainer, version)
            for by_tracker in (False, True):
                keys = {entry["key"] for entry in entries if entry.get("tracker", False) is by_tracker}
                keys -= {"clip_ratio"}  # the Liger kernel's path logs it instead of clip_ratio/region_mean
                found = [metrics.canonical(key) for key in keys if not key.startswith(("eval/", "train/"))]
                assert {name for name in found if found.count(name) > 1} <= TWICE, (trainer, version)


def test_a_name_and_an_alias_are_never_one_word_for_two_things():
    for trainer in known_trainers():
        metrics = MetricMap(trainer)
        for alias, sources in names().aliases.items():
            meant = {source.name for source in sources if source.trainers is None or trainer in source.trainers}
            if alias in metrics._logged and alias not in metrics._keys:
                assert metrics.canonical(alias) == alias, (trainer, alias, meant)


def test_lower_is_better():
    lower = MetricMap("sft").lower_is_better
    assert {"loss", "eval_loss", "perplexity", "eval_perplexity", "nll_loss"} <= lower
    assert lower.isdisjoint({"reward", "win_rate", "token_accuracy", "grad_norm", "kl"})


def test_better():
    grpo = MetricMap("grpo")
    assert {grpo.better(name) for name in ("loss", "eval_loss", "perplexity", "tools/search/latency_s")} == {"lower"}
    assert {grpo.better(name) for name in ("reward", "eval_reward", "rewards/format/mean")} == {"higher"}
    assert {grpo.better(name) for name in ("kl", "grad_norm", "rewards/format/std", "mine", "eval_")} == {None}


# Derived metrics


def test_formulas_parse_and_name_logged_metrics():
    for item in names().derived:
        tree, _ = parse_sum(item["formula"])
        assert tree is not None
        assert set(item) <= {"name", "formula", "unit", "better", "trainers", "when", "meaning"}
        for trainer in item.get("trainers", ()):
            assert all(MetricMap(trainer)._has(name) for name in formula_inputs(item)), (trainer, item["name"])


@pytest.mark.parametrize(
    ("formula", "inputs"),
    [
        ("exp(loss)", {"loss"}),
        ("loss - log(1 + exp(0 - reward_margin))", {"loss", "reward_margin"}),
        ("delta(num_tokens) / delta(step)", {"num_tokens"}),
        ("config.beta * kl * completion_length", {"kl", "completion_length"}),
        ("perf/rollout_wait_s / perf/step_s", {"perf/rollout_wait_s", "perf/step_s"}),
    ],
)
def test_inputs_of_a_formula(formula, inputs):
    assert formula_inputs({"formula": formula}) == inputs


def test_perplexity_needs_a_plain_nll():
    (item,) = [item for item in MetricMap("sft").derived if item["name"] == "perplexity"]
    assert item["formula"] == "exp(loss)"
    assert item["when"] == {"loss_type": ["nll", "chunked_nll", None], "label_smoothing_factor": 0}
    (old,) = [item for item in MetricMap("sft", "0.15.0").derived if item["name"] == "perplexity"]
    assert old["when"] == {"label_smoothing_factor": 0}  # the option came later, the loss was the NLL
    assert not [item for item in MetricMap("kto").derived if item["name"] == "perplexity"]


# Errors


def test_check_metric():
    assert check_metric("reward/margins", ("dpo",)) == (
        "'reward/margins' is not logged by any of [dpo]; did you mean 'rewards/margins' (reward_margin)?"
    )
    assert check_metric("zzzzzz", ("dpo", "kto")) == (
        "'zzzzzz' is not logged by any of [dpo, kto]; put it in backticks if your own code logs it"
    )
    assert check_metric("mean_token_accuracy-0.2", ("sft",)) == (
        "'mean_token_accuracy-0.2' is not logged by any of [sft]; operators need blanks on both sides"
    )
    assert check_metric("loss/2", ("sft",)) == (
        "'loss/2' is not logged by any of [sft]; operators need blanks on both sides"
    )
    assert check_metric("rewards/margins", ("grpo", "dpo")) is None
    assert check_metric("grad_norm", ("all",)) is None
    assert check_metric("value_loss", ("common",)) is None


def test_suggest():
    assert suggest("completions_length", ("grpo",)) == "'completion_length'"
    assert suggest("rewards/margin", ("dpo",)) == "'rewards/margins' (reward_margin)"
    assert suggest("qqqqqq", ("dpo",)) is None


def test_versions():
    assert parse_version("1.16.0.dev0") == parse_version("1.16") == (1, 16, 0)
    assert parse_version("0.7.10") > parse_version("0.7.2")
    assert MetricMap("grpo", "1.17.0.dev0").is_logged("kl")


def test_import_reads_nothing():
    code = (
        "import sys, trl_diagnostics.metrics.names as n; "
        "print({'yaml', 'torch', 'transformers', 'numpy'} & set(sys.modules), n.index.cache_info().misses)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set() 0"


# What should have come


@pytest.mark.parametrize(
    "trainer, name, expected",
    [
        ("grpo", "reward", True),
        ("grpo", "kl", False),  # only with beta != 0
        ("grpo", "importance_sampling_ratio", False),  # only with use_vllm
        ("grpo", "reward_margin", False),  # another trainer's
        ("grpo", "eval_reward", False),  # evaluation is an option
        ("grpo", "my_own/metric", True),  # nobody's but the user's
        ("grpo", "tokens_per_step", True),  # derived from what always comes
        ("grpo", "kl_sequence_estimate", False),  # derived from an optional one
        ("dpo", "loss", True),
        ("ppo", "grad_norm", False),  # PPO's own loop does not log it
        ("dpo", "nonfinite_parameters", False),  # measured by the callback, not in the logs of others
    ],
)
def test_expects(trainer, name, expected):
    assert MetricMap(trainer, "1.12.0" if trainer == "ppo" else "1.16.0").expects(name) is expected


@pytest.mark.parametrize(
    "expression, config, expected",
    [
        ("beta != 0.0", {"beta": 0.04}, True),
        ("beta != 0.0", {"beta": 0.0}, False),
        ("beta != 0.0", {}, None),
        ("use_vllm and vllm_importance_sampling_correction", {"use_vllm": False}, False),
        ("use_vllm and vllm_importance_sampling_correction", {"use_vllm": True}, None),
        ("entropy_coef != 0.0 or use_adaptive_entropy", {"entropy_coef": 0.0, "use_adaptive_entropy": True}, True),
        ("rpo_alpha is not None or 'sft' in loss_type", {"rpo_alpha": None}, None),
        ("loss_type in ['grpo', 'dapo']", {"loss_type": "cispo"}, False),
        ("loss_type in ['grpo', 'dapo']", {"loss_type": ["dapo"]}, True),
        ("len(teacher_server_urls) > 1", {"teacher_server_urls": []}, None),
    ],
)
def test_option_holds(expression, config, expected):
    assert option_holds(expression, config) is expected


def test_every_option_of_the_maps_can_be_read():
    for trainer in known_trainers():
        for entry in load_map(trainer)["keys"]:
            assert entry["when"] is None or option_holds(entry["when"], {}) is None


def test_is_off():
    grpo = MetricMap("grpo", "1.16.0")
    assert grpo.is_off("kl", grpo.defaults)
    assert not grpo.is_off("kl", {"beta": 0.04})
    assert grpo.is_off("importance_sampling_ratio", grpo.defaults)
    assert not grpo.is_off("reward", grpo.defaults)


def test_check_rule():
    alert = parse_alert("gpro, dpo: loss > config.lerning_rate -> low: x")
    assert check_rule(alert) == [
        ("trainers", "TRL has no trainer 'gpro'; did you mean 'grpo'?", "gpro"),
        ("condition", "no training argument 'lerning_rate'; did you mean 'learning_rate'?", "config.lerning_rate"),
    ]
    assert check_rule(parse_alert("online_dpo: loss > config.beta * config.samples_per_log -> low: x")) == []


def test_several_evaluation_sets():
    """The Trainer puts the name of the set into its own keys; TRL's metrics collide under `eval_`."""
    dpo = MetricMap("dpo", "1.16.0")
    assert all(dpo.is_logged(f"eval_a_{key}") for key in ("loss", "runtime", "samples_per_second"))
    assert not dpo.is_logged("eval_a_reward") and not dpo.is_logged("a_loss")
    assert check_metric("eval_my_set_loss", ("sft",)) is None


def test_all_training_arguments_are_known():
    """A name that is missing here would be refused in a rule."""
    from transformers import TrainingArguments

    fields = {field.name for field in dataclasses.fields(TrainingArguments) if not field.name.startswith("_")}
    assert fields - set(names().training_arguments) - set(names().other_training_arguments) == set()
