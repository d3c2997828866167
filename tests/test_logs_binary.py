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

"""TensorBoard's event files and W&B's own format: bytes made here, and files that the libraries themselves write."""

import json
import math
import random
import struct

import pytest

from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.sources.find import find_runs
from trl_diagnostics.sources.logs import open_run
from trl_diagnostics.sources.protobuf import fields


def varint(value: int) -> bytes:
    value %= 2**64
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def message(*parts: tuple[int, object]) -> bytes:
    """A protocol buffer: whole numbers, numbers (as double), texts, bytes."""
    out = b""
    for number, value in parts:
        match value:
            case int():
                out += varint(number << 3) + varint(value)
            case float():
                out += varint(number << 3 | 1) + struct.pack("<d", value)
            case _:
                data = value.encode() if isinstance(value, str) else value
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def single(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


def framed(*events: bytes) -> bytes:
    return b"".join(struct.pack("<Q", len(event)) + b"crc1" + event + b"crc2" for event in events)


def event(step: int, tag: str, value: float, time: float = 1.7e9) -> bytes:
    entry = message((1, tag)) + single(2, value)
    return message((1, time + step), (2, step), (5, message((1, entry))))


def tensor_event(step: int, tag: str, tensor: bytes) -> bytes:
    return message((1, 1.7e9), (2, step), (5, message((1, message((1, tag), (8, tensor))))))


def log(step: int, **metrics: float) -> list[bytes]:
    return [event(step, f"train/{name}", value) for name, value in metrics.items()]


def table(run) -> list[tuple]:
    return [(record.step, record.phase, record.metrics) for record in run.records()]


class TestTensorBoard:
    def test_the_numbers_of_one_log_are_one_record(self, tmp_path):
        events = [
            message((1, 1.0), (3, "brain.Event:2")),
            *log(5, loss=0.5, kl=0.25, epoch=0.5),
            *log(10, loss=math.nan),
        ]
        events += [event(10, "eval/loss", 0.75), event(10, "train/epoch", 1.0)]
        events += [
            event(10, "train/train_runtime", 3.0),
            event(10, "train/train_loss", 0.5),
            event(10, "train/epoch", 1.0),
        ]
        (tmp_path / "events.out.tfevents.1.h").write_bytes(framed(*events))
        run = open_run(tmp_path)
        assert table(run)[0] == (5, "train", {"loss": 0.5, "kl": 0.25, "epoch": 0.5})
        assert table(run)[2:] == [
            (10, "eval", {"eval_loss": 0.75, "epoch": 1.0}),
            (10, "summary", {"runtime": 3.0, "train_loss": 0.5, "epoch": 1.0}),
        ]
        assert [record.time for record in run.records()] == [1.7e9 + 5, *[1.7e9 + 10] * 3]
        assert (run.kind, run.config, run.notes) == ("TensorBoard", {"logging_steps": 5, "max_steps": 10}, ())
        assert open_run(tmp_path / "events.out.tfevents.1.h").config == run.config

    def test_a_restart_takes_the_place_of_what_it_repeats(self, tmp_path):
        def write(name, *events):
            (tmp_path / f"events.out.tfevents.{name}.h").write_bytes(framed(*events))

        write(1, *log(10, loss=1.0), *log(20, loss=9.0), *log(30, loss=9.0))
        write(2)
        write(3, message((1, 1.0), (3, "brain.Event:2")))
        write(4, *(event(step, "train/loss", 2.0, time=1.8e9) for step in (20, 30, 40)))
        run = open_run(tmp_path)
        assert [(step, metrics["loss"]) for step, _, metrics in table(run)] == [
            (10, 1.0),
            (20, 2.0),
            (30, 2.0),
            (40, 2.0),
        ]
        assert run.notes == (
            "2 of 4 event files hold no numbers",
            "events.out.tfevents.1.h: 2 logs from step 20 on left out, a later file starts there again",
        )
        assert find_runs(tmp_path) == [tmp_path]

    def test_the_training_arguments_tell_the_trainer(self, tmp_path):
        from trl_diagnostics.metrics.catalogue import defaults_at, load_map

        arguments = json.dumps({**defaults_at(load_map("kto"), "1.0.0"), "beta": 0.3, "max_steps": 99})
        text = tensor_event(0, "args/text_summary", message((1, 7), (8, arguments)))
        (tmp_path / "events.out.tfevents.1.h").write_bytes(framed(text, *log(1, loss=0.5)))
        run = open_run(tmp_path)
        assert (run.trainer, run.config["beta"], run.config["max_steps"]) == ("kto", 0.3, 99)
        assert run.trainer_how == "its training arguments are those of KTO"

    @pytest.mark.parametrize(
        "tensor",
        [
            message((1, 1), (5, struct.pack("<f", 0.5))),
            message((1, 1), (2, b""), (4, struct.pack("<f", 0.5))),
            message((1, 1)) + single(5, 0.5),
            message((1, 2), (6, 0.5)),
        ],
        ids=["packed", "content", "plain", "double"],
    )
    def test_numbers_may_be_tensors(self, tmp_path, tensor):
        (tmp_path / "events.out.tfevents.1.h").write_bytes(framed(tensor_event(3, "train/loss", tensor)))
        assert table(open_run(tmp_path)) == [(3, "train", {"loss": 0.5})]

    def test_texts_histograms_and_images_are_left_out(self, tmp_path):
        others = [
            tensor_event(1, "text", message((1, 7), (8, "hello"))),
            tensor_event(1, "v", message((1, 1), (2, b"\x12\x00"))),
        ]
        others.append(message((1, 1.0), (2, 1), (5, message((1, message((1, "h"), (5, b"\x09")))))))
        (tmp_path / "events.out.tfevents.1.h").write_bytes(framed(*others, *log(1, loss=0.5)))
        assert table(open_run(tmp_path)) == [(1, "train", {"loss": 0.5})]

    def test_a_torn_file_is_read_as_far_as_it_goes(self, tmp_path):
        data = framed(*log(1, loss=0.5), *log(2, loss=0.25))
        (tmp_path / "events.out.tfevents.1.h").write_bytes(data[:-3])
        run = open_run(tmp_path)
        assert len(table(run)) == 1
        assert run.notes == (f"events.out.tfevents.1.h: cut off or damaged after {len(data) - 3} bytes",)

    def test_damage_in_the_middle_is_named(self, tmp_path):
        (tmp_path / "events.out.tfevents.1.h").write_bytes(framed(*log(1, loss=0.5), b"\xff\xff", *log(2, loss=0.25)))
        run = open_run(tmp_path)
        assert (len(table(run)), run.notes) == (1, ("events.out.tfevents.1.h: damaged; what follows is left out",))

    def test_what_pytorch_writes_is_read_as_tensorboard_does(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(tmp_path)
        values = random.Random(0)
        for step in range(0, 500, 5):
            for name in ("train/loss", "train/grad_norm", "train/rewards/margins"):
                writer.add_scalar(name, values.gauss(0, 1) if step % 7 else math.nan, step)
        writer.add_text("note", "hello")
        writer.close()
        theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload()
        records = list(open_run(tmp_path, trainer="dpo").records())
        for tag, name in (("train/loss", "loss"), ("train/rewards/margins", "reward_margin")):
            expected = [(scalar.step, repr(scalar.value)) for scalar in theirs.Scalars(tag)]
            assert [(record.step, repr(record.metrics[name])) for record in records] == expected
        assert [record.time for record in records] == [scalar.wall_time for scalar in theirs.Scalars("train/loss")]


def pieces(*records: bytes, block: int = 2**15) -> bytes:
    """Records in the log format of LevelDB, cut at the ends of blocks."""
    out = b":W&B\xe1\xbe\x00"
    for record in records:
        first = True
        while True:
            left = block - len(out) % block
            if left < 7:
                out += bytes(left)
                left = block
            part, record = record[: left - 7], record[left - 7 :]
            kind = (1 if first else 4) if not record else (2 if first else 3)
            out += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
            if not record:
                break
    return out


def item(key: str, value: object) -> tuple[int, bytes]:
    return 1, message(*((2, part) for part in key.split(".")), (16, json.dumps(value)))


def history(**metrics: object) -> bytes:
    return message((1, 7), (2, message(*(item(key.replace("__", "/"), value) for key, value in metrics.items()))))


class TestWandb:
    def run_of(self, tmp_path, *records: bytes):
        folder = tmp_path / "wandb" / "offline-run-20250101_000000-abc"
        (folder / "files").mkdir(parents=True)
        (folder / "run-abc.wandb").write_bytes(pieces(*records))
        return folder

    def test_logs_and_arguments(self, tmp_path):
        start = message((17, message((1, "abc"), (4, message(item("beta", 0.2), item("_wandb", {}))))))
        more = message((5, message(item("max_steps", 40), item("nested.a", 1))))
        logs = [history(train__loss=0.5, train__global_step=10, _timestamp=1.7e9, _step=0, text="x", list=[1])]
        logs.append(history(train__loss="NaN", train__global_step=20, _step=1, _runtime=3.5))
        logs.append(history(eval__loss=0.4, train__global_step=20, _step=2))
        folder = self.run_of(tmp_path, start, more, *logs)
        (folder / "files" / "requirements.txt").write_text("torch==2.8\ntrl==0.24.0\n")
        run = open_run(folder)
        assert [(r.step, r.time, r.phase) for r in run.records()] == [
            *((10, 1.7e9, "train"), (20, 20.0, "train"), (20, 20.0, "eval")),
        ]
        assert run.config == {"beta": 0.2, "_wandb": {}, "max_steps": 40, "nested.a": 1, "logging_steps": 10}
        assert (run.kind, run.trl_version, run.notes) == ("W&B", "0.24.0", ())
        assert find_runs(tmp_path) == [folder]
        assert open_run(folder / "run-abc.wandb").config == run.config

    def test_records_longer_than_a_block(self, tmp_path):
        logs = [
            history(train__loss=i / 7, _step=i, text="x" * size)
            for i, size in enumerate((10, 40_000, 32_700, 99_000, 5))
        ]
        records = list(open_run(self.run_of(tmp_path, *logs)).records())
        assert [record.metrics["loss"] for record in records] == [i / 7 for i in range(5)]

    def test_numbers_of_newer_releases_have_fields_of_their_own(self, tmp_path):
        def typed(key, *value):
            return 1, message((2, key), *value)

        items = [typed("train/loss", (6, 0.5)), typed("train/global_step", (5, 2 * 30)), typed("kl", (8, "0.25"))]
        items += [typed("entropy", (7, "NaN")), typed("reward", (5, 2 * 4 - 1))]
        (record,) = open_run(self.run_of(tmp_path, message((2, message(*items))))).records()
        assert math.isnan(record.metrics.pop("entropy"))
        assert (record.step, record.metrics) == (30, {"loss": 0.5, "kl": 0.25, "reward": -4.0})

    def test_a_torn_file_is_read_as_far_as_it_goes(self, tmp_path):
        folder = self.run_of(tmp_path, *(history(train__loss=0.5, _step=i) for i in range(5)))
        path = folder / "run-abc.wandb"
        path.write_bytes(path.read_bytes()[:-3])
        run = open_run(folder)
        assert len(list(run.records())) == 4
        assert run.notes == (f"run-abc.wandb: cut off or damaged after {path.stat().st_size} bytes",)

    def test_an_empty_file_leaves_what_was_printed(self, tmp_path):
        folder = self.run_of(tmp_path)
        (folder / "run-abc.wandb").write_bytes(b"")
        with pytest.raises(DiagnosticsError, match="no .wandb file, no wandb-history.jsonl and no output.log"):
            open_run(folder)
        (folder / "files" / "output.log").write_text("{'loss': 0.5, 'epoch': 0.1}\n")
        run = open_run(folder)
        assert len(list(run.records())) == 1
        assert run.notes[-1] == "the .wandb file holds nothing, so the numbers are those that the run printed"

    def test_the_history_of_old_releases(self, tmp_path):
        files = tmp_path / "run-1" / "files"
        files.mkdir(parents=True)
        (files / "wandb-history.jsonl").write_text('{"train/loss": NaN, "train/global_step": 5, "_step": 0}\nx\n')
        (files / "config.yaml").write_text(
            "wandb_version: 1\nbeta:\n  desc: null\n  value: 0.2\n_wandb: {value: {a: 1}}\n"
        )
        run = open_run(tmp_path / "run-1")
        assert math.isnan(next(run.records()).metrics["loss"])
        assert run.config["beta"] == 0.2
        assert run.notes == ("wandb-history.jsonl: 1 line left out, line 2 first: no JSON",)
        assert find_runs(tmp_path) == [tmp_path / "run-1"]

    def test_damaged_arguments_are_named(self, tmp_path):
        folder = self.run_of(tmp_path, history(train__loss=0.5))
        (folder / "files" / "config.yaml").write_text("a: [1")
        assert open_run(folder).notes == ("config.yaml: no YAML, so the training arguments are not known",)

    def test_what_wandb_writes_is_read(self, tmp_path, monkeypatch):
        wandb = pytest.importorskip("wandb")
        monkeypatch.setenv("WANDB_SILENT", "true")
        run = wandb.init(mode="offline", dir=str(tmp_path), project="p", config={"beta": 0.1})
        run.config.update({"max_steps": 30})
        for step in (10, 20, 30):
            run.log(
                {"train/loss": 1 / step, "train/grad_norm": math.nan, "train/global_step": step, "note": "x" * 20_000}
            )
        run.log({"eval/loss": 0.5, "train/global_step": 30})
        run.finish()
        (path,) = find_runs(tmp_path)
        found = open_run(path)
        assert [(r.step, r.phase, r.metrics.get("loss")) for r in found.records()] == [
            *((10, "train", 1 / 10), (20, "train", 1 / 20), (30, "train", 1 / 30), (30, "eval", None)),
        ]
        assert all(math.isnan(r.metrics["grad_norm"]) for r in found.records() if r.phase == "train")
        assert (found.config["beta"], found.config["max_steps"]) == (0.1, 30)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**40, 2**63 - 1])
def test_whole_numbers_of_any_size(value):
    assert list(fields(message((3, value)))) == [(3, value)]


@pytest.mark.parametrize("data", [b"\x08", b"\x12\x05ab", b"\x09abc", b"\x0d", b"\x0b", b"\xff" * 20])
def test_what_is_no_message_is_an_error(data):
    with pytest.raises(ValueError):
        list(fields(data))
