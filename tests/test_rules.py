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

"""Every built-in rule file: it loads, passes its own tests, is fit to be built in, and the rules get along."""

import re
import shutil
from itertools import combinations
from pathlib import Path

import pytest

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import DiagnosticsError, Record, Severity
from trl_diagnostics.engine.rule import ANY_TRAINER, load_rules, merge_rules
from trl_diagnostics.engine.rule_tests import check_entry, check_tests, parse_series
from trl_diagnostics.metrics.catalogue import names
from trl_diagnostics.metrics.checks import check_metric
from trl_diagnostics.metrics.names import MetricMap, known_trainers


FOLDER = Path(__file__).parents[1] / "trl_diagnostics" / "rules"
FILES = sorted(FOLDER.rglob("*.yaml"))
RULES = load_rules(FOLDER, check_metric)  # wrong names of metrics fail here, all at once
# Not in the maps: runs of our own sources, whose names are no trainer's.
SOURCES = {"preflight", "resume", "distributed", "behaviour", "agents"}
# How the texts name trainers whose advice differs: `cpo_alpha` (CPO), "the mean (GRPO, RLOO)".
TITLES = {"Distillation": "distillation", "Reward": "reward", "online DPO": "onlinedpo"} | {
    name.upper(): name for name in ("sft", "dpo", "kto", "orpo", "cpo", "grpo", "rloo", "ppo", "gkd")
}
# What a `fix` may name beside training arguments and logged metrics.
OTHER_NAMES = {
    "lr_scheduler_kwargs",  # a training argument that the maps leave out, its default differs between releases
    *("output_dir", "use_cpu"),  # nor these: no rule can ask for them
    # PEFT: LoraConfig, from_pretrained
    *("target_modules", "lora_alpha", "modules_to_save", "is_trainable"),
    # transformers: models, their configs, generation
    *("requires_grad", "num_labels", "pad_token_id", "eos_token_id"),
    # arguments of TRL's trainers, helpers of TRL
    *("peft_config", "ref_model", "teacher_model", "get_soft_overlong_punishment"),
    # columns of the data
    *("label", "chosen", "rejected", "ref_chosen_logps", "ref_rejected_logps"),
    # the configs of DeepSpeed and FSDP, environment variables
    *("overlap_comm", "fsdp_use_orig_params", "PYTORCH_CUDA_ALLOC_CONF"),
    # this callback
    *("stop_on_critical", "preflight"),
}
# What PPO's own `generate` takes; none of it is a training argument there.
GENERATION = {"top_k", "top_p", "repetition_penalty"}


def knows(trainer, name):
    """Whether the newest release of the trainer has this training argument or logs this metric."""
    metric_map = MetricMap(trainer)
    generation = GENERATION if trainer == "ppo" else set()
    arguments = {*metric_map.defaults, *names().other_training_arguments}
    return name in {*arguments, *OTHER_NAMES, *generation} or metric_map.is_logged(name)


def unknown_names(rule):
    """(trainer, name) of what `fix` names and the trainer does not have."""
    everyone = set(rule.trainers) & set(ANY_TRAINER)
    own = [trainer.replace("_", "") for trainer in rule.trainers if trainer not in SOURCES]
    found = []
    for sentence in re.split(r"(?<=[.?:])\s+", rule.fix or ""):
        named = re.findall(r"|".join(TITLES), " ".join(re.findall(r"\(([^()`]*)\)", sentence)))
        trainers = [TITLES[title] for title in named] or (["transformers"] if everyone else own)
        names = [re.match(r"[a-z][a-z0-9_]*(/\w+)*(?=$|[=:])", code) for code in re.findall(r"`([^`]*)`", sentence)]
        found += [(t, name[0]) for t in trainers for name in names if name and not knows(t, name[0])]
    return found


def findings_of(trainer, config, rules=RULES, **series):
    """(point, rule name) of all findings that start while the series are played, but for those that say "normal"."""
    metric_map = MetricMap(trainer)
    engine = Engine(rules, trainer, {"logging_steps": 1, "max_steps": 10_000, **config}, metric_map)
    columns = {metric_map.canonical(name): parse_series(text, name) for name, text in series.items()}
    found = []
    for i in range(max(map(len, columns.values()))):
        point = {name: column[i] for name, column in columns.items() if i < len(column) and column[i] != "_"}
        findings = engine.update(Record(i + 1, float(i), "train", point))
        found += [(i + 1, f.rule) for f in findings if f.state == "started" and f.severity != "info"]
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
class TestRule:
    def test_passes_its_own_tests(self, rule):
        assert not check_tests(rule, MetricMap)

    def test_is_fit_to_be_built_in(self, rule):
        assert not check_entry(rule, MetricMap)

    def test_when_names_training_arguments(self, rule):
        trainers = ("sft", "dpo", "grpo") if set(rule.trainers) & set(ANY_TRAINER) else rule.trainers
        missing = {
            trainer: set(rule.when) - set(MetricMap(trainer).defaults)
            for trainer in trainers
            if trainer not in SOURCES
        }
        assert not any(missing.values()), missing

    def test_lists_known_trainers(self, rule):
        known = set(known_trainers()) | set(ANY_TRAINER) | SOURCES
        assert {trainer.replace("_", "") for trainer in rule.trainers} <= known

    def test_says_what_a_user_needs(self, rule):
        assert rule.document.get("description"), "one line for the list of rules"
        assert len(rule.message) <= 160
        assert rule.status != "deprecated" or rule.renamed_from
        assert rule.severity < Severity.HIGH or rule.fix

    def test_advises_what_exists(self, rule):
        assert unknown_names(rule) == []
        bare = re.sub(r"`[^`]*`", "", rule.fix or "")
        assert not re.findall(r"\w*[a-z]_\w+", bare), "names belong into backticks"

    def test_cites_at_most_two_sources(self, rule):
        links = rule.document.get("reference", [])
        assert len([links] if isinstance(links, str) else links) in (1, 2)


def test_each_file_is_a_rule():
    assert [rule.document.path for rule in RULES] == FILES


def test_unless_names_exist():
    assert len(merge_rules(RULES, [])) == len(RULES)


def test_old_names_are_free():
    names = [rule.name for rule in RULES]
    old = [name for rule in RULES for name in rule.renamed_from]
    assert len(set(names + old)) == len(names + old)


def test_no_two_rules_say_the_same():
    def same(a, b):
        if a.condition.text.split() != b.condition.text.split() or a.when != b.when:
            return False
        shared = set(a.trainers) & set(b.trainers) or set(a.trainers + b.trainers) & set(ANY_TRAINER)
        return bool(shared) and a.metric == b.metric

    assert not [(a.name, b.name) for a, b in combinations(RULES, 2) if same(a, b)]


@pytest.mark.parametrize("trainer", known_trainers())
def test_every_trainer_gets_an_engine(trainer):
    engine = Engine(RULES, trainer, {}, MetricMap(trainer))
    assert engine.update(Record(1, 0.0, "train", {"loss": 1.0})) == []
    assert "nan_masked_as_zero_loss" in engine.coverage()


HEALTHY = {
    "grpo on policy, loss 0": (
        "grpo",
        {"beta": 0.04, "max_steps": 1000},
        {
            "loss": "0x150",
            "grad_norm": "0.3~0.05x150",
            "kl": "0 0..0.02~0.001x149",
            "reward": "0.3..0.6~0.05x150",
            "reward_std": "0.4~0.04x150",
            "frac_reward_zero_std": "0.2~0.05x150",
            "entropy": "0.8..0.6~0.03x150",
            "clip_ratio/region_mean": "0x150",
            "completions/clipped_ratio": "0.1~0.02x150",
            "learning_rate": "1e-6..1e-7x150",
        },
    ),
    "dpo at 1e-6, loss 0.69, margins grow": (
        "dpo",
        {"max_steps": 1000},
        {
            "loss": "0.6931..0.6885~0.0003x200",
            "rewards/margins": "0 0..0.009~0.001x199",
            "rewards/chosen": "0 0..-0.001~0.0005x199",
            "rewards/rejected": "0 0..-0.01~0.0007x199",
            "rewards/accuracies": "0 0.75..0.8~0.1x199",
            "logps/chosen": "-40~5x200",
            "logps/rejected": "-50~5x200",
            "grad_norm": "3~0.5x200",
            "learning_rate": "0 1e-6..1e-7x199",
        },
    ),
    "dpo, chosen log-probabilities fall while the margin rises": (
        "dpo",
        {"max_steps": 1000},
        {
            "loss": "0.69..0.35~0.05x200",
            "rewards/margins": "0 0..2~0.2x199",
            "rewards/chosen": "0 0..-2~0.1x199",
            "rewards/rejected": "0 0..-4~0.2x199",
            "rewards/accuracies": "0 0.6..0.85~0.08x199",
            "logps/chosen": "-40..-60~4x200",
            "logps/rejected": "-50..-90~4x200",
            "grad_norm": "5~1x200",
            "learning_rate": "0 1e-6..1e-7x199",
        },
    ),
    "kto, kl is 0": (
        "kto",
        {"max_steps": 1000},
        {
            "loss": "0.5 0.5..0.42~0.01x199",
            "kl": "0x200",
            "rewards/margins": "0 0..1~0.1x199",
            "rewards/chosen": "0 0..0.2~0.05x199",
            "rewards/rejected": "0 0..-0.8~0.05x199",
            "grad_norm": "0.6~0.1x200",
            "learning_rate": "1e-6..1e-7x200",
        },
    ),
    "sft, warm-up from 0, isolated NaN in fp16": (
        "sft",
        {"max_steps": 250, "fp16": True},
        {
            "loss": "2.1..1.2~0.05x200",
            "entropy": "2.0..1.2~0.05x200",
            "mean_token_accuracy": "0.5..0.65~0.02x200",
            "grad_norm": "infx4 nan 1.2~0.2x80 nan 1.2~0.2x60 inf 1.2~0.2x53",
            "learning_rate": "0x6 1e-6..2e-5x20 2e-5..1e-7x174",
            "num_tokens": "1000..200000x200",
        },
    ),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_is_this_normal(case):
    trainer, config, series = HEALTHY[case]
    assert findings_of(trainer, config, **series) == []


def test_nan_weights_are_seen_within_two_logs_and_only_once():
    found = findings_of(
        "dpo",
        {},
        **{"loss": "0.6~0.02x20 0x20", "grad_norm": "3~0.5x20 nanx20", "learning_rate": "1e-6x40"},
        **{"logps/chosen": "-40~3x20 nanx20", "rewards/margins": "0.3~0.05x20 nanx20", "entropy": "1~0.1x20 nanx20"},
        **{"rewards/accuracies": "0.7~0.1x20 0x20"},
    )
    assert found == [(22, "nan_masked_as_zero_loss")]


def test_the_cause_speaks_and_its_symptoms_are_quiet():
    zeros = dict.fromkeys(("rewards/margins", "rewards/chosen", "rewards/rejected", "rewards/accuracies"), "0x60")
    shared = {**zeros, "loss": "0.6931x60", "logps/chosen": "-40~3x60", "logps/rejected": "-50~3x60"}
    frozen = findings_of("dpo", {}, **shared, grad_norm="0x60", learning_rate="1e-6x60")
    assert frozen == [(3, "grad_norm_zero")]
    assert findings_of("dpo", {}, **shared, grad_norm="3~0.1x60", learning_rate="0x60") == [(2, "lr_zero")]
    no_beta = findings_of("dpo", {"beta": 0.0}, **shared, grad_norm="0x60", learning_rate="1e-6x60")
    assert no_beta == [(1, "dpo_beta_zero")]


def test_a_new_file_in_the_folder_is_a_new_rule(tmp_path):
    folder = tmp_path / "rules"
    shutil.copytree(FOLDER, folder)
    (folder / "dpo" / "margin_is_enormous.yaml").write_text(
        "name: margin_is_enormous\n"
        "trainers: [dpo]\n"
        "metric: rewards/margins\n"
        'condition: "> 1000 for 2 steps"\n'
        "severity: low\n"
        'message: "Margin at {value:.0f}."\n'
        "min_steps: 1\n"
    )
    rules = load_rules(folder, check_metric)
    assert len(rules) == len(RULES) + 1
    found = findings_of("dpo", {}, rules, **{"rewards/margins": "2000x5", "loss": "0.1~0.01x5"})
    assert (2, "margin_is_enormous") in found


def test_a_bad_file_in_the_folder_is_named(tmp_path):
    folder = tmp_path / "rules"
    shutil.copytree(FOLDER, folder)
    (folder / "dpo" / "bad.yaml").write_text(
        "name: bad\ntrainers: [dpo]\nmetric: reward/margins\n"
        'condition: "> 1"\nseverity: low\nmessage: "Margin."\nmin_steps: 1\n'
    )
    with pytest.raises(DiagnosticsError, match=r"bad\.yaml:3:9: metric: 'reward/margins' is not logged by any of"):
        load_rules(folder, check_metric)
