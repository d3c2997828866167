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

"""Which trainer and release a log is of, told from names, options and numbers."""

import json
import random
from pathlib import Path

import pytest

from trl_diagnostics.metrics.catalogue import HOLE, defaults_at, load_map, spans_version
from trl_diagnostics.metrics.names import MetricMap, known_trainers
from trl_diagnostics.sources.logs import open_run
from trl_diagnostics.sources.trainer_guess import Guess, infer, model_card, reference_free


BASE = {"loss", "grad_norm", "learning_rate", "epoch"}
PUBLIC = Path(__file__).resolve().parents[2] / "shared" / "corpus"
# Trainers whose names are those of another one in some release: no log tells them apart.
SAME_NAMES = {
    **dict.fromkeys(("gfpo", "gmpo", "grpowithreplaybuffer", "minillm", "papo", "rloo"), "grpo"),
    **{"gkd": "sft", "iterativesft": "sft", "prm": "reward", "tpo": "dpo", "serverdistillation": "distillation"},
    **{"alignprop": "unknown", "rloo@0.12.2": "ppo"},
}


def keys_of(trainer: str, release: str) -> set[str]:
    """What a trainer logs with any options."""
    entries = [entry for entry in load_map(trainer)["keys"] if not entry.get("user") and spans_version(entry, release)]
    return BASE | {HOLE.sub("f", entry["key"]) for entry in entries if entry["when"] is None}


@pytest.mark.parametrize(
    "trainer", ["sft", "dpo", "kto", "reward", "grpo", "orpo", "onlinedpo", "nashmd", "xpo", "bco"]
)
def test_a_trainer_is_told_from_its_names(trainer):
    since, until = load_map(trainer)["since"], load_map(trainer)["until"]
    release = until or "1.16.0"
    guess = infer(keys_of(trainer, release), {})
    assert guess.trainer == trainer
    assert guess.confidence > 0.8
    assert since != release


@pytest.mark.parametrize("trainer", known_trainers())
def test_no_trainer_is_taken_for_one_with_other_names(trainer):
    release = load_map(trainer)["until"] or "1.16.0"
    found = infer(keys_of(trainer, release), {}).trainer
    assert found in (trainer, SAME_NAMES.get(trainer), "dpo" if trainer == "cpo" else trainer)


@pytest.mark.parametrize("trainer", ["dpo", "kto", "grpo", "reward", "onlinedpo"])
def test_canonical_names_are_as_good_as_raw_ones(trainer):
    keys = keys_of(trainer, "1.16.0")
    canonical = {MetricMap(trainer).canonical(key) for key in keys}
    assert infer(canonical, {}).trainer == infer(keys, {}).trainer == trainer


@pytest.mark.parametrize("prefix", ["train/", "eval/", "eval_"])
def test_names_of_trackers_and_of_evaluation_are_as_good(prefix):
    assert infer({f"{prefix}{key}" for key in keys_of("kto", "1.16.0")}, {}).trainer == "kto"


@pytest.mark.parametrize(
    ("names", "version"),
    [
        ({"reward", "reward_std", "completion_length", "kl", "rewards/f"}, "0.15.2"),
        (keys_of("dpo", "0.20.0"), "0.28.0"),
        (keys_of("dpo", "1.16.0"), None),
        (keys_of("grpo", "1.16.0"), None),
    ],
)
def test_the_newest_release_that_fits(names, version):
    assert infer(BASE | names, {}).trl_version == version


def test_only_a_loss_is_most_likely_sft_and_that_is_said():
    assert infer(BASE, {}) == Guess(
        "sft", "it has only names that every trainer logs, and SFT is the most frequent one", 0.73, None
    )
    partial = infer({"loss"}, {}, partial=True)
    assert (partial.trainer, partial.trl_version) == ("sft", None)
    assert partial.confidence < 0.5


def test_names_that_are_missing_in_a_table_say_nothing():
    names = {"loss", "reward", "reward_std", "completions/mean_length", "kl", "rewards/f/mean"}
    assert infer(names, {}, partial=True).trainer == "grpo"


def test_another_trainer_is_unknown():
    guess = infer(BASE | {"eval_accuracy", "eval_f1", "eval_precision", "eval_recall", "eval_mcc"}, {})
    assert guess.trainer == "unknown"
    assert guess.how == "most of its names are not those of a trainer of TRL"
    assert infer({"a", "b"}, {}) == Guess("unknown", "nothing in it is a name that a trainer of TRL logs", 0.0)
    assert infer([], {}).confidence == 0.0


def test_names_of_a_user_do_not_hide_the_trainer():
    mine = {f"my/metric_{i}" for i in range(6)}
    assert infer(keys_of("dpo", "1.16.0") | mine, {}).trainer == "dpo"


@pytest.mark.parametrize("trainer", ["sft", "dpo", "rloo", "cpo", "gkd", "kto", "ppo"])
def test_training_arguments_tell_what_names_do_not(trainer):
    release = load_map(trainer)["until"] or "1.16.0"
    config = {**defaults_at(load_map(trainer), release), "output_dir": "x", "learning_rate": 1e-5}
    guess = infer(keys_of(trainer, release), config)
    assert (guess.trainer, guess.how) == (trainer, f"its training arguments are those of {trainer.upper()}")
    assert guess.confidence > 0.9


def test_a_few_options_are_no_training_arguments():
    assert infer(keys_of("dpo", "1.16.0"), {"beta": 0.1, "num_generations": 8}).trainer == "dpo"


class TestReferenceFree:
    """CPO, ORPO and TPO call beta times the log-probability a reward."""

    def logs(self, noise: float) -> list[dict]:
        draw = random.Random(0)
        found = []
        for _ in range(20):
            chosen, rejected = draw.uniform(-40, -2), draw.uniform(-40, -2)
            found.append(
                {
                    "rewards/chosen": round(0.1 * chosen * (1 + noise * draw.gauss(0, 1)), 6),
                    "rewards/rejected": round(0.1 * rejected * (1 + noise * draw.gauss(0, 1)), 6),
                    **{"logps/chosen": round(chosen, 6), "logps/rejected": round(rejected, 6)},
                }
            )
        return found

    def test_it_is_told_from_the_numbers(self):
        assert reference_free(self.logs(0.0)) is True
        assert reference_free(self.logs(0.3)) is False
        assert reference_free(self.logs(0.0)[:2]) is None
        assert reference_free([{"loss": 1.0}] * 20) is None
        assert reference_free([{"rewards/chosen": 0.0, "logps/chosen": -1.0, "logps/rejected": None}] * 20) is None

    def test_negative_proportions_are_none(self):
        assert reference_free([{"rewards_chosen": 0.2, "logps_chosen_per_token": -2.0}] * 9) is False

    def test_it_tells_cpo_from_an_old_dpo(self):
        names = keys_of("cpo", "1.16.0")
        assert infer(names, {}, free=True).trainer == "cpo"
        assert infer(names, {}, free=False).trainer == "dpo"


class TestModelCard:
    def test_others_say_nothing(self, tmp_path):
        assert model_card(tmp_path) is None
        for text in ("# hello", "---\ntags:\n- dpo\n---\n", "---\ntags:\n- trl\n- gpt\n---\n", "---\n", "\x00"):
            (tmp_path / "README.md").write_text(text)
            assert model_card(tmp_path) is None

    @pytest.mark.parametrize(
        ("tag", "trainer"), [("reward-trainer", "reward"), ("nash-md", "nashmd"), ("grpo", "grpo"), ("SFT", "sft")]
    )
    def test_tags_are_spelled_in_many_ways(self, tmp_path, tag, trainer):
        (tmp_path / "README.md").write_text(f"---\ntags:\n  - trl\n  - {tag}\n---\ntext\n")
        assert model_card(tmp_path).trainer == trainer
        assert model_card(tmp_path).trl_version is None


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="no public logs in ../shared/corpus beside the repository")
def test_the_trainers_of_public_logs():
    """
    All but one, which has nothing but a loss. The index tells trainers from the same names, so this is agreement with a
    person's reading and no measurement of how often it is right.
    """
    rows = [json.loads(line) for line in (PUBLIC / "index.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {row["id"]: (row["trainer"], open_run(PUBLIC / row["file"])) for row in rows}
    wrong = {name: run for name, (trainer, run) in found.items() if run.trainer != trainer}
    assert len(found) == 66
    assert len(wrong) <= 1
    assert all(run.confidence < 0.9 for run in wrong.values())
    assert all(next(run.records(), None) for _, run in found.values())
