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

"""Small sources and the committed maps go in, the generator's keys, conditions, ranges and complaints are compared."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from generate_metric_maps import ABSENT, MAPS, changes, dump, history, ranges, restamp, source_release, wheels
from map_check import check, release_at
from trl_source import Release, Trainer, trainer_name

from trl_diagnostics.metrics.catalogue import canonical_name, index, load_map, spans_version


ROOT = Path(__file__).parent.parent
FACTS = json.loads((Path(__file__).parent / "data" / "trl_log_keys_1_16.json").read_text())
INSTALLED = Path(find_spec("trl").submodule_search_locations[0])
HEADER = "from transformers import Trainer\n\n"


def release(files: dict[str, str], version: str = "1.0.0") -> Release:
    return Release(version, {f"trl/{path}": text for path, text in files.items()})


def trainer(body: str, name: str = "ToyTrainer(Trainer)", before: str = "") -> Trainer:
    """The extracted trainer of a class with this body."""
    lines = "\n".join(f"    {line}" for line in body.strip("\n").split("\n"))
    text = f"{HEADER}{before}\n\nclass {name}:\n{lines}\n"
    return next(iter(release({"trainer/toy_trainer.py": text}).trainers().values()))


def keys(body: str, **options: str) -> list[str]:
    return sorted(key for key, _ in trainer(body, **options).keys)


def in_method(*lines: str) -> str:
    return "def compute_loss(self, mode, args, x):\n" + "\n".join(f"    {line}" for line in lines)


# Writes of a key


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('self._metrics[mode]["kl"].append(x)', "kl"),
        ('self._metrics["train"]["kl"].append(x)', "kl"),
        ('self._metrics[mode]["num_tokens"] = [x]', "num_tokens"),
        ('self._metrics["kl"].append(x)', "kl"),  # GRPO until 0.15
        ('self.stats["objective/kl"].append(x)', "objective/kl"),
        ('metrics["lr"] = x', "lr"),
        ('logs["on_policy_loss"] = x', "on_policy_loss"),
        ('self._counters["rollout/vllm_retry_total"] += 1', "rollout/vllm_retry_total"),
        ('self._rates["tools/latency_s"][0] += x', "tools/latency_s"),
        ('self._push_metrics({"rollout/score_s": x})', "rollout/score_s"),
        ('self.log({"loss": x})', "loss"),
        ('self._metrics[mode][f"rewards/{func_name}/mean"].append(x)', "rewards/{func_name}/mean"),
        ('sample = Sample(metrics={"reward": x})', "reward"),
        ('tool_metrics = [{"tools/calls": n} for n in x] if x else [{}]', "tools/calls"),
        ('metrics = {"reward": x, **{f"rewards/{name}": r for name, r in x}}', "rewards/{name}"),
    ],
)
def test_a_write_to_the_log_is_a_key(line, expected):
    assert expected in keys(in_method(line))


@pytest.mark.parametrize(
    "line",
    [
        'self._logs["prompt"].extend(x)',  # the table of completions
        'self._textual_logs["completion"].extend(x)',
        'output["old_logps"] = x',
        "approxkl_stats[epoch, step] = x",
        "self._metrics[mode][key].append(x)",
        'self.stats = {"objective/kl": []}',  # a place kept free
        'self.stats["objective/scores"] = []',
        'wandb.log({"completions": x})',
        'self.log({"table": wandb.Table(dataframe=x)})',
        'y = metrics["rewards/chosen"]',
        'self._metrics = {"train": {}, "eval": {}}',
    ],
)
def test_what_does_not_reach_the_log_is_no_key(line):
    assert keys(in_method(line)) == []


def test_arguments_spread_into_a_call_are_no_keys():
    body = in_method(
        "metrics = dict(turns=1, tally=2)", 'metrics["correctness"] = x', "self._push_rollout_metrics(**metrics)"
    )
    assert keys(body) == []


# Texts


def test_prefix_of_the_split_is_left_out():
    body = in_method('prefix = "eval_" if mode == "eval" else ""', 'metrics[f"{prefix}rewards/chosen"] = x')
    assert keys(body) == ["rewards/chosen"]


def test_prefix_of_two_values_gives_two_keys():
    body = in_method(
        'prefix = "on_policy" if x else "off_policy"',
        'self._metrics[mode][f"completions/{prefix}_mean_length"].append(x)',
    )
    assert keys(body) == ["completions/off_policy_mean_length", "completions/on_policy_mean_length"]


def test_loop_over_literals_is_unrolled():
    body = in_method(
        'for split in ["chosen", "rejected"]:',
        '    for metric in ("rewards", "logps"):',
        '        logs[f"{metric}/{split}"] = x',
    )
    assert keys(body) == ["logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected"]


def test_a_name_that_can_be_anything_is_one_hole():
    body = in_method(
        'name = f"reward {x}"',
        "if x:",
        "    name = x.config.name",
        'self._metrics[mode][f"rewards/{name}"].append(x)',
    )
    assert keys(body) == ["rewards/{name}"]


def test_class_attribute_is_read():
    body = '_name = "SDPO"\n' + in_method(
        'prefix = self._name.lower().replace(" ", "_")', 'self._metrics[mode][f"{prefix}/loss"].append(x)'
    )
    assert keys(body) == ["sdpo/loss"]


def test_helper_method_that_takes_the_key():
    body = (
        in_method('self._add("kl", x)', 'self._add(name="entropy", value=x)')
        + '\n\ndef _add(self, name, value):\n    self._metrics["train"][name].append(value)'
    )
    assert keys(body) == ["entropy", "kl"]


def test_sums_for_averaging_are_resolved():
    body = """
def get_batch_loss_metrics(self, metrics, x):
    metrics["rewards/chosen_sum"] = x
    metrics["count/chosen"] = x

def log(self, logs):
    for split in ["chosen", "rejected"]:
        if f"count/{split}" in self._stored_metrics["train"]:
            for metric in ["rewards"]:
                logs[f"{metric}/{split}"] = 1
                del self._stored_metrics["train"][f"{metric}/{split}_sum"]
            del self._stored_metrics["train"][f"count/{split}"]
"""
    assert keys(body) == ["rewards/chosen", "rewards/rejected"]


def test_nested_dicts_flattened_and_copied_under_a_prefix():
    body = """
def loss(self, x):
    stats = dict(loss=dict(policy=x, value=x), policy=dict(clipfrac=x))
    return flatten_dict(stats)

def record_step_stats(self, data):
    stats = {"objective/kl": 1}
    for k, v in data["train_stats"].items():
        stats[f"ppo/{k}"] = v
    stats["ppo/val/var_explained"] = 1

def step(self, train_stats):
    train_stats["policy/ratio"] = 1
"""
    assert keys(body) == [
        "objective/kl",
        "ppo/loss/policy",
        "ppo/loss/value",
        "ppo/policy/clipfrac",
        "ppo/policy/ratio",
        "ppo/val/var_explained",
    ]


def test_dict_merged_into_the_log():
    body = in_method("timing = dict()", 'timing["time/total"] = x', "stats.update(timing)")
    assert keys(body) == ["time/total"]


def test_metric_named_by_the_user_is_marked():
    body = in_method("for name in sorted(self._pending_metrics):", "    self._metrics[mode][name].append(x)")
    assert [(key.key, key.user) for key in trainer(body).keys.values()] == [("{name}", True)]


# Conditions


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["if self.beta != 0.0:", "    {}"], "beta != 0.0"),
        (["if args.use_vllm and self.correction:", "    {}"], "use_vllm and correction"),
        (["if self.args.rpo_alpha is not None:", "    {}"], "rpo_alpha is not None"),
        (["if self.accelerator.is_main_process:", "    {}"], None),
        (["if self._step % self.every == 0:", "    {}"], None),
        (["if x > 0:", "    {}"], None),
        (["if self.tools and x:", "    {}"], "tools"),
        (["if self.loss_type == 'a':", "    pass", "elif self.loss_type == 'b':", "    {}"], "loss_type == 'b'"),
        (["if self.use_liger:", "    pass", "else:", "    {}"], "not (use_liger)"),
        (["if self.use_liger:", "    {}", "else:", "    {}"], None),
        (["if self.a:", "    {}", "if self.b:", "    {}"], "a or b"),
        (["self._on = args.coef != 0.0 or self.adaptive", "if self._on:", "    {}"], "coef != 0.0 or adaptive"),
    ],
)
def test_options_that_a_key_depends_on(lines, expected):
    body = in_method(*(line.format('self._metrics[mode]["kl"].append(x)') for line in lines))
    assert [key.when for key in trainer(body).keys.values()] == [expected]


# Classes

BASE = HEADER + (
    "class BaseTrainer(Trainer):\n    pass\n\n"
    "class GRPOTrainer(BaseTrainer):\n"
    "    def __init__(self, args: 'GRPOConfig | None' = None): ...\n"
    "    def generate(self):\n        self._metrics['train']['reward'].append(1)\n"
    "    def compute_loss(self):\n        self._metrics['train']['policy_loss'].append(1)\n        self._clip()\n"
    "    def _clip(self):\n        self._metrics['train']['clip_ratio'].append(1)\n"
)


def subclass(body: str) -> Release:
    text = (
        f"from ...trainer.grpo_trainer import GRPOTrainer as _GRPOTrainer\n\nclass GMPOTrainer(_GRPOTrainer):\n{body}"
    )
    return release({"trainer/grpo_trainer.py": BASE, "experimental/gmpo/gmpo_trainer.py": text})


def test_subclass_inherits_keys_and_names_its_base():
    found = subclass("    pass\n").trainers()["gmpo"]
    assert sorted(key for key, _ in found.keys) == ["clip_ratio", "policy_loss", "reward"]
    assert found.bases == ["grpo"]


def test_override_hides_the_keys_of_the_base_and_of_what_only_that_called():
    found = subclass("    def compute_loss(self):\n        self._metrics['train']['kl'].append(1)\n").trainers()[
        "gmpo"
    ]
    assert sorted(key for key, _ in found.keys) == ["kl", "reward"]


def test_override_that_calls_super_keeps_them():
    found = subclass("    def compute_loss(self):\n        return super().compute_loss()\n").trainers()["gmpo"]
    assert sorted(key for key, _ in found.keys) == ["clip_ratio", "policy_loss", "reward"]


def test_classes_of_one_name_are_one_trainer():
    text = "from ...trainer.grpo_trainer import GRPOTrainer as Base\n\nclass GRPOTrainer(Base):\n    def extra(self):\n        self._metrics['train']['x'].append(1)\n"
    found = release({"trainer/grpo_trainer.py": BASE, "experimental/gspo_token/grpo_trainer.py": text}).trainers()
    assert list(found) == ["grpo"]
    assert {key for key, _ in found["grpo"].keys} == {"clip_ratio", "policy_loss", "reward", "x"}


def test_worker_beside_an_experimental_trainer_counts():
    files = {
        "experimental/async_grpo/async_grpo_trainer.py": HEADER + "class AsyncGRPOTrainer(Trainer):\n    pass\n",
        "experimental/async_grpo/worker.py": "class Worker:\n    def run(self):\n        self._push_metrics({'rollout/score_s': 1})\n",
    }
    assert list(release(files).trainers()["asyncgrpo"].keys) == [("rollout/score_s", False)]


def test_default_compute_metrics_is_logged_in_evaluation():
    found = trainer(
        "def __init__(self, compute_metrics=None):\n    if compute_metrics is None:\n        compute_metrics = compute_accuracy",
        before="def compute_accuracy(pred):\n    return {'accuracy': 1}\n",
    )
    assert list(found.keys) == [("eval_accuracy", False)]


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("ToyTrainer(Trainer)", "pass", "transformers"),
        ("ToyTrainer(Trainer)", "def train(self):\n    return super().train()", "transformers"),
        ("ToyTrainer(Trainer)", "def train(self):\n    pass", "own"),
        ("ToyTrainer(PyTorchModelHubMixin)", "pass", "tracker"),
    ],
)
def test_who_writes_the_log(name, body, expected):
    assert trainer(body, name=name).loop == expected


def test_keys_outside_of_on_log_are_marked():
    body = 'def step(self, x):\n    self.accelerator.log({"reward": x})'
    assert list(trainer(body, name="ToyTrainer(Mixin)").keys) == [("reward", True)]


def test_names_of_trainers():
    assert [trainer_name(name) for name in ("OnlineDPOTrainer", "PPOv2Trainer", "IWOPDTrainer")] == [
        "onlinedpo",
        "ppo",
        "iwopd",
    ]


def test_defaults_of_a_config_and_its_bases():
    config = (
        "from dataclasses import dataclass, field\nfrom transformers import TrainingArguments\n\n"
        "class _BaseConfig(TrainingArguments):\n    learning_rate: float = field(default=1e-6)\n    logging_steps: float = 10\n\n"
        "class ToyConfig(_BaseConfig):\n    learning_rate: float = field(default=1e-5, metadata={'help': 'x'})\n"
        "    loss_type: list[str] = field(default_factory=lambda: ['sigmoid'])\n    beta: float | None = None\n"
        "    template: str = field(default=TEMPLATE)\n    prompt: str = '" + "x" * 200 + "'\n"
    )
    text = (
        HEADER
        + "from .toy_config import ToyConfig\n\nclass ToyTrainer(Trainer):\n    def __init__(self, args: ToyConfig): ...\n"
    )
    found = release({"trainer/toy_config.py": config, "trainer/toy_trainer.py": text}).trainers()["toy"]
    assert found.configs == ["ToyConfig"]
    assert found.defaults == {"learning_rate": 1e-5, "logging_steps": 10, "loss_type": ["sigmoid"], "beta": None}


# Histories


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ([True, True, True], [["0.1", None]]),
        ([False, True, False], [["0.2", "0.2"]]),
        ([True, False, True], [["0.1", "0.1"], ["0.3", None]]),
    ],
)
def test_ranges(present, expected):
    assert ranges(["0.1", "0.2", "0.3"], present) == expected


def test_changes_tell_values_types_and_ends_apart():
    values = [0, 0, 0.0, False, ABSENT, None]
    assert changes(list("abcdef"), values) == [["a", 0], ["c", 0.0], ["d", False], ["e"], ["f", None]]


def test_history_lines_trainers_up():
    one = release({"trainer/a_trainer.py": HEADER + "class ATrainer(Trainer):\n    pass\n"}, "0.1")
    two = release({"trainer/b_trainer.py": HEADER + "class BTrainer(Trainer):\n    pass\n"}, "0.2")
    versions, timeline = history([one, two])
    assert versions == ["0.1", "0.2"]
    assert {name: [item is not None for item in series] for name, series in timeline.items()} == {
        "a": [True, False],
        "b": [False, True],
    }


def test_releases_are_ordered_by_number(tmp_path):
    for version in ("0.7.10", "0.7.2", "1.0.0", "0.11.4"):
        (tmp_path / f"trl-{version}-py3-none-any.whl").touch()
    assert [path.name.split("-")[1] for path in wheels(tmp_path)] == ["0.7.2", "0.7.10", "0.11.4", "1.0.0"]


# The committed maps


def test_every_known_key_of_1_16_is_in_the_maps():
    missing = {}
    for name, wanted in FACTS["trainers"].items():
        have = {_plain(entry["key"]) for entry in load_map(name)["keys"] if spans_version(entry, FACTS["release"])}
        missing[name] = sorted(key for key in wanted if _plain(key) not in have)
    assert {name: lost for name, lost in missing.items() if lost} == {}


def test_every_known_key_of_removed_trainers_is_in_the_maps():
    missing = {}
    for name, wanted in FACTS["legacy"].items():
        have = {entry["key"] for entry in load_map(name)["keys"] if spans_version(entry, FACTS["legacy_release"])}
        missing[name] = sorted(set(wanted) - have)
    assert {name: lost for name, lost in missing.items() if lost} == {}


def _plain(key: str) -> str:
    return "/".join(
        "{}" if "{" in part and part.count("}") == 1 and part[0] == "{" else part for part in key.split("/")
    )


@pytest.mark.parametrize(("name", "key", "since", "until", "canonical"), FACTS["history"])
def test_known_histories(name, key, since, until, canonical):
    entry = next(entry for entry in load_map(name)["keys"] if entry["key"] == key)
    assert (entry["since"], entry["until"]) == (since, until)
    assert MAPS.joinpath(f"{name}.json").exists()
    assert entry["canonical"].replace("{reward_func_name}", "{name}") == canonical


def test_internal_keys_are_not_in_the_maps():
    found = {entry["key"] for name in index()["trainers"] for entry in load_map(name)["keys"]}
    assert not [key for key in found if key.endswith("_sum") or "count/" in key or key.startswith("profiling/")]
    assert found.isdisjoint({"prompt", "completion", "completions", "correctness", "rollouts", "turns", "tally"})


def test_maps_cover_all_releases_and_trainers():
    assert index()["releases"][0] == "0.7.0"
    assert "1.16.0" in index()["releases"]
    assert {"ppo", "bco", "xpo", "nashmd", "prm", "minillm", "ssd", "ddpo"} <= set(index()["trainers"])
    assert {path.stem for path in MAPS.glob("*.json")} == set(index()["trainers"])


def test_maps_carry_the_names_of_names_yaml():
    last = index()["releases"][-1]
    for name in index()["trainers"]:
        for entry in load_map(name)["keys"]:
            assert entry["canonical"] == canonical_name(name, entry["key"], entry["until"] or last), (name, entry)


def test_maps_are_written_as_the_generator_writes_them():
    for path in MAPS.glob("*.json"):
        assert path.read_text() == dump(json.loads(path.read_text())), path.name


def test_writing_the_names_again_changes_nothing():
    before = {path: path.read_text() for path in MAPS.glob("*.json")}
    restamp()
    assert {path: path.read_text() for path in MAPS.glob("*.json")} == before


# --check


def run_check(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "generate_metric_maps.py"), "--check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture
def copy_of_trl(tmp_path) -> Path:
    """A copy of the installed TRL's trainers, to be changed."""
    shutil.copytree(INSTALLED, tmp_path / "trl", ignore=shutil.ignore_patterns("__pycache__", "*.jinja", "*.md"))
    return tmp_path


@pytest.fixture
def rules(tmp_path) -> Path:
    folder = tmp_path / "rules" / "dpo"
    folder.mkdir(parents=True)
    rest = "severity: low\nmessage: x\n"
    (folder / "margin_low.yaml").write_text(
        'name: margin_low\ntrainers: [dpo]\nmetric: reward_margin\ncondition: "< 0"\n' + rest
    )
    (folder / "gap.yaml").write_text(
        'name: gap\ntrainers: [all]\nmetric: loss\ncondition: "jensen_gap > 1 and learning_rate > 0"\n' + rest
    )
    (folder / "other.yaml").write_text('name: other\ntrainers: [dpo]\nmetric: entropy\ncondition: "> 1"\n' + rest)
    (folder / "grpo.yaml").write_text('name: grpo\ntrainers: [grpo]\nmetric: reward_margin\ncondition: "> 1"\n' + rest)
    return tmp_path / "rules"


def test_check_passes_on_the_installed_trl():
    result = run_check()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 differences with the committed maps" in result.stdout


def test_check_names_the_rules_that_a_renamed_key_breaks(copy_of_trl, rules):
    path = copy_of_trl / "trl" / "trainer" / "dpo_trainer.py"
    path.write_text(path.read_text().replace('"rewards/margins"', '"rewards/margin"'))
    result = run_check("--source", str(copy_of_trl), "--rules", str(rules))
    assert result.returncode == 1
    assert (
        "dpo: key 'rewards/margins' is gone; rules that break: gap (dpo/gap.yaml), margin_low (dpo/margin_low.yaml)"
        in result.stdout
    )
    assert "dpo: key 'rewards/margin' is not in the map" in result.stdout


def test_check_tells_a_changed_default_and_a_lost_trainer(copy_of_trl, rules):
    config = copy_of_trl / "trl" / "trainer" / "dpo_config.py"
    config.write_text(config.read_text().replace("default=0.1,", "default=0.2,", 1))
    shutil.rmtree(copy_of_trl / "trl" / "experimental" / "orpo")
    found = check(source_release(copy_of_trl), rules)
    assert any(text.startswith("dpo: default of ") and text.endswith("is 0.2, the map says 0.1") for text in found)
    assert "orpo: trainer is gone; rules that break: gap (dpo/gap.yaml)" in found


def test_a_newer_release_is_compared_with_the_last_one():
    last = index()["releases"][-1]
    assert release_at("99.0.0") == last
    assert release_at("0.7.0.post1") == "0.7.0"
    assert release_at("0.16.1") == "0.16.1"


def test_check_of_a_newer_release_says_what_it_is_compared_with(copy_of_trl):
    (copy_of_trl / "trl" / "VERSION").write_text("99.0.0")
    result = run_check("--source", str(copy_of_trl))
    assert f"TRL 99.0.0 (compared as {index()['releases'][-1]}, the nearest release in the maps)" in result.stdout
