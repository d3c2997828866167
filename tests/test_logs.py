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

"""Reading finished runs: every format, and every oddity that logs of others have."""

import json
import math
import os
import sqlite3
from pathlib import Path

import pytest

from trl_diagnostics.engine.finding import DiagnosticsError, Record
from trl_diagnostics.sinks.run_dir import RunDir
from trl_diagnostics.sources.find import find_runs
from trl_diagnostics.sources.logs import CAN_BE_READ, open_run


def write(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def steps_of(run) -> list[int]:
    return [record.step for record in run.records()]


def table(run) -> list[tuple]:
    return [(record.step, record.phase, record.metrics) for record in run.records()]


def log_history(steps=range(1, 6), **more) -> list[dict]:
    return [{"step": step, "loss": 1.0 / step, "epoch": step / 10, **more} for step in steps]


class TestState:
    def test_a_trainer_state_is_read(self, tmp_path):
        rows = [
            *log_history([10, 20], grad_norm=1.0),
            {"step": 20, "eval_loss": 0.5},
            {"step": 20, "train_loss": 0.1, "train_runtime": 3.0},
        ]
        write(tmp_path / "trainer_state.json", {"max_steps": 500, "global_step": 20, "log_history": rows})
        run = open_run(tmp_path / "trainer_state.json")
        assert (run.kind, run.config) == ("trainer_state.json", {"max_steps": 500, "logging_steps": 10})
        assert [record.phase for record in run.records()] == ["train", "train", "eval", "summary"]
        assert [record.time for record in run.records()] == [10.0, 20.0, 20.0, 20.0]
        assert table(run) == table(run)

    def test_nan_and_infinity_are_numbers_also_at_the_top(self, tmp_path):
        text = '{"best_metric": Infinity, "log_history": [{"step": 1, "loss": 0.0, "grad_norm": NaN, "kl": null}]}'
        (record,) = open_run(write(tmp_path / "s.json", text)).records()
        assert math.isnan(record.metrics.pop("grad_norm"))
        assert record.metrics == {"loss": 0.0, "kl": None}

    @pytest.mark.parametrize(
        "where",
        [
            "{}",
            '{{"log_history": {}}}',
            '{{"train_result": {{"raw_log_history": {}}}, "x": [1, 2]}}',
            '[{{"a": 1}}, {}]',
        ],
    )
    def test_rows_are_found_wherever_they_are(self, tmp_path, where):
        rows = '[{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.4}]'
        path = write(tmp_path / "a.json", where.format(rows))
        if where.startswith("["):
            with pytest.raises(DiagnosticsError, match="no logs of a training in it"):
                open_run(path)
        else:
            assert table(open_run(path)) == [(10, "train", {"loss": 0.5}), (20, "train", {"loss": 0.4})]

    @pytest.mark.parametrize(
        "data",
        [{"loss": [0.5, 0.4], "step": [1, 2]}, {"loss": {"0": 0.5, "1": 0.4}, "step": {"0": 1, "1": 2}, "name": "x"}],
        ids=["lists", "what pandas writes"],
    )
    def test_columns_are_rows(self, tmp_path, data):
        assert table(open_run(write(tmp_path / "a.json", data))) == [
            (1, "train", {"loss": 0.5}),
            (2, "train", {"loss": 0.4}),
        ]

    def test_a_data_frame_has_every_column_in_every_row(self, tmp_path):
        rows = [{"step": 1, "loss": 0.5, "eval_loss": None}, {"step": 1, "loss": None, "eval_loss": 0.4}]
        assert table(open_run(write(tmp_path / "a.json", rows))) == [
            (1, "train", {"loss": 0.5}),
            (1, "eval", {"eval_loss": 0.4}),
        ]

    def test_the_newest_checkpoint_speaks_for_an_output_folder(self, tmp_path):
        for last in (5, 20, 100):
            write(tmp_path / f"checkpoint-{last}" / "trainer_state.json", {"log_history": log_history(range(1, last))})
        assert open_run(tmp_path).path == tmp_path / "checkpoint-100" / "trainer_state.json"
        assert open_run(tmp_path / "checkpoint-20").config["max_steps"] == 19
        write(tmp_path / "trainer_state.json", {"global_step": 100, "log_history": log_history(range(1, 101))})
        assert open_run(tmp_path).config["max_steps"] in (99, 100)
        write(tmp_path / "trainer_state.json", {"global_step": 120, "log_history": log_history(range(1, 121))})
        assert open_run(tmp_path).path == tmp_path / "trainer_state.json"

    def test_half_a_state_is_left_for_the_one_before(self, tmp_path):
        write(tmp_path / "checkpoint-5" / "trainer_state.json", {"log_history": log_history()})
        torn = write(tmp_path / "checkpoint-9" / "trainer_state.json", '{"log_history": [{"step": 1, "lo')
        run = open_run(tmp_path)
        assert run.path.parent.name == "checkpoint-5"
        assert run.notes == (f"{torn}: cut off in line 1",)
        with pytest.raises(DiagnosticsError, match="cut off in line 1$"):
            open_run(torn)

    def test_the_model_card_names_trainer_and_release(self, tmp_path):
        write(tmp_path / "checkpoint-5" / "trainer_state.json", {"log_history": log_history()})
        write(
            tmp_path / "README.md", "---\ntags:\n- generated_from_trainer\n- online-dpo\n- trl\n---\n\n- TRL: 0.24.0\n"
        )
        run = open_run(tmp_path)
        assert (run.trainer, run.confidence, run.trl_version) == ("onlinedpo", 0.95, "0.24.0")
        assert run.trainer_how == "the model card beside it says OnlineDPO"


class TestSteps:
    def test_they_may_be_missing_repeated_or_go_back(self, tmp_path):
        rows = [{"loss": 1}, {"epoch": 0.2, "loss": 1}, {"step": 110, "loss": 1}, {"step": 110, "eval_loss": 1}]
        run = open_run(write(tmp_path / "a.json", [*rows, {"step": 5, "loss": 1}]))
        assert steps_of(run) == [1, 2, 110, 110, 5]
        assert [record.phase for record in run.records()] == ["train", "train", "train", "eval", "train"]

    def test_the_steps_of_wandb_are_not_its_calls(self, tmp_path):
        rows = [
            {
                "_step": 0,
                "train/global_step": 10,
                "train/loss": 1.0,
                "_runtime": 3,
                "_timestamp": 1.7e9,
                "eval/loss": None,
            },
            {"_step": 1, "train/global_step": 10, "train/loss": None, "_timestamp": 1.7e9 + 5, "eval/loss": 0.5},
            {"_step": 2, "completions": 3.0},
            {"_step": 3, "train/global_step": 20, "train/loss": "NaN"},
        ]
        run = open_run(write(tmp_path / "history.json", rows))
        assert [(r.step, r.phase, r.time) for r in run.records()] == [
            (10, "train", 1.7e9),
            (10, "eval", 1.7e9 + 5),
            (10, "probe", 10.0),
            (20, "train", 20.0),
        ]
        assert run.config == {"logging_steps": 10, "max_steps": 20}

    @pytest.mark.parametrize(("step", "expected"), [("1/547", 1), ("1,024", 1024), (7.0, 7), ("nan", 1), (True, 1)])
    def test_they_may_be_texts(self, tmp_path, step, expected):
        assert steps_of(open_run(write(tmp_path / "a.json", [{"step": step, "loss": 1.0}]))) == [expected]

    def test_sparse_rows_do_not_change_the_distance_of_the_logs(self, tmp_path):
        rows = [{"step": s, "loss": 1.0} if s % 10 == 0 else {"step": s, "my_metric": 1.0} for s in range(1, 101)]
        run = open_run(write(tmp_path / "a.json", rows))
        assert run.config == {"logging_steps": 10, "max_steps": 100}
        assert {record.phase for record in run.records()} == {"train", "probe"}

    @pytest.mark.parametrize(
        ("warmup", "expected"), [({"warmup_ratio": 0.1}, 10), ({"warmup_steps": 0.05}, 5), ({"warmup_steps": 7}, 7)]
    )
    def test_a_warmup_ratio_becomes_steps(self, tmp_path, warmup, expected):
        folder = tmp_path / "run-1"
        write(folder / "files" / "config.yaml", "\n".join(f"{k}: {{value: {v}}}" for k, v in warmup.items()))
        write(folder / "files" / "wandb-history.jsonl", '{"_step": 1, "train/loss": 1, "train/global_step": 100}\n')
        assert open_run(folder).config["warmup_steps"] == expected


class TestTables:
    def test_a_notebook_table_is_read(self, tmp_path):
        text = 'Step,Training Loss,reward,rewards / check / mean,note\n1,0.5,1.0,0.25,"{\n}"\n2,0.4,1.5,0.5,\n'
        run = open_run(write(tmp_path / "table.csv", text))
        assert table(run) == [
            (1, "train", {"loss": 0.5, "reward": 1.0, "rewards/check/mean": 0.25}),
            (2, "train", {"loss": 0.4, "reward": 1.5, "rewards/check/mean": 0.5}),
        ]

    def test_a_row_with_a_validation_loss_is_two_records(self, tmp_path):
        text = "Step,Training Loss,Validation Loss,Mean Token Accuracy\n100,1.5,2.5,0.55\n200,No Log,2.4,0.56\n300,,2,0.5\n"
        assert table(open_run(write(tmp_path / "a.csv", text))) == [
            (100, "train", {"loss": 1.5}),
            (100, "eval", {"eval_loss": 2.5, "eval_token_accuracy": 0.55}),
            (200, "eval", {"eval_loss": 2.4, "eval_token_accuracy": 0.56}),
            (300, "eval", {"eval_loss": 2.0, "eval_token_accuracy": 0.5}),
        ]

    def test_epochs_instead_of_steps(self, tmp_path):
        text = "Epoch,Training Loss,Validation Loss\n1,No log,0.9\n2,0.5,0.8\n"
        assert table(open_run(write(tmp_path / "a.csv", text))) == [
            (1, "probe", {"epoch": 1.0}),
            (2, "eval", {"epoch": 1.0, "eval_loss": 0.9}),
            (3, "train", {"epoch": 2.0, "loss": 0.5}),
            (4, "eval", {"epoch": 2.0, "eval_loss": 0.8}),
        ]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_columns_may_be_separated_in_three_ways(self, tmp_path, separator):
        text = "step,loss,my Metric\n1,0.5,2\n2,0.4,3\n".replace(",", separator)
        assert table(open_run(write(tmp_path / "a.csv", text)))[1] == (2, "train", {"loss": 0.4, "my Metric": 3.0})

    def test_decimal_commas(self, tmp_path):
        assert table(open_run(write(tmp_path / "a.csv", "step;loss\n1;0,693\n"))) == [(1, "train", {"loss": 0.693})]

    def test_a_chart_of_wandb(self, tmp_path):
        header = (
            '"train/global_step","good-sun-1 - train/loss","good-sun-1 - train/loss__MIN","bad-moon-2 - train/loss"'
        )
        run = open_run(write(tmp_path / "a.csv", f'{header}\n"10","0.5","0.4","9"\n"20","0.4","0.3",""\n'))
        assert table(run) == [(10, "train", {"loss": 0.5}), (20, "train", {"loss": 0.4})]
        assert run.notes == ("a.csv: of 2 runs only the first is read, good-sun-1",)

    def test_a_scalar_of_tensorboard(self, tmp_path):
        path = write(tmp_path / "run-x-tag-train_loss.csv", "Wall time,Step,Value\n1700000000.5,10,0.25\n")
        (record,) = open_run(path).records()
        assert (record.step, record.time, record.metrics) == (10, 1700000000.5, {"loss": 0.25})

    def test_a_header_in_the_middle_is_left_out(self, tmp_path):
        assert steps_of(open_run(write(tmp_path / "a.csv", "step,loss\n1,2\nstep,loss\n2,3\n"))) == [1, 2]

    def test_what_powershell_writes(self, tmp_path):
        (tmp_path / "a.csv").write_text("step,loss\n1,2\n", encoding="utf-16")
        (tmp_path / "a.jsonl").write_text('{"step": 1, "loss": 2.0}\n', encoding="utf-16")
        assert steps_of(open_run(tmp_path / "a.csv")) == steps_of(open_run(tmp_path / "a.jsonl")) == [1]

    def test_a_saved_notebook(self, tmp_path):
        def html(rows):
            cells = "".join(f"<tr><td>{step}</td><td>{loss}</td></tr>" for step, loss in rows)
            head = "<thead><tr><th>Step</th><th>Training Loss</th></tr></thead>"
            return {"data": {"text/html": ["<table>", head, f"<tbody>{cells}</tbody></table><p>"]}}

        outputs = [html([(1, "0.5")]), html([(1, "0.5"), (2, "nan")]), {"text": "hello"}]
        run = open_run(write(tmp_path / "a.ipynb", {"cells": [{"outputs": outputs}, {"source": "x"}]}))
        assert (run.kind, steps_of(run)) == ("notebook", [1, 2])
        assert run.notes == ("a.ipynb: of 2 tables only the longest is read, 2 rows",)
        printed = {"output_type": "stream", "text": ["{'loss': 0.5, ", "'epoch': 0.1}\n"]}
        run = open_run(write(tmp_path / "b.ipynb", {"cells": [{"outputs": [printed]}]}))
        assert table(run) == [(1, "train", {"loss": 0.5, "epoch": 0.1})]


class TestLines:
    def test_bad_lines_are_counted(self, tmp_path):
        text = '{"step": 1, "loss": 1.0}\nhello\n\n[1]\n{"step": 2, "loss": 0.5}\n'
        run = open_run(write(tmp_path / "a.jsonl", text))
        assert steps_of(run) == [1, 2]
        assert run.notes == ("a.jsonl: 2 lines left out, line 2 first: no JSON",)

    def test_a_torn_last_line_is_named_once(self, tmp_path):
        run = open_run(write(tmp_path / "a.jsonl", '{"step": 1, "loss": 1.0}\n{"step": 2, "lo'))
        assert steps_of(run) == steps_of(run) == [1]
        assert run.notes == ("a.jsonl: the last line is cut off",)

    def test_metrics_may_be_one_level_deeper(self, tmp_path):
        run = open_run(
            write(tmp_path / "a.jsonl", '{"step": 3, "metrics": {"loss": 1.0}}\n{"step": 4, "metrics": 1}\n')
        )
        assert table(run)[0] == (3, "train", {"loss": 1.0})

    def test_the_ending_of_the_name_may_be_wrong(self, tmp_path):
        text = '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": 0.5}\n'
        kinds = {name: open_run(write(tmp_path / name, text)).kind for name in ("a.json", "a.txt", "a")}
        assert set(kinds.values()) == {"JSONL"}
        assert (
            open_run(write(tmp_path / "b.txt", '{"log_history": [{"step": 1, "loss": 2}]}')).kind
            == "trainer_state.json"
        )

    def test_a_long_file_is_neither_loaded_nor_read_twice(self, tmp_path, monkeypatch):
        monkeypatch.setattr("trl_diagnostics.sources.logs.SAMPLE", 10)
        rows = [json.dumps({"step": 5 * i, "loss": 1.0}) for i in range(1, 20_001)]
        for path in (
            write(tmp_path / "a.jsonl", "\n".join(rows)),
            write(tmp_path / "a.csv", "step,loss\n" + "\n".join(f"{5 * i},1.0" for i in range(1, 20_001))),
        ):
            run = open_run(path)
            assert run.config == {"logging_steps": 5, "max_steps": 100_000}
            assert len(steps_of(run)) == 20_000


def record_run(folder: Path, steps=range(1, 4)) -> list[Record]:
    files = RunDir(folder)
    values = {"loss": math.nan, "reward_margin": 0.1, "rewards_chosen": None, "win_rate": 0.5, "grad_norm": math.inf}
    values |= {"logps_chosen": -1.0, "logits_rejected": 0.0, "my/own": 1.0}
    records = [Record(step, 1.7e9 + step, "train", dict(values)) for step in steps]
    records.append(Record(3, 1.7e9, "probe", {"my_metric": 1.0}))
    for record in records:
        files.write_record(record)
    files.close()
    return records


class TestRunDirectory:
    METADATA = {"trainer": "dpo", "trl_version": "1.0.0", "diagnostics": {"config": {"beta": 0.2, "logging_steps": 3}}}

    def test_records_come_back_as_they_were(self, tmp_path):
        records = record_run(tmp_path)
        write(tmp_path / "run_metadata_start.json", self.METADATA)
        run = open_run(tmp_path)
        assert (run.kind, run.trainer, run.trainer_how, run.confidence) == (
            *("run directory", "dpo", "written by the run itself", 1.0),
        )
        assert (run.trl_version, run.config, run.metadata) == (
            "1.0.0",
            {"beta": 0.2, "logging_steps": 3},
            self.METADATA,
        )
        assert list(map(repr, run.records())) == list(map(repr, records))
        assert open_run(tmp_path / "metrics.jsonl").path == tmp_path

    def test_an_output_folder_stands_for_the_run_directory_in_it(self, tmp_path):
        record_run(tmp_path / "diagnostics")
        write(tmp_path / "trainer_state.json", {"log_history": log_history()})
        assert open_run(tmp_path).path == tmp_path / "diagnostics"

    def test_without_metadata_the_trainer_is_told_from_the_names(self, tmp_path):
        record_run(tmp_path)
        run = open_run(tmp_path)
        assert (run.metadata, run.config) == ({}, {"logging_steps": 1, "max_steps": 3})
        assert run.trainer == "dpo"

    def test_a_torn_last_line_is_left_out(self, tmp_path):
        record_run(tmp_path)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "time": 1.0, "pha')
        assert steps_of(open_run(tmp_path)) == [1, 2, 3, 3]
        assert open_run(tmp_path).notes == ("metrics.jsonl: the last line is cut off",)

    def test_damaged_records_are_left_out(self, tmp_path):
        record_run(tmp_path)
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": "x", "time": 1.0, "phase": "train", "metrics": {}}\n{"metrics": {"loss": "much"}}\n')
            file.write('{"step": 9, "time": 1.0, "phase": "train", "metrics": {"loss": "-Infinity"}}\n')
        run = open_run(tmp_path)
        assert steps_of(run) == [1, 2, 3, 3, 9]
        assert run.notes == ("metrics.jsonl: 2 records are damaged, they are left out",)

    def test_a_run_that_died_before_its_first_log(self, tmp_path):
        write(tmp_path / "run_metadata_start.json", self.METADATA)
        run = open_run(tmp_path)
        assert (list(run.records()), run.trainer) == ([], "dpo")

    def test_the_arguments_are_those_of_the_last_start(self, tmp_path):
        record_run(tmp_path)
        write(tmp_path / "run_metadata_start.json", self.METADATA)
        for n in (2, 10):
            later = {**self.METADATA, "diagnostics": {"config": {"max_steps": n, "logging_steps": 1}}}
            write(tmp_path / f"run_metadata_start_{n}.json", later)
        run = open_run(tmp_path)
        assert run.config == {"max_steps": 10, "logging_steps": 1}
        assert run.metadata == self.METADATA
        assert run.notes == ("resumed 2 times; the training arguments are those of the last start",)

    @pytest.mark.parametrize(
        "text", ["", "[1]", '{"diagnostics": 3}', '{"trainer": 5, "diagnostics": {"config": []}}']
    )
    def test_damaged_metadata_leaves_the_records(self, tmp_path, text):
        record_run(tmp_path)
        write(tmp_path / "run_metadata_start.json", text)
        run = open_run(tmp_path)
        assert (run.trainer, len(steps_of(run))) == ("dpo", 4)


class TestArguments:
    def test_trainer_and_release_can_be_given(self, tmp_path):
        path = write(tmp_path / "a.json", log_history(kl=0.5))
        run = open_run(path, trainer="Online_DPO", trl_version="0.20.0")
        assert (run.trainer, run.trainer_how, run.confidence, run.trl_version) == ("onlinedpo", "given", 1.0, "0.20.0")
        assert open_run(path, trainer="unknown").trainer == "unknown"

    def test_unknown_ones_are_errors(self, tmp_path):
        path = write(tmp_path / "a.json", log_history())
        with pytest.raises(DiagnosticsError, match="^trainer: 'dpoo' is not one of a2po, .*, xpo, unknown$"):
            open_run(path, trainer="dpoo")
        with pytest.raises(
            DiagnosticsError, match="^trl_version: 'new' is no release, expected something like '0.24.0'$"
        ):
            open_run(path, trl_version="new")


class TestErrors:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(DiagnosticsError, match="nowhere: no such file or folder$"):
            open_run(tmp_path / "nowhere")

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(DiagnosticsError, match=": no run in it that can be read$"):
            open_run(tmp_path)

    def test_several_runs(self, tmp_path):
        for name in "abcdefg":
            write(tmp_path / name / "trainer_state.json", {"log_history": log_history()})
        with pytest.raises(DiagnosticsError) as error:
            open_run(tmp_path)
        shown = ", ".join(str(tmp_path / name) for name in "abcde")
        assert str(error.value) == f"{tmp_path}: holds 7 runs, give one of them: {shown} and 2 more"

    @pytest.mark.parametrize(
        ("name", "text", "problem"),
        [
            ("a.json", "{}", "no logs of a training in it (read as JSON)"),
            ("a.json", '{"log_history": []}', "no logs of a training in it (read as trainer_state.json)"),
            ("a.json", "[1, 2]", "no logs of a training in it (read as JSON)"),
            ("a.json", "{", "cut off in line 1"),
            ("a.json", "[\n1 2]", "no JSON in line 2: Expecting ',' delimiter"),
            ("a.json", "[" * 100_000, "nested too deeply"),
            ("a.csv", "Step,Note\n", "no logs of a training in it (read as CSV)"),
            ("a.csv", "", "the file is empty"),
            ("a.json", "", "the file is empty"),
            (
                "a.csv",
                "step,foo,bar\n1,2,3\n",
                "no metric in it that a trainer of TRL logs, such as loss (read as CSV); it has foo, bar",
            ),
            ("a.log", "hello", f"no logs of a training in it (read as console log); what can be read: {CAN_BE_READ}"),
            ("a.png", "\x89PNG\0\0\0", f"neither text nor a known format; what can be read: {CAN_BE_READ}"),
            (
                "a.jsonl",
                "x\n",
                "no logs of a training in it (read as JSONL); a.jsonl: 1 line left out, line 1 first: no JSON",
            ),
            ("a.db", "x" * 999, "no database of trackio: file is not a database"),
            ("a.wandb", "", "no .wandb file, no wandb-history.jsonl and no output.log with numbers in it"),
            (
                "events.out.tfevents.1.h",
                "x",
                "no logs of a training in it (read as TensorBoard); 1 of 1 event files hold no numbers",
            ),
        ],
    )
    def test_a_file_without_a_log(self, tmp_path, name, text, problem):
        path = write(tmp_path / name, text)
        with pytest.raises(DiagnosticsError) as error:
            open_run(path)
        assert str(error.value) == f"{path}: {problem}"

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_that_may_not_be_read(self, tmp_path):
        path = write(tmp_path / "a.json", log_history())
        path.chmod(0)
        with pytest.raises(DiagnosticsError, match="Permission denied"):
            open_run(path)


def project(path: Path, runs: dict[str, list[dict]], config: dict | None = None) -> Path:
    """A database as trackio writes it, older releases without the table of configs."""
    database = sqlite3.connect(path)
    database.execute(
        "CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)"
    )
    for name, rows in runs.items():
        for i, row in enumerate(rows):
            values = (f"2025-01-01T00:00:{i:02}+00:00", name, i, json.dumps(row))
            database.execute("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", values)
    if config is not None:
        database.execute("CREATE TABLE configs (id INTEGER PRIMARY KEY, run_name TEXT, config BLOB)")
        database.execute("INSERT INTO configs (run_name, config) VALUES ('a', ?)", (json.dumps(config).encode(),))
    database.commit()
    database.close()
    return path


class TestTrackio:
    def test_a_run_of_a_project(self, tmp_path):
        rows = [{"train/loss": "NaN", "train/global_step": 10}, {"eval/loss": 0.5, "train/global_step": 10}]
        path = project(tmp_path / "p.db", {"a": rows, "b": rows[:1]}, {"beta": 0.1, "max_steps": -1})
        run = open_run(path / "a")
        assert (run.kind, run.config) == ("trackio", {"beta": 0.1, "max_steps": 10, "logging_steps": 1})
        assert [(r.step, r.time, r.phase) for r in run.records()] == [
            (10, 1735689600.0, "train"),
            (10, 1735689601.0, "eval"),
        ]
        assert find_runs(path) == find_runs(tmp_path) == [path / "a", path / "b"]

    def test_the_latest_run_is_the_default(self, tmp_path):
        path = project(tmp_path / "p.db", {"a": [{"loss": 1.0}] * 2, "b": [{"loss": 2.0}]})
        run = open_run(path)
        assert len(steps_of(run)) == 1
        assert run.notes == ("of 2 runs the latest is read; for another one give p.db/a, say",)
        with pytest.raises(DiagnosticsError, match="p.db: no run 'c', it has a, b$"):
            open_run(path / "c")

    def test_a_log_that_is_no_json_is_left_out(self, tmp_path):
        path = project(tmp_path / "p.db", {"a": [{"loss": 1.0}] * 3})
        with sqlite3.connect(path) as database:
            database.execute("UPDATE metrics SET metrics = '{' WHERE id = 2")
        run = open_run(path)
        assert len(steps_of(run)) == 2
        assert run.notes == ("p.db: some logs are no JSON, they are left out",)

    def test_a_run_may_be_named_after_its_folder(self, tmp_path):
        path = project(tmp_path / "p.db", {"./out/dpo": [{"loss": 1.0}], "/home/me/out": [{"loss": 2.0}] * 2})
        found = find_runs(path)
        assert found == [path / "._out_dpo", path / "_home_me_out"]
        assert [len(steps_of(open_run(run))) for run in found] == [1, 2]

    def test_another_database_is_no_run(self, tmp_path):
        with sqlite3.connect(tmp_path / "x.db") as database:
            database.execute("CREATE TABLE t (x)")
        assert find_runs(tmp_path) == []
        with pytest.raises(DiagnosticsError, match="x.db: no database of trackio: no such table: metrics$"):
            open_run(tmp_path / "x.db")


class TestFind:
    def test_each_run_once(self, tmp_path):
        state = {"log_history": log_history()}
        record_run(tmp_path / "a" / "diagnostics")
        record_run(tmp_path / "a" / "diagnostics" / "attempts" / "1")
        write(tmp_path / "a" / "trainer_state.json", state)
        write(tmp_path / "a" / "checkpoint-5" / "trainer_state.json", state)
        write(tmp_path / "a" / "runs" / "Jan01" / "events.out.tfevents.1.h", "")
        write(tmp_path / "b" / "checkpoint-5" / "trainer_state.json", state)
        write(tmp_path / "b" / "checkpoint-10" / "trainer_state.json", state)
        write(tmp_path / "c" / "runs" / "Jan01" / "events.out.tfevents.1.h", "")
        write(tmp_path / "c" / "runs" / "Jan01" / "events.out.tfevents.2.h", "")
        write(tmp_path / "wandb" / "offline-run-1" / "run-1.wandb", "x")
        write(tmp_path / "wandb" / "offline-run-1" / "files" / "output.log", "{'loss': 1, 'epoch': 1}")
        write(tmp_path / "logs" / "train.log", "{'loss': 1, 'epoch': 1}")
        write(tmp_path / "logs" / "history.csv", "step,loss\n")
        found = [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)]
        assert found == [
            "a/diagnostics",
            "b",
            "c/runs/Jan01",
            "logs/history.csv",
            "logs/train.log",
            "wandb/offline-run-1",
        ]

    def test_files_of_models_and_data_are_no_runs(self, tmp_path):
        words = {"step": 4, "loss": 17}
        for name in (
            "config.json",
            "tokenizer.json",
            "vocab.json",
            "model.safetensors.index.json",
            "all_results.json",
        ):
            write(tmp_path / name, words)
        write(tmp_path / "data.jsonl", '{"prompt": "How big is the loss?", "completion": "step"}\n')
        write(tmp_path / "data.csv", "prompt,completion\n")
        write(tmp_path / ".cache" / "log.json", log_history())
        write(tmp_path / "notes.txt", "the loss of step 5 was nan")
        assert find_runs(tmp_path) == []

    def test_a_file_is_a_run(self, tmp_path):
        path = write(tmp_path / "a.json", log_history())
        assert find_runs(path) == find_runs(tmp_path) == find_runs(str(tmp_path)) == [path]
        assert open_run(tmp_path).path == path

    def test_links_do_not_lead_round_in_circles(self, tmp_path):
        write(tmp_path / "a" / "trainer_state.json", {"log_history": log_history()})
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        (tmp_path / "latest").symlink_to(tmp_path / "a")
        (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
        assert find_runs(tmp_path) == [tmp_path / "a"]
        assert find_runs(tmp_path / "latest") == [tmp_path / "latest"]

    def test_thousands_of_files_take_no_time(self, tmp_path):
        for i in range(50):
            folder = tmp_path / f"{i}"
            folder.mkdir()
            for j in range(60):
                (folder / f"{j}.bin").write_bytes(b"")
        write(tmp_path / "30" / "trainer_state.json", {"log_history": log_history()})
        assert find_runs(tmp_path) == [tmp_path / "30"]


@pytest.mark.parametrize("text", ['{"step": 7, "loss": 1.0}\n', "step,loss\n7,1.0\n", "step,loss\r\n7,1.0\r\n"])
def test_the_last_step_of_a_log_of_one_line(text, tmp_path):
    file = tmp_path / ("log.jsonl" if text.startswith("{") else "log.csv")
    file.write_bytes(text.encode())
    assert open_run(file, "sft").log.last_step() == 7


def test_what_is_left_of_a_run_directory_holds_no_run(tmp_path):
    content = {"final_metrics": {"loss": 1.0}, "records": [{"step": 3, "metrics": {"loss": 1.0}}], "last_step": 3}
    for name in (
        "run_metadata_final.json",
        "run_metadata_final_2.json",
        "coverage.json",
        "memory_1.json",
        "resume_1.json",
    ):
        write(tmp_path / "diagnostics" / name, content)
    write(tmp_path / "diagnostics" / "findings.jsonl", [{"step": 3, "evidence": {"loss": 1.0}}])
    assert find_runs(tmp_path) == []
    write(tmp_path / "diagnostics" / "postmortem.json", content)
    assert find_runs(tmp_path) == [tmp_path / "diagnostics"]
    assert list(open_run(tmp_path).records()) == []
