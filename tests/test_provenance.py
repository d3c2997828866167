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

"""Where a run comes from: the right values, the same in every process, nothing touched, nothing secret."""

import functools
import json
import math
import os
import random
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from test_redact import KNOWN, WORD
from tiny import make_trainer
from tiny_data import tiny_tokenizer
from tiny_models import tiny_model
from torch import nn
from transformers import BitsAndBytesConfig, TrainerCallback, TrainingArguments
from transformers.trainer_utils import IntervalStrategy
from trl import GRPOConfig

from trl_diagnostics.sinks import provenance
from trl_diagnostics.sinks.identity import (
    dataset_identity,
    fingerprint,
    model_identity,
    tokenizer_identity,
)
from trl_diagnostics.sinks.json_value import digest, json_value
from trl_diagnostics.sinks.provenance import arguments, arguments_hash, collect_provenance, environment


KEYS = (
    "created git arguments arguments_hash packages python os hardware world_size launcher model tokenizer "
    "train_dataset eval_dataset reward_functions seeds command environment"
).split()


# --- JSON values -----------------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = {"r": 1}


class Level(IntEnum):
    HIGH = 3


@dataclass
class Point:
    x: float = math.nan
    tags: set = field(default_factory=lambda: {"b", "a"})


@dataclass(slots=True)
class Slots:
    x: int = 1


class Broken:
    def __repr__(self):
        raise RuntimeError


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value,expected",
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (math.inf, "Infinity"),
        ({1: -math.inf, None: (1,), Level.HIGH: 0}, {"1": "-Infinity", "None": [1], "3": 0}),
        (Colour.RED, {"r": 1}),
        (Level.HIGH, 3),
        (IntervalStrategy.STEPS, "steps"),
        (Point(), {"x": "NaN", "tags": ["a", "b"]}),
        (Point, f"{__name__}.Point"),
        (Slots(), {"x": 1}),
        (Pair(1, {2}), [1, [2]]),
        (Path("a") / "b", "a/b"),
        (torch.bfloat16, "torch.bfloat16"),
        (torch.device("cpu", 0), "device(type='cpu', index=0)"),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (len, "builtins.len"),
        (json.dumps, "json.dumps"),
        (
            functools.partial(json.dumps, [1], indent=2),
            {"function": "json.dumps", "args": [[1]], "keywords": {"indent": 2}},
        ),
        (object(), "<builtins.object>"),
        (Broken(), f"<{__name__}.Broken>"),
        (b"x", "b'x'"),
    ],
)
def test_json_value(value, expected):
    assert json_value(value) == expected
    assert type(json_value(value)) is type(expected)
    json.dumps(json_value(value), allow_nan=False)


def test_json_value_ends_in_what_holds_itself():
    loop = {}
    loop["again"] = [loop]
    assert json.dumps(json_value(loop)).count("again") == 10


def test_json_value_of_a_quantisation_config_has_all_of_it():
    config = json_value(BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16))
    assert config["_load_in_4bit"] is True and config["bnb_4bit_compute_dtype"] == "torch.bfloat16"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.sampled_from([len, Point, Level.HIGH]),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers() | st.none(), inner)
    | st.frozensets(st.text() | st.integers()),
    max_leaves=10,
)  # fmt: skip


@given(ANYTHING)
def test_json_value_is_strict_json_and_changes_no_json(value):
    once = json_value(value)
    assert json.loads(json.dumps(once, allow_nan=False)) == once
    assert json_value(once) == once and len(digest(once)) == 16


# --- Arguments -------------------------------------------------------------------------------------------------------


def config(folder="out", **changes):
    return TrainingArguments(output_dir=str(folder), use_cpu=True, **changes)


def test_arguments_are_all_there_as_they_are():
    args = config(learning_rate=0.1, hub_token=WORD, lr_scheduler_kwargs={"dtype": torch.bfloat16, "f": json.dumps})
    found = arguments(args)
    assert found.keys() == {name for name, one in args.__dataclass_fields__.items() if one.init}
    assert found["learning_rate"] == 0.1 and found["save_strategy"] == "steps" and found["hub_token"] == "<redacted>"
    assert found["lr_scheduler_kwargs"] == {"dtype": "torch.bfloat16", "f": "json.dumps"}
    assert args.lr_scheduler_kwargs == {"dtype": torch.bfloat16, "f": json.dumps} and args.hub_token == WORD


def test_hash_tells_how_a_run_trains_and_not_where():
    def hashed(*folder, **changes):
        return arguments_hash(arguments(config(*folder, **changes)))

    base = hashed()
    assert base == hashed("elsewhere", run_name="b", hub_token=WORD, report_to="none", push_to_hub=False)
    others = [{"learning_rate": 1e-3}, {"seed": 1}, {"per_device_train_batch_size": 2}, {"adam_beta2": 0.99}]
    assert len({base, *(hashed(**change) for change in others)}) == 5


def test_hash_is_the_same_in_every_process():
    code = """
        from trl_diagnostics.sinks.json_value import digest, json_value
        print(digest(json_value({"b": {"x", "y", 3, None}, "a": [len, lambda: 0, object(), float("nan")]})))
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


# --- Git -------------------------------------------------------------------------------------------------------------


def git(folder, *command):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *identity, *command], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    folder = tmp_path / "repo"
    folder.mkdir()
    git(folder, "init")
    (folder / "train.py").write_text("lr = 1\n")
    git(folder, "add", "train.py")
    git(folder, "commit", "-m", "first")
    monkeypatch.chdir(folder)
    return folder


def test_git_state(repository):
    commit = git(repository, "rev-parse", "HEAD").strip()
    clean = {"commit": commit, "branch": "main", "remote": None, "dirty": False}
    assert provenance._git(False) == clean
    (repository / "new.txt").write_text("not tracked")
    assert provenance._git(True) == clean | {"diff": ""}
    (repository / "train.py").write_text("lr = 2\n")
    changed = provenance._git(True)
    assert changed["dirty"] and "-lr = 1\n+lr = 2" in changed["diff"]
    git(repository, "checkout", "--detach")
    assert provenance._git(False)["branch"] is None


def test_git_of_a_subfolder_without_commits(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    git(tmp_path, "init")
    monkeypatch.chdir(tmp_path / "sub")
    assert provenance._git(True) == {"commit": None, "branch": "main", "remote": None, "dirty": False, "diff": None}


def test_git_has_limits_and_changes_nothing(repository):
    (repository / "train.py").write_text("x = 1\n" * 100_000)
    index = (repository / ".git" / "index").stat().st_mtime_ns
    git_diff = "touch ran; true"
    git(repository, "config", "diff.external", git_diff)
    git(repository, "config", "core.fsmonitor", git_diff)
    assert len(provenance._git(True)["diff"]) == provenance.DIFF_BYTES
    assert (repository / ".git" / "index").stat().st_mtime_ns == index
    assert not (repository / "ran").exists()


def test_no_repository_no_git_and_a_git_that_hangs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert provenance._git(False) is None
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)
    start = time.monotonic()
    assert provenance._git(True) is None
    assert time.monotonic() - start < 10
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance._git(False) is None


# --- Machine ---------------------------------------------------------------------------------------------------------


def test_environment_is_an_allow_list():
    given = {
        "CUDA_VISIBLE_DEVICES": "0,1", "NCCL_DEBUG": "INFO", "RANK": "3", "SLURM_JOB_ID": "7", "HF_HOME": "/data",
        "HF_ENDPOINT": f"https://u:{WORD}@mirror", "VLLM_API_KEY": WORD, "SLURM_JWT": WORD, "HF_TOKEN": WORD,
        "HOME": "/root", "AWS_REGION": "x", "OPENAI_API_KEY": WORD, "MY_PASSWORD": WORD,
    }  # fmt: skip
    assert environment(given) == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "HF_ENDPOINT": "https://<redacted>@mirror",
        "HF_HOME": "/data",
        "NCCL_DEBUG": "INFO",
        "RANK": "3",
        "SLURM_JOB_ID": "7",
    }


@pytest.mark.parametrize(
    "variables,launcher",
    [
        ({}, "python"),
        ({"TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "1"}, "torchrun"),
        ({"TORCHELASTIC_RUN_ID": "none", "ACCELERATE_DYNAMO_USE_FULLGRAPH": "False"}, "accelerate"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "python"),  # the trainer itself sets this one
        ({"CROSS_SIZE": "1", "WORLD_SIZE": "2"}, "deepspeed"),
        ({"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0"}, "slurm"),
        ({"SLURM_JOB_ID": "1"}, "python"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpi"),
    ],
)
def test_launcher(variables, launcher, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC", "ACCELERATE", "OMPI"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert provenance._launcher() == launcher


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch,launcher",
    [
        (["torch.distributed.run", "--nproc-per-node=1", "--standalone"], "torchrun"),
        (["accelerate.commands.launch", "--cpu", "--num_processes=1", "--num_machines=1"], "accelerate"),
    ],
)
def test_real_launchers(launch, launcher, tmp_path):
    script = tmp_path / "script.py"
    script.write_text("from trl_diagnostics.sinks import provenance\nprint('launcher', provenance._launcher())\n")
    done = subprocess.run([sys.executable, "-m", *launch, str(script)], capture_output=True, text=True)
    assert f"launcher {launcher}\n" in done.stdout, done.stderr


def test_packages_and_hardware():
    packages = provenance._packages()
    assert packages["torch"] == torch.__version__ and "deepspeed" not in packages
    hardware = provenance._hardware(config())
    assert hardware["device"] == "cpu" and hardware["cpu"] and hardware["memory_gib"] > 0.5
    assert 1 <= hardware["cpu_cores_usable"] <= hardware["cpu_cores"]


# --- Model -----------------------------------------------------------------------------------------------------------


def test_model_identity():
    model = tiny_model()
    found = model_identity(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert found["class"] == found["base_class"] == type(model).__name__
    assert found["parameters"] == found["trainable_parameters"] == count and found["trainable_share"] == 1.0
    assert found["dtypes"] == {"float32": count} and found["devices"] == ["cpu"] and found["adapters"] == {}
    assert found["fingerprint"]["frozen"] is None and not found["fingerprint"]["sharded"]
    assert found == json.loads(json.dumps(found, allow_nan=False)) == model_identity(tiny_model())
    assert model_identity(tiny_model(seed=1))["config_hash"] == found["config_hash"]
    assert model_identity(None) is None
    model.config.rope_theta = 7.0
    assert model_identity(model)["config_hash"] != found["config_hash"]


def test_adapters_are_told_from_the_base():
    def identity(base_seed, rank):
        torch.manual_seed(base_seed)
        model = get_peft_model(tiny_model(seed=base_seed), LoraConfig(r=rank, target_modules=["q_proj"]))
        return model_identity(model)

    small, large, other = identity(0, 4), identity(0, 8), identity(1, 4)
    assert small["class"].startswith("Peft") and small["base_class"] == "Qwen2ForCausalLM"
    assert small["adapters"]["default"]["r"] == 4 and small["adapters"]["default"]["target_modules"] == ["q_proj"]
    assert 0 < small["trainable_share"] < 0.5
    assert small["fingerprint"]["frozen"] == large["fingerprint"]["frozen"] != other["fingerprint"]["frozen"]
    assert small["fingerprint"]["trainable"] != large["fingerprint"]["trainable"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.int8])
def test_fingerprint_of_every_dtype(dtype):
    def hashed(value):
        model = nn.Module()
        model.weight = nn.Parameter(torch.full((300, 200), value).to(dtype), requires_grad=False)
        return fingerprint(model)["frozen"]

    assert hashed(1.0) == hashed(1.0) != hashed(2.0)


def test_fingerprint_sees_one_optimizer_step_and_touches_nothing():
    model = tiny_model()
    model.lm_head.weight = nn.Parameter(torch.rand(64, 50).T)  # not contiguous
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = fingerprint(model)
    assert torch.equal(torch.get_rng_state(), state) and all(one.grad is None for one in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-6)
    assert fingerprint(model)["trainable"] != first["trainable"]
    model.to(memory_format=torch.preserve_format)
    assert fingerprint(model) == fingerprint(model)


def test_meta_and_empty_tensors_have_no_values():
    with torch.device("meta"):
        model = nn.Linear(1000, 1000)
    assert fingerprint(model)["unread"] == 2 and fingerprint(model)["trainable"]
    assert model_identity(model)["parameters"] == 1_001_000
    assert fingerprint(nn.Module()) == {"trainable": None, "frozen": None, "sharded": False, "unread": 0}


def test_partitioned_parameters_of_deepspeed_count_whole():
    model = nn.Linear(4, 3, bias=False)
    model.weight = nn.Parameter(torch.empty(0))
    model.weight.ds_numel, model.weight.ds_tensor = 12, torch.arange(6.0)
    found = model_identity(model)
    assert found["parameters"] == 12 and found["fingerprint"]["sharded"] and found["fingerprint"]["unread"] == 0
    model.weight.ds_tensor = torch.arange(1.0, 7.0)
    assert model_identity(model)["fingerprint"]["trainable"] != found["fingerprint"]["trainable"]


def test_packed_four_bit_parameters_count_whole():
    class Params4bit(nn.Parameter):
        pass

    model = nn.Module()
    model.weight = Params4bit(torch.zeros(50, 1, dtype=torch.uint8), requires_grad=False)
    assert model_identity(model)["parameters"] == 100 and model_identity(model)["dtypes"] == {"uint8": 100}


def test_quantised_weights_in_buffers_count_for_the_fingerprint():
    def hashed(value):
        model = nn.Module()
        model.register_buffer("qweight", torch.full((8, 8), value, dtype=torch.int32))
        model.register_buffer("running_mean", torch.rand(8))
        return fingerprint(model)["frozen"]

    assert hashed(1) == hashed(1) != hashed(2)


def test_sharded_parameters_are_read_without_gathering(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        whole = model_identity(model)
        fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
        found = model_identity(model)
        assert found["parameters"] == whole["parameters"] and found["fingerprint"]["sharded"]
        assert found["fingerprint"]["trainable"] == whole["fingerprint"]["trainable"]  # all of it is on this rank
    finally:
        torch.distributed.destroy_process_group()


# --- Tokenizer and data ----------------------------------------------------------------------------------------------


def test_tokenizer_identity():
    tokenizer = tiny_tokenizer()
    found = tokenizer_identity(tokenizer)
    assert found["length"] == len(tokenizer) and found["special_tokens"]["pad_token"] == tokenizer.pad_token
    assert found["special_token_ids"]["eos_token"] == tokenizer.eos_token_id
    tokenizer.chat_template += " "
    changed = tokenizer_identity(tokenizer)
    assert {name for name in found if found[name] != changed[name]} == {"chat_template_hash"}
    tokenizer.chat_template = None
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_identity(tokenizer)["chat_template_hash"] is None
    assert tokenizer_identity(tokenizer)["length"] == found["length"] + 1
    assert tokenizer_identity(None) is None and tokenizer_identity(len) == {"class": "builtin_function_or_method"}


def test_dataset_identity():
    data = Dataset.from_dict({"a": list(range(100)), "b": [[i] for i in range(100)]}, split="train")
    found = dataset_identity(data)
    assert (found["class"], found["rows"], found["columns"], found["split"]) == ("Dataset", 100, ["a", "b"], "train")
    assert found["fingerprint"] == data._fingerprint
    same = Dataset.from_dict({"a": list(range(100)), "b": [[i] for i in range(100)]})
    for other, equal in [(same, True), (data.shuffle(seed=1), False), (data.select(range(99)), False)]:
        assert (dataset_identity(other)["sample_hash"] == found["sample_hash"]) is equal
    assert dataset_identity(data.select([]))["rows"] == 0
    assert dataset_identity(None) is None
    assert dataset_identity({"x": data, "y": None}) == {"x": found, "y": None}
    assert dataset_identity([1, 2])["rows"] == 2


def test_no_row_is_formatted_transformed_or_consumed():
    def fail(*_):
        raise AssertionError

    data = Dataset.from_dict({"a": [1, 2]})
    transformed = data.with_transform(fail)
    assert dataset_identity(transformed)["sample_hash"] == dataset_identity(data)["sample_hash"]
    assert transformed.format["type"] == "custom"
    stream = dataset_identity(datasets.IterableDataset.from_generator(lambda: fail()))
    assert stream["class"] == "IterableDataset"
    assert not any(stream[name] for name in ("rows", "columns", "fingerprint", "sample_hash"))
    named = Dataset.from_dict({"a": [1]}).to_iterable_dataset()
    assert dataset_identity(named)["columns"] == ["a"] and next(iter(named)) == {"a": 1}

    class Users(torch.utils.data.Dataset):
        __getitem__ = fail

        def __len__(self):
            return 7

    assert dataset_identity(Users())["rows"] == 7 and dataset_identity(Users())["sample_hash"] is None


@pytest.mark.slow
def test_ten_million_rows_are_not_loaded(tmp_path):
    import psutil

    table = pa.table({"n": pa.array(np.arange(10_000_000))})
    with pa.OSFile(str(tmp_path / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1_000)
    del table
    data = Dataset.from_file(str(tmp_path / "data.arrow"))
    dataset_identity(data.select([0]))  # imports
    memory, start = psutil.Process().memory_info().rss, time.process_time()
    assert dataset_identity(data)["rows"] == 10_000_000
    assert time.process_time() - start < 1
    assert psutil.Process().memory_info().rss - memory < 20e6


# --- All together ----------------------------------------------------------------------------------------------------


class Collector(TrainerCallback):
    def __init__(self, **options):
        self.options = options

    def on_train_begin(self, args, state, control, model, processing_class, train_dataloader, **kwargs):
        before = (torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate())
        start = time.process_time()
        self.record = collect_provenance(args, model, processing_class, train_dataloader.dataset, **self.options)
        self.seconds = time.process_time() - start
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_record_of_a_real_run(tmp_path):
    collector = Collector()
    make_trainer("sft", tmp_path, [collector], max_steps=1).train()
    record = collector.record
    assert list(record) == KEYS
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert "<redacted>" not in json.dumps(record) and '"error"' not in json.dumps(record)
    assert record["arguments"]["max_steps"] == 1 and record["world_size"] == 1 and record["seeds"]["seed"] == 0
    assert record["model"]["base_class"] == "Qwen2ForCausalLM" and record["tokenizer"]["length"] == 50
    assert record["train_dataset"]["columns"] == ["input_ids", "labels"] and record["eval_dataset"] is None
    assert record["command"] == {"argv": sys.orig_argv, "folder": os.getcwd()}
    assert collector.seconds < 2


@pytest.mark.slow
def test_training_stays_the_same(tmp_path):
    weights = []
    for callbacks in ([], [Collector(diff=True)]):
        trainer = make_trainer("sft", tmp_path, callbacks, max_steps=3)
        trainer.train()
        weights.append([parameter.detach().clone() for parameter in trainer.model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))


def test_a_part_that_fails_says_so_and_the_others_are_there():
    class Hostile(dict):
        def items(self):
            raise RuntimeError(f"no items for {KNOWN['github']}")

    record = collect_provenance(config(lr_scheduler_kwargs={}), object(), "no tokenizer", Hostile(a=1), {"a": 5})
    assert list(record) == KEYS
    assert record["model"] == {"error": "AttributeError: 'object' object has no attribute 'modules'"}
    assert record["tokenizer"] == {"class": "str"}
    assert record["train_dataset"] == {"error": "RuntimeError: no items for <redacted>"}
    assert record["eval_dataset"]["a"]["class"] == "int"


def test_nothing_planted_is_in_the_record(repository, monkeypatch):
    planted = {**KNOWN, "word": WORD, "old wandb": "ab12" * 10}
    url = f"https://bob:{WORD}@example.com"
    git(repository, "remote", "add", "origin", f"{url}/repo.git")
    lines = "".join(f"# {secret}\n" for secret in KNOWN.values())
    (repository / "train.py").write_text(f"login(token='{WORD}')\npassword = '{WORD}'\n{lines}")
    monkeypatch.setenv("WANDB_API_KEY", planted["old wandb"])
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", f"eth0 --token {WORD}")
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("SLURM_JOB_NAME", KNOWN["slack bot"])
    argv = ["python", "train.py", "--hf_token", WORD, f"--api-key={WORD} x", f"password={WORD}", f"--model={url}/m"]
    monkeypatch.setattr(sys, "orig_argv", [*argv, *KNOWN.values(), f"wandb login {planted['old wandb']}"])
    args = GRPOConfig(
        f"runs/{KNOWN['github']}",
        use_cpu=True,
        bf16=False,
        run_name=KNOWN["gitlab"],
        hub_token=WORD,
        hub_model_id=f"{url}/model",
        optim_args=f"password={WORD}",
        lr_scheduler_kwargs={
            KNOWN["openai"]: 1,
            "deep": [{"auth": {"cookie": WORD}}],
            "headers": [["X-Api-Key", WORD]],
        },
        generation_kwargs={"token": WORD, "stop": [KNOWN["anthropic"]]},
        accelerator_config={"gradient_accumulation_kwargs": {"credentials": Point(WORD, {WORD})}},
    )
    model = tiny_model()
    model.name_or_path = f"{url}/model"
    model.config.service = {"api_key": WORD, "dsn": f"postgresql://a:{WORD}@db/x"}
    tokenizer = tiny_tokenizer()
    tokenizer.name_or_path = f"{url}/tokenizer"
    data = Dataset.from_dict({KNOWN["aws key id"]: list(planted.values()), "text": [WORD] * len(planted)})
    record = collect_provenance(args, model, tokenizer, data, {f"{url}/eval": data}, diff=True)
    text = json.dumps(record)
    assert [name for name, secret in planted.items() if json.dumps(secret)[1:-1] in text] == []
    assert [name for name, secret in planted.items() if secret[5:25] in text and "KEY-----" not in secret] == []
    assert '"error"' not in text and text.count("<redacted>") > 60
    assert record["git"]["remote"] == "https://<redacted>@example.com/repo.git"
    assert record["model"]["name_or_path"] == "https://<redacted>@example.com/model"
    assert "login(token='<redacted>')" in record["git"]["diff"] and len(planted) > 30


def test_saving_a_model_does_not_make_it_another_one(tmp_path):
    """`save_pretrained` adds to the config, and a model that is loaded has what it added."""
    model = tiny_model()
    before = model_identity(model)["config_hash"]
    model.save_pretrained(tmp_path)
    assert model_identity(model)["config_hash"] == before
    assert model_identity(type(model).from_pretrained(tmp_path))["config_hash"] == before
