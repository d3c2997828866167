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

"""Any bytes in: records or a `DiagnosticsError` come out, never another exception, and every record is a record."""

import json
import math
import sqlite3
import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.sources.console_log import printed
from trl_diagnostics.sources.find import find_runs
from trl_diagnostics.sources.logs import open_run
from trl_diagnostics.sources.protobuf import fields
from trl_diagnostics.sources.rows import number


NAMES = (
    *("a.csv", "a.tsv", "a.json", "a.jsonl", "a.log", "a.txt", "a.ipynb", "a.db", "a.wandb"),
    *("events.out.tfevents.1.host.1.0", "trainer_state.json", "metrics.jsonl", "README.md", "run_metadata_start.json"),
    *("config.yaml", "wandb-history.jsonl", "output.log", "requirements.txt"),
)
FUZZ = settings(max_examples=50, suppress_health_check=[*HealthCheck])
LOGS = [{"step": i, "loss": 1.0 / i, "grad_norm": math.nan, "rewards/chosen": 0.5} for i in range(1, 6)]
KAGGLE = [{"stream_name": "stdout", "time": 1.5, "data": "{'loss': 0.5, 'epoch': 0.1}\n"}]


def field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def scalar(step: int, tag: str, value: float) -> bytes:
    """One event of TensorBoard with a number."""
    entry = field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)
    event = b"\x09" + struct.pack("<d", 1.7e9 + step) + bytes([2 << 3, step]) + field(5, field(1, entry))
    return struct.pack("<Q", len(event)) + bytes(4) + event + bytes(4)


def wandb_log(**values: float) -> bytes:
    """One `wandb.log` as a whole piece of LevelDB's log."""
    items = b"".join(
        field(1, field(2, key.encode()) + b"\x82\x01" + bytes([len(text)]) + text)
        for key, text in ((key, json.dumps(value).encode()) for key, value in values.items())
    )
    record = field(2, items)
    return struct.pack("<IHB", 0, len(record), 1) + record


CSV = 'Step,Training Loss,Validation Loss,Rewards/chosen\n1,0.5,No Log,nan\n2,"1,024.5",0.4,0.1\n'
PRINTED = " 50%|#####     | 5/10 [00:01<00:01,  5it/s]\n{'loss': '0.5', 'kl': nan, 'epoch': 0.1}\r\n"
TABLE = "<table><tr><th>Step</th><th>Training Loss</th></tr><tr><td>1</td><td>0.5</td></tr></table>"
VALID = {
    "a.csv": CSV.encode(),
    "a.json": json.dumps({"log_history": LOGS, "max_steps": 10}).encode(),
    "a.jsonl": "\n".join(map(json.dumps, LOGS)).encode(),
    "metrics.jsonl": b'{"step": 1, "time": 2.0, "phase": "train", "metrics": {"loss": "NaN", "kl": null}}\n' * 3,
    "a.log": PRINTED.encode() + json.dumps(KAGGLE).encode(),
    "a.ipynb": json.dumps({"cells": [{"outputs": [{"data": {"text/html": [TABLE]}}, {"text": PRINTED}]}]}).encode(),
    "events.out.tfevents.1.h": b"".join(scalar(i, "train/loss", 0.5) for i in range(1, 9)),
    "a.wandb": b":W&B\xe1\xbe\x00" + b"".join(wandb_log(**{"train/loss": 0.5, "_step": i}) for i in range(8)),
}


def check(path):
    """What the readers promise of any file."""
    try:
        run = open_run(path)
        records = list(run.records())
    except DiagnosticsError:
        return
    assert 0 <= run.confidence <= 1
    assert all(isinstance(note, str) for note in run.notes)
    for record in records:
        assert isinstance(record.step, int) and isinstance(record.time, float)
        assert all(isinstance(name, str) for name in record.metrics)
        assert all(value is None or isinstance(value, float) for value in record.metrics.values())
        json.dumps(record.to_json(), allow_nan=False).encode("utf-8")


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=300))
@FUZZ
def test_any_bytes_give_records_or_the_one_error(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    check(tmp_path / name)
    check(tmp_path)
    find_runs(tmp_path)


@pytest.mark.parametrize("name", VALID)
@given(at=st.integers(0, 2000), noise=st.binary(max_size=4), cut=st.booleans())
@FUZZ
def test_damaged_files_give_records_or_the_one_error(tmp_path, name, at, noise, cut):
    data = VALID[name]
    at %= len(data)
    (tmp_path / name).write_bytes(data[:at] + noise + (b"" if cut else data[at + len(noise) :]))
    check(tmp_path / name)
    find_runs(tmp_path)


@pytest.mark.parametrize("name", VALID)
def test_the_whole_files_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(VALID[name])
    run = open_run(tmp_path / name)
    told = ("a.log: steps told from the progress bar, evenly",) if name == "a.log" else ()
    assert list(run.records()) != [] and run.notes == told


@given(damage=st.binary(min_size=1, max_size=30), at=st.integers(0, 20_000))
@FUZZ
def test_a_damaged_database_gives_records_or_the_one_error(tmp_path, damage, at):
    path = tmp_path / "p.db"
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    rows = [("2025-01-01T00:00:00", "r", i, json.dumps({"loss": 0.5})) for i in range(20)]
    database.executemany("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", rows)
    database.commit()
    database.close()
    data = path.read_bytes()
    at %= len(data)
    path.write_bytes(data[:at] + damage + data[at + len(damage) :])
    check(path)
    find_runs(tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
KEYS = st.sampled_from(
    [
        "step",
        "loss",
        "metrics",
        "phase",
        "time",
        "log_history",
        "max_steps",
        "_step",
        "cells",
        "outputs",
        "trainer",
        "trl_version",
        "diagnostics",
        "config",
    ]
)


@pytest.mark.parametrize(
    "name", ["a.json", "trainer_state.json", "a.ipynb", "metrics.jsonl", "run_metadata_start.json"]
)
@given(data=JSON | st.dictionaries(KEYS, JSON | st.dictionaries(KEYS, JSON, max_size=4), max_size=5))
@FUZZ
def test_any_json_gives_records_or_the_one_error(tmp_path, name, data):
    (tmp_path / name).write_text(json.dumps(data))
    check(tmp_path / name)


@given(st.text())
@example("{'a': 1, 'epoch': 2}")
def test_any_printed_text_is_a_log_or_nothing(text):
    found = printed(text)
    assert found is None or all(isinstance(value, str) or value is None for value in found.values())


@given(st.dictionaries(st.text("abc/_", min_size=1), st.floats() | st.none() | st.integers(), max_size=6))
def test_what_python_prints_is_read_back(logs):
    found = printed(str({**logs, "epoch": 1.0}))
    assert {key: value if value is None else float(value) for key, value in found.items()} == pytest.approx(
        {**logs, "epoch": 1.0}, nan_ok=True
    )


@given(st.one_of(st.text(), st.integers(), st.floats(), st.none(), st.booleans(), st.lists(st.integers())))
def test_any_cell_is_a_number_or_nothing(value):
    found = number(value)
    assert found is None or isinstance(found, float)


@given(st.floats(allow_nan=False))
def test_a_number_is_read_back_from_its_text(value):
    assert number(repr(value)) == number(str(value)) == value


@given(st.integers(1, 999), st.integers(0, 999), st.integers(0, 999))
def test_thousands_and_decimal_commas_differ(thousands, rest, cents):
    assert number(f"{thousands},{rest:03}.{cents:03}") == pytest.approx(thousands * 1000 + rest + cents / 1000)
    assert number(f"0,{rest:03}") == pytest.approx(rest / 1000)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_value_error(data):
    try:
        found = list(fields(data))
    except ValueError:
        return
    assert all(isinstance(number, int) for number, _ in found)
