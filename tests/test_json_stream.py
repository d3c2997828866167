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

"""JSON of any size: what is read in pieces is what the parser of Python reads at once."""

import io
import json
import math
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trl_diagnostics.engine.finding import DiagnosticsError
from trl_diagnostics.sources import json_stream
from trl_diagnostics.sources.logs import open_run
from trl_diagnostics.sources.rows import loads


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.lists(st.tuples(st.text(max_size=5) | st.just("log_history"), VALUES | st.lists(VALUES)), max_size=5)
PIECES = settings(suppress_health_check=[*HealthCheck])


def read(text):
    """Rest and elements."""
    rest = {}
    return [*json_stream.stream(io.StringIO(text), rest)], rest


@given(members=MEMBERS, indent=st.none() | st.integers(0, 2), chunk=st.integers(1, 40), ascii=st.booleans())
@PIECES
def test_an_object_in_pieces_is_the_whole_object(members, indent, chunk, ascii, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = json.dumps(dict(members), indent=indent, ensure_ascii=ascii)
    text = text.encode("utf-8", "replace").decode()  # as a file can hold it
    elements, rest = read(text)
    expected = loads(text)
    if isinstance(expected.get("log_history"), list):
        rest["log_history"] = elements
    assert repr(list(rest.items())) == repr(list(expected.items()))  # NaN is not equal to itself


@given(elements=st.lists(VALUES), indent=st.none() | st.integers(0, 2), chunk=st.integers(1, 40))
@PIECES
def test_an_array_in_pieces_is_the_whole_array(elements, indent, chunk, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = json.dumps(elements, indent=indent)
    assert repr(read(text)) == repr((loads(text), {}))


STATE = (
    '{\n "best": -1e5,\n "log_history": [\n  {"loss": NaN, "a": "x\\"}"},\n  {"loss": -Infinity}\n ],\n "z": true\n}\n'
)


@given(at=st.integers(0, len(STATE)), noise=st.text(max_size=3), cut=st.booleans(), chunk=st.integers(1, 40))
@PIECES
def test_damage_is_seen_where_the_parser_sees_it(at, noise, cut, chunk, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    text = STATE[:at] + noise + ("" if cut else STATE[at + len(noise) :])
    try:
        loads(text)
    except json.JSONDecodeError as error:
        with pytest.raises(json.JSONDecodeError) as raised:
            read(text)
        assert raised.value.lineno == error.lineno
    else:
        read(text)


def test_a_number_in_two_pieces_is_one(monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 3)
    assert read("[123456, 7.25e-1]") == ([123456, 0.725], {})


def test_a_large_state_takes_little_memory(tmp_path):
    row = ",\n".join(f'  {{"loss": {i / 1000}, "step": 1, "text": "{"x" * 300}"}}' for i in range(1000))
    path = tmp_path / "trainer_state.json"
    with path.open("w") as file:
        file.write('{\n "epoch": 1.0,\n "log_history": [\n' + row)
        for _ in range(59):
            file.write(",\n" + row)
        file.write('\n ],\n "max_steps": 77\n}\n')
    assert path.stat().st_size > 20e6
    tracemalloc.start()
    run = open_run(path, "sft")
    total = sum(record.metrics["loss"] for record in run.records())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6 and math.isclose(total, 60 * 499.5)
    assert (run.kind, run.config["max_steps"], run.notes) == ("trainer_state.json", 77, ())


@pytest.mark.parametrize(
    ("text", "kind", "losses"),
    [
        ('{"log_history": [{"loss": 1.0, "step": 1}, 3], "max_steps": 9}', "trainer_state.json", [1.0]),
        ('[{"loss": 1.0, "step": 1}]', "JSON", [1.0]),
        ('{"data": [{"loss": 1.0, "step": 1}, {"loss": 2.0, "step": 2}]}', "JSON", [1.0, 2.0]),
    ],
)
def test_large_files_are_read_as_small_ones_are(tmp_path, monkeypatch, text, kind, losses):
    path = tmp_path / "a.json"
    path.write_text(text)
    small = open_run(path, "sft")
    monkeypatch.setattr("trl_diagnostics.sources.tables.LARGE", 5)
    large = open_run(path, "sft")
    assert [record.metrics["loss"] for record in large.records()] == losses
    assert (large.kind, large.config, [*large.records()]) == (kind, small.config, [*small.records()])
    whole = ("a.json: 0 MiB, loaded whole; JSON lines and CSV are read row by row",)
    assert large.notes == (whole if '"data"' in text else ())


@pytest.mark.parametrize("text", ['[{"loss": 1.0}, 3]', '{"log_history": []}', "3", '[{"loss": 1.0},', "[" * 99_999])
def test_large_files_without_logs_have_the_error_of_small_ones(tmp_path, monkeypatch, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    said = []
    for size in (2**24, 0):
        monkeypatch.setattr("trl_diagnostics.sources.tables.LARGE", size)
        with pytest.raises(DiagnosticsError) as error:
            open_run(path)
        said.append(str(error.value).partition(";")[0])
    assert said[0] == said[1]
