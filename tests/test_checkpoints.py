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

"""Checkpoints on disk: what is there, whether the weights are finite, and which one to go on from or to ship."""

import io
import json
import math
import pickle
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_kit import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import TrainerState

from trl_diagnostics.sources import weights
from trl_diagnostics.sources.checkpoints import (
    NO_TIME,
    Checkpoint,
    checkpoints,
    global_step,
    missing_parts,
    output_dir_of,
)
from trl_diagnostics.sources.find import states
from trl_diagnostics.sources.weights import Weights, check_weights


BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SMALL = {
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
LARGE = {"F32": np.float32, "F64": np.float64}


def judged(raw, kind, deadline=math.inf):
    """Whether raw bytes of a type are found not to be finite."""
    return weights._any_nonfinite(io.BytesIO(bytes(raw)), len(raw), kind, deadline)


def safetensors(path, **tensors):
    save_file(tensors, path)
    return path


# Are the weights finite?


@pytest.mark.parametrize("kind", SMALL)
def test_every_number_of_the_small_types_is_judged_as_torch_judges_it(kind):
    dtype = SMALL[kind]
    size = dtype.itemsize
    every = np.arange(256**size, dtype=f"<u{size}")
    finite = torch.from_numpy(every.view(f"<i{size}").copy()).view(dtype).float().isfinite().numpy()
    assert not judged(every[finite].tobytes(), kind)
    assert not finite.all()
    for pattern in every[~finite]:
        assert judged(np.append(every[finite][:9], pattern).tobytes(), kind), pattern


@pytest.mark.parametrize("kind", LARGE)
@given(data=st.data())
def test_any_numbers_of_the_large_types_are_judged_as_numpy_judges_them(kind, data):
    width = 8 * np.dtype(LARGE[kind]).itemsize
    bits = data.draw(st.lists(st.integers(0, 2**width - 1), min_size=1, max_size=20))
    raw = np.array(bits, dtype=f"<u{width // 8}").tobytes()
    assert judged(raw, kind) == (not np.isfinite(np.frombuffer(raw, LARGE[kind])).all())


@pytest.mark.parametrize("where", [0, weights.CHUNK // 4 - 1, weights.CHUNK // 4, 700_000, -1])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_single_number_is_found_wherever_it_is(tmp_path, where, value):
    tensor = torch.zeros(800_001)
    assert check_weights(safetensors(tmp_path / "a.safetensors", weight=tensor)).finite
    tensor[where] = value
    file = safetensors(tmp_path / "b.safetensors", first=torch.ones(3), weight=tensor)
    assert check_weights(file) == Weights(False, "weight in b.safetensors is NaN or infinite")


def test_whole_numbers_empty_tensors_and_scalars_are_finite(tmp_path):
    tensors = {"ids": torch.full((5,), -1), "mask": torch.ones(3, dtype=torch.bool), "none": torch.empty(0)}
    assert check_weights(safetensors(tmp_path / "a.safetensors", scale=torch.tensor(1.5), **tensors)) == Weights(True)


def test_complex_numbers(tmp_path):
    good, bad = torch.zeros(3, dtype=torch.complex64), torch.tensor([0j, complex(0, math.nan)], dtype=torch.complex64)
    assert check_weights(safetensors(tmp_path / "a.safetensors", freqs=good)).finite
    assert check_weights(safetensors(tmp_path / "b.safetensors", freqs=bad)).finite is False


def sharded(folder, *tensors, names=None):
    index = {}
    for i, tensor in enumerate(tensors, 1):
        name = f"model-{i:05}-of-{len(tensors):05}.safetensors"
        save_file({f"layer.{i}": tensor}, folder / name)
        index[f"layer.{i}"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_all_shards_are_looked_at(tmp_path):
    sharded(tmp_path, torch.ones(2), torch.ones(2), torch.tensor([1.0, math.nan]))
    said = "layer.3 in model-00003-of-00003.safetensors is NaN or infinite"
    assert check_weights(tmp_path) == Weights(False, said)


def test_a_missing_shard(tmp_path):
    sharded(tmp_path, torch.ones(2), torch.ones(2))
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    said = "model-00002-of-00002.safetensors is missing, model.safetensors.index.json names it"
    assert check_weights(tmp_path) == Weights(None, said, damaged=True)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert check_weights(tmp_path) == Weights(None, "model.safetensors.index.json is no index of shards", damaged=True)


def test_adapters_in_folders_are_looked_at(tmp_path):
    (tmp_path / "policy").mkdir()
    safetensors(tmp_path / "adapter_model.safetensors", lora_A=torch.ones(2))
    safetensors(tmp_path / "policy" / "adapter_model.safetensors", lora_B=torch.tensor([math.inf]))
    assert check_weights(tmp_path).note == "lora_B in adapter_model.safetensors is NaN or infinite"


@pytest.mark.parametrize("cut", [0, 4, 8, 30, 200, 4000])
def test_a_file_that_was_cut_off(tmp_path, cut):
    file = safetensors(tmp_path / "model.safetensors", weight=torch.ones(1000))
    file.write_bytes(file.read_bytes()[:cut])
    found = check_weights(tmp_path)
    assert (found.finite, found.damaged) == (None, True) and found.note.startswith("model.safetensors is ")


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_header_raises(tmp_path_factory, header):
    file = tmp_path_factory.getbasetemp() / "any.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert check_weights(file).finite in (None, True)


HEADERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
ENTRY = st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "BF16", "X9", 3]), "data_offsets": HEADERS})


@settings(max_examples=100)
@given(HEADERS | st.dictionaries(st.text(max_size=5), ENTRY, max_size=3))
def test_no_json_in_the_header_raises(tmp_path_factory, header):
    text = json.dumps(header).encode()
    file = tmp_path_factory.getbasetemp() / "some.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
    assert check_weights(file).finite in (None, True)


def test_a_type_that_nobody_knows_is_not_called_finite(tmp_path):
    header = json.dumps({"w": {"dtype": "F12", "shape": [2], "data_offsets": [0, 3]}}).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    said = "model.safetensors: numbers of an unknown type, F12"
    assert check_weights(tmp_path) == Weights(None, said, damaged=True)


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil_was_here"),)


def test_pickles_are_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    for name in ("pytorch_model.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        (folder / name).write_bytes(pickle.dumps(Evil()))
    (found,) = checkpoints(tmp_path)
    assert (found.finite, found.note) == (None, "only pickled weights, which are not opened")
    assert not (tmp_path / "evil_was_here").exists()


def test_memory_does_not_grow_with_the_file(tmp_path):
    size = 64 << 20
    header = json.dumps({"w": {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + size)  # a hole: nothing is written to disk
    tracemalloc.start()
    assert check_weights(file).finite
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_the_newest_checkpoints_are_looked_at_while_there_is_time(tmp_path, monkeypatch):
    for step in (1, 2, 3):
        checkpoint(tmp_path, step)
    clock = iter(range(100))  # a second for each look at the clock, of which each checkpoint takes one
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    found = checkpoints(tmp_path, seconds=2)
    assert [one.finite for one in found] == [None, True, True]
    assert found[0].note == "not looked at to the end, the time for it was used up"
    assert found[0].usable


# What is there


def test_a_complete_checkpoint(tmp_path):
    path = checkpoint(tmp_path, 20)
    (found,) = checkpoints(tmp_path)
    parts = ("weights", "optimizer", "scheduler", "random states", "trainer state")
    assert found == Checkpoint(20, path, True, "", parts, ())
    assert found.usable and found.resumable
    assert checkpoints(path) == [found]


def test_checkpoints_come_by_step_and_nothing_else_does(tmp_path):
    for step in (100, 20, 3):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-7").write_text("a file")
    (tmp_path / "old-checkpoint-5").mkdir()
    assert [one.step for one in checkpoints(tmp_path)] == [3, 20, 100]
    assert checkpoints(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model.safetensors", "weights"),
        ("optimizer.pt", "optimizer"),
        ("scheduler.pt", "scheduler"),
        ("rng_state.pth", "random states"),
        ("trainer_state.json", "trainer state"),
    ],
)
@pytest.mark.parametrize("how", ["gone", "cut off"])
def test_a_part_that_is_missing_or_cut_off(tmp_path, file, part, how):
    path = checkpoint(tmp_path, 20)
    content = (path / file).read_bytes()
    (path / file).unlink()
    if how == "cut off":
        (path / file).write_bytes(content[: len(content) // 2])
    (found,) = checkpoints(tmp_path)
    assert found.missing == (part,) and part not in found.parts
    assert found.resumable == (part == "random states")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({}, folder / name)


@pytest.mark.parametrize(
    "names",
    [
        (
            *("latest.pt", "global_step20/mp_rank_00_model_states.pt", "rng_state_0.pth", "rng_state_1.pth"),
            *(f"global_step20/zero_pp_rank_{i}_mp_rank_00_optim_states.pt" for i in range(2)),
        ),
        (
            *("pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp", "scheduler.pt"),
            *("rng_state_0.pth", "rng_state_1.pth"),
        ),
        ("pytorch_model_fsdp.bin", "optimizer.bin", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"),
        (
            *("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "scheduler.pt"),
            *("rank0-of-2-optimizer.pt", "rank1-of-2-optimizer.pt", "rng_state_0.pth", "rng_state_1.pth"),
        ),
    ],
    ids=["DeepSpeed", "FSDP, sharded", "FSDP, full", "XLA"],
)
def test_distributed_layouts_are_complete(tmp_path, names):
    folder = tmp_path / "checkpoint-20"
    touch(folder, *names)
    (folder / "trainer_state.json").write_text('{"global_step": 20}')
    assert missing_parts(folder, world_size=2) == ()
    assert missing_parts(folder, world_size=4) == ("random states",)
    (found,) = checkpoints(tmp_path)
    assert found.resumable and (found.finite, found.note) == (None, "only pickled weights, which are not opened")


def test_without_time_only_the_names_are_read(tmp_path):
    for step in (5, 40):
        (tmp_path / f"checkpoint-{step}").mkdir()
    found = checkpoints(tmp_path, seconds=0.0)
    assert [one.step for one in found] == [5, 40] and all(one.usable and one.resumable for one in found)
    assert (found[0].finite, found[0].note, found[0].parts, found[0].missing) == (None, NO_TIME, (), ())


def test_a_long_state_is_not_parsed(tmp_path, monkeypatch):
    path = checkpoint(tmp_path, 20)
    state = TrainerState(global_step=20, log_history=[{"loss": 1.0, "step": i} for i in range(2000)])
    state.save_to_json(path / "trainer_state.json")
    (path / "model.safetensors").unlink()
    whole = (path / "trainer_state.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("trl_diagnostics.sources.checkpoints.json", None)
        assert missing_parts(path) == ("weights",)
    assert states(tmp_path) == [path / "trainer_state.json"] and global_step(path / "trainer_state.json") == 20
    for end in (-1, -2, -3, whole.rindex(b"}") - 100, whole.index(b"}") + 1):  # the last two may be a brace in the log
        (path / "trainer_state.json").write_bytes(whole[:end])
        assert ("trainer state" in missing_parts(path)) == (end != -1)
    (path / "trainer_state.json").write_bytes(whole[:-1000] + bytes(1000))
    assert "trainer state" in missing_parts(path)


def test_where_a_run_keeps_its_checkpoints(tmp_path):
    run = tmp_path / "out" / "diagnostics"
    run.mkdir(parents=True)
    other = tmp_path / "other"
    other.mkdir()
    metadata = {"arguments": {"output_dir": str(other)}}
    assert output_dir_of(run, metadata) == other
    assert output_dir_of(run, {}) == output_dir_of(run, {"arguments": {"output_dir": "/gone"}}) == tmp_path / "out"
    checkpoint(tmp_path / "out", 5)  # the folder was moved, its name in the metadata is an old one
    assert output_dir_of(run, metadata) == tmp_path / "out"


def test_a_relative_output_dir_is_one_in_the_folder_where_the_run_was_started(tmp_path, monkeypatch):
    run = tmp_path / "exp1" / "runs" / "diagnostics"
    run.mkdir(parents=True)
    checkpoint(tmp_path / "exp2" / "out", 150)  # of another experiment, from whose folder the command is used
    monkeypatch.chdir(tmp_path / "exp2")
    for command in ({}, {"command": {"error": "OSError: no"}}, {"command": {"folder": str(tmp_path / "exp1")}}):
        assert output_dir_of(run, {"arguments": {"output_dir": "out"}} | command) == run.parent
    checkpoint(tmp_path / "exp1" / "out", 50)
    found = output_dir_of(run, {"arguments": {"output_dir": "out"}, "command": {"folder": str(tmp_path / "exp1")}})
    assert [one.step for one in checkpoints(found)] == [50]
