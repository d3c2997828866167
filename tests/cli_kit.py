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

"""A recorded lab run goes in, files as a training leaves them come out; and what a command prints about them."""

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest
from failure_lab import corpus

from trl_diagnostics import cli
from trl_diagnostics.engine.finding import Record
from trl_diagnostics.sinks.postmortem import postmortem
from trl_diagnostics.sinks.run_dir import METRICS, POSTMORTEM, START, RunDir, write_json


HEALTHY, BROKEN = "healthy__dpo__0", "nan_weights__dpo__0"
OPEN = []


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as done:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


def run_json(capsys, *arguments):
    """Exit code and the JSON document, which has to be strict."""
    code, out, err = run(capsys, *arguments, "--json")
    assert err == ""

    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    return code, json.loads(out, parse_constant=refuse)


def recorded(name=HEALTHY):
    """The label of a lab run, and its records."""
    label, records = corpus.read_run(corpus.FOLDER / f"{name}{corpus.SUFFIX}")
    return label, list(records)


def run_dir(folder, name=HEALTHY, records=None, ended="completed", **arguments):
    """A run directory in `<folder>/diagnostics`, written by what writes it in a training; returns its path."""
    label, found = recorded(name)
    records = found if records is None else records
    config = label["config"] | {"output_dir": str(folder)} | arguments
    files = RunDir(folder / "diagnostics")
    files.begin()
    for record in records:
        files.write_record(record)
    files.close()
    about = {"config": config, "custom_alerts": [], "custom_heuristics_dir": None, "disable": []}
    metadata = {"trainer": label["trainer"], "trl_version": label["trl_version"], "diagnostics": about}
    files.write_metadata(START, {**metadata, "arguments": config, "world_size": 1})
    if ended:
        said = postmortem(ended, "Said.", last_step=200, at=time.time(), records=records[-50:], findings=[], found=[])
        write_json(files.path / POSTMORTEM, said)
    return files.path


def jsonl(file, records, end="\n"):
    """A log of somebody else: one JSON object per line, TRL's own names not needed."""
    lines = [json.dumps({"step": record.step, **record.to_json()["metrics"]}) for record in records]
    file.write_text("\n".join(lines) + (end if lines else ""))
    return file


def trackio(file, **runs):
    """A project of trackio with the records of some runs, kept open as a training keeps it: new rows are in `-wal`."""
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE IF NOT EXISTS metrics (id INTEGER PRIMARY KEY, timestamp, run_name, step, metrics)")
    rows = [(name, record.step, json.dumps(record.to_json()["metrics"])) for name in runs for record in runs[name]]
    database.executemany("INSERT INTO metrics VALUES (NULL, '2026-01-01T00:00:00', ?, ?, ?)", rows)
    database.commit()
    OPEN.append(database)
    return file


def append(folder, *records):
    """What the callback appends when it logs."""
    with (folder / METRICS).open("a") as file:
        file.writelines(json.dumps(record.to_json()) + "\n" for record in records)


def shell(*arguments, cwd=None, **environment):
    """A command in a process of its own."""
    command = [sys.executable, "-m", "trl_diagnostics", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)


def moved(record, by):
    """The same record some steps later."""
    return Record(record.step + by, record.time + by, record.phase, record.metrics)
