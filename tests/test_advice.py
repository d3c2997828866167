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

"""Checkpoints and what their run logged: which one to go on from, which to ship, and which are of another run."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_kit import checkpoint

from trl_diagnostics.engine.finding import Finding, Record, Severity
from trl_diagnostics.engine.needs import since_start
from trl_diagnostics.engine.rulebook import collect_rules
from trl_diagnostics.metrics.names import MetricMap
from trl_diagnostics.sinks.postmortem import about_checkpoints
from trl_diagnostics.sources.advice import advise, judge_checkpoints
from trl_diagnostics.sources.checkpoints import Checkpoint, checkpoints, of_one_run, saved_memories, saved_start
from trl_diagnostics.stop import Stop


def disk(*steps):
    parts = ("weights", "optimizer", "scheduler", "random states", "trainer state")
    return [Checkpoint(step, Path(f"checkpoint-{step}"), True, "", parts, ()) for step in steps]


def logs(values, metric="loss", phase="train", every=1):
    return [Record(every * i, float(i), phase, {metric: value}) for i, value in enumerate(values, 1)]


def finding(rule="nonfinite_loss", first=40, state="started", step=None, severity="critical", **fields):
    return Finding(rule, severity, state, step or first, first, fields.pop("metric", "loss"), 1.0, "", **fields)


NOISE = np.random.default_rng(0).normal(0, 0.02, 1000)


def test_without_anything_known_the_last_one_is_taken():
    found = advise(judge_checkpoints(disk(10, 20)))
    assert (found.go_on.step, found.ship.step) == (20, 20)
    assert found.why_go_on == "The last one; it is complete and finite."
    assert found.why_ship == "The last one with nothing against it; too little was logged to compare them."


def test_no_checkpoints():
    found = advise([])
    assert (found.go_on, found.ship, found.why_ship) == (None, None, "There is no checkpoint.")


def test_a_checkpoint_from_within_an_episode_is_suspect():
    findings = [
        finding("loss_divergence", 25, severity="high"),
        finding("loss_divergence", 25, "resolved", 38, severity="high"),
        finding("nonfinite_loss", 60),
    ]
    judged = judge_checkpoints(disk(10, 20, 30, 40, 50, 60, 70), (), findings)
    assert [one.step for one in judged if one.suspect] == [30, 60, 70]
    assert judged[2].suspect == ("loss_divergence since step 25",)
    found = advise(judged)
    assert found.go_on.step == 50
    assert found.why_go_on == (
        "The last one that is complete and finite with nothing against it (step 60 to 70: nonfinite_loss since step "
        "60)."
    )


def test_a_checkpoint_after_the_last_good_log_is_not_gone_on_from():
    rules = [rule for rule in collect_rules() if rule.name in ("nonfinite_loss", "reward_collapse")]
    found = advise(judge_checkpoints(disk(28, 32, 38), logs([1.0] * 5, every=10), [finding(first=40)], rules=rules))
    assert (found.go_on.step, found.ship.step) == (28, 38)
    assert found.why_go_on == (
        "The last one that is complete and finite with nothing against it (step 32 to 38: too close to nonfinite_loss "
        "since step 40)."
    )


def test_a_rule_that_looks_back_far_needs_an_older_checkpoint():
    rules = collect_rules(["all: mean(loss, 5) > 3 -> high: no"])
    found = [finding(rules[-1].name, first=20, severity="high")]
    judged = judge_checkpoints(disk(14, 15, 16), logs([1.0] * 40), found, rules=rules)
    assert [one.too_close for one in judged] == [(), (), (f"{rules[-1].name} since step 20",)]
    judged = judge_checkpoints(disk(14, 15, 16), logs([1.0] * 40)[17:], found, rules=rules)  # too few logs are known
    assert not any(advise([one]).go_on for one in judged)
    judged = judge_checkpoints(disk(14, 21), logs([1.0] * 40)[30:], found, rules=rules)  # none from before is known
    assert advise(judged).go_on.step == 14


def test_none_is_from_before():
    found = advise(judge_checkpoints(disk(8), logs([1.0], every=10), [finding(first=10)]))
    assert (found.go_on, found.ship.step) == (None, 8)
    assert found.why_go_on == "None is fit to go on from: step 8: too close to nonfinite_loss since step 10."


@pytest.mark.parametrize(
    ("earlier", "step"),
    [
        ([], 40),
        ([finding("kl_runaway", 25, severity="high")], 20),
        ([finding("kl_runaway", 25, severity="medium")], 40),
    ],
)
def test_a_stop_names_the_checkpoint_that_the_advice_names(earlier, step, tmp_path, caplog):
    for saved in (20, 40, 60):
        (tmp_path / f"checkpoint-{saved}").mkdir()
    findings = [*earlier, finding("own", 50, severity="medium")]  # the least that shall stop
    stop = Stop(Severity.MEDIUM, [], findings, lambda part, function, *arguments: function(*arguments))
    for record in logs([1.0] * 60):
        stop.log(record)
    stop.consider(findings[-1], 60, str(tmp_path), tmp_path / "diagnostics")
    assert caplog.messages[-1].endswith(f"Resume from {tmp_path}/checkpoint-{step}.")


@pytest.mark.parametrize("finite", [None, True])
def test_what_a_probe_saw_when_a_checkpoint_was_saved_is_no_proof(finite):
    found = [replace(one, finite=finite, note="" if finite else "not looked at") for one in disk(10, 20, 30)]
    probes = [Record(10, 0.0, "train", {"loss": 1.0, "nonfinite_parameters": 0.0})]
    probes += [Record(20, 0.0, "train", {"loss": 1.0, "nonfinite_parameters": 2.0})]
    judged = judge_checkpoints(found, probes)
    assert [one.probed for one in judged] == [True, False, False] and [one.finite for one in judged] == [finite] * 3
    note = "not looked at; the probe of that step found no weights that are NaN or infinite"
    assert judged[0].note == ("" if finite else note) and judged[1].note == found[1].note
    said = about_checkpoints(judged, None, "", "killed", "")
    assert said["last_checkpoint_finite_by_probe"] == "checkpoint-10"
    assert said["last_verified_finite_checkpoint"] == ("checkpoint-30" if finite else None)


def test_what_is_minor_experimental_or_about_the_resume_makes_no_checkpoint_suspect():
    findings = [
        finding("grad_norm_isolated_spike", 5, severity="medium"),
        finding("new_rule", 5, status="experimental"),
        finding("resume_dataset_changed", 5, severity="high", metric="resume_dataset"),
    ]
    assert judge_checkpoints(disk(10), (), findings)[0].suspect == ()


def test_the_best_evaluation_ships_and_the_last_one_goes_on():
    evals = logs([1.0, 0.6, 0.9], "eval_loss", "eval", every=10)
    found = advise(judge_checkpoints(disk(10, 20, 30), evals))
    assert (found.go_on.step, found.ship.step) == (30, 20)
    assert found.why_ship == "The best eval_loss of 3: 0.6 at step 20."


def test_the_metric_of_the_user_comes_first_and_then_the_reward():
    records = [
        Record(10, 0.0, "eval", {"eval_loss": 1.0, "eval_win_rate": 0.9, "eval_reward": 3.0}),
        Record(20, 0.0, "eval", {"eval_loss": 0.5, "eval_win_rate": 0.6, "eval_reward": 2.0}),
    ]
    config = {"metric_for_best_model": "win_rate", "greater_is_better": True}
    assert advise(judge_checkpoints(disk(10, 20), records, (), config)).ship.step == 10
    config = {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    assert advise(judge_checkpoints(disk(10, 20), records, (), config)).ship.step == 20
    config = {"metric_for_best_model": "eval_rewards/accuracies", "greater_is_better": True}  # TRL's name of it
    for metric_map in (None, MetricMap("dpo")):
        found = advise(judge_checkpoints(disk(10, 20), records, (), config, metric_map=metric_map))
        assert (found.ship.step, found.why_ship) == (10, "The best eval_win_rate of 2: 0.9 at step 10.")
    found = advise(judge_checkpoints(disk(10, 20), records))
    assert (found.ship.step, found.why_ship) == (10, "The best eval_reward of 2: 3 at step 10.")


def test_an_evaluation_is_not_counted_twice_nor_if_it_is_nan():
    records = [Record(10, 0.0, "eval", {"eval_loss": 0.5}), Record(20, 0.0, "eval", {"eval_loss": math.nan})]
    judged = judge_checkpoints(disk(10, 20), records)
    assert [(one.score, one.scored_by) for one in judged] == [(0.5, "eval_loss"), (None, "")]


def test_without_an_evaluation_the_newest_of_the_good_ones_ships():
    falling = [3 - 0.02 * min(i, 100) + NOISE[i] for i in range(200)]
    found = advise(judge_checkpoints(disk(50, 100, 150, 200), logs(falling)))
    assert found.ship.step == 200 and found.why_ship.startswith("No evaluation was logged; loss ")
    reward = [0.2 + 0.01 * min(i, 100) - 0.006 * max(i - 100, 0) + NOISE[i] for i in range(200)]
    judged = judge_checkpoints(disk(50, 100, 150, 200), logs(reward, "reward"))
    assert advise(judged).ship.step == 100
    assert judged[3].suspect == (f"reward was {judged[3].score:.3g}, after 1.13 before",)


def test_a_loss_that_jumped_makes_the_later_ones_suspect():
    jumped = [1 + NOISE[i] + (i >= 120) for i in range(200)]
    judged = judge_checkpoints(disk(50, 100, 150, 200), logs(jumped))
    assert [bool(one.suspect) for one in judged] == [False, False, True, True]
    assert advise(judged).go_on.step == 100


def test_a_wild_stretch_makes_a_checkpoint_suspect():
    wild = [1 + NOISE[i] * (10 if 80 <= i < 100 else 1) for i in range(200)]
    judged = judge_checkpoints(disk(50, 100, 150, 200), logs(wild))
    assert [one.suspect for one in judged] == [(), ("the metrics scattered far more than usual",), (), ()]


def test_a_healthy_run_has_no_suspect_checkpoint():
    for seed in range(50):
        noise = np.random.default_rng(seed).normal(0, 0.1, 300)
        loss = [1 + 2 * math.exp(-i / 60) + noise[i] for i in range(300)]
        assert not any(one.suspect for one in judge_checkpoints(disk(*range(20, 301, 20)), logs(loss)))


def test_what_lacks_its_weights_or_its_optimizer(tmp_path):
    checkpoint(tmp_path, 10)
    checkpoint(tmp_path, 20, leave_out=["optimizer.pt", "scheduler.pt"])
    checkpoint(tmp_path, 30, tensor=torch.tensor([math.nan]))
    checkpoint(tmp_path, 40, leave_out=["model.safetensors"])
    found = advise(judge_checkpoints(checkpoints(tmp_path)))
    assert (found.go_on.step, found.ship.step) == (10, 20)
    assert found.why_go_on == (
        "The last one that is complete and finite with nothing against it (step 20: optimizer and scheduler missing; "
        "step 30: layer.weight in model.safetensors is NaN or infinite; "
        "step 40: no weights)."
    )


def test_none_is_fit(tmp_path):
    checkpoint(tmp_path, 10, tensor=torch.tensor([math.nan]))
    found = advise(judge_checkpoints(checkpoints(tmp_path)))
    assert found.go_on is found.ship is None
    assert found.why_ship == "None is fit: step 10: layer.weight in model.safetensors is NaN or infinite."


def test_the_reasons_against_many_are_each_said_once():
    findings = [finding(f"rule_{step}", step) for step in (15, 35, 45, 55)]
    episodes = [one for first in findings for one in (first, replace(first, state="resolved", step=first.step + 4))]
    judged = judge_checkpoints(disk(*range(17, 68, 10)), (), [finding(first=5), *episodes])
    assert advise(judge_checkpoints(disk(10, 20, 30), (), [finding(first=5)])).why_ship == (
        "None is fit: step 10 to 30: nonfinite_loss since step 5."
    )
    assert advise(judged).why_go_on == (
        "None is fit: 2 other reasons against earlier ones; step 37: nonfinite_loss since step 5, rule_35 since step 35; "
        "step 47: nonfinite_loss since step 5, rule_45 since step 45; step 57: nonfinite_loss since step 5, rule_55 since "
        "step 55; step 67: nonfinite_loss since step 5."
    )


# What was never good


def test_what_was_so_since_the_start_is_against_every_checkpoint():
    rules = [rule for rule in collect_rules() if rule.name == "reward_constant"]
    found = [finding("reward_constant", 125, severity="high", metric="reward_std")]
    assert advise(judge_checkpoints(disk(50, 100, 150), logs([0.0] * 150, "reward"), found, rules=rules)).why_ship == (
        "None is fit: step 50 to 150: reward_constant since the start."
    )
    found.append(replace(found[0], state="resolved", step=140))
    assert advise(judge_checkpoints(disk(50, 100, 150), (), found, rules=rules)).go_on.step == 150


@pytest.mark.parametrize(
    ("condition", "so"),
    [
        ("best(reward, 1) - worst(reward, 1) < 1e-6", True),
        ("best(win_rate, 60) < 0.55 and step > 90", True),
        ("best(reward, 20) - baseline(reward, 20) < mad(reward, 20)", True),
        ("best(win_rate, 60) < 0.55 or loss > 3", False),
        ("best(reward, 1) - last(reward) < 1e-6", False),
        ("median(loss, 6) > 3 * best(loss, 20)", False),
        ("best(learning_rate, 1) > 0.003", False),
        ("mean(reward, 10) < 0.5 * best(reward, 10)", False),
        ("loss nonfinite", False),
    ],
)
def test_which_conditions_hold_since_the_start(condition, so):
    assert since_start(collect_rules([f"all: {condition} -> high: no"])[-1].condition.test) == so


def test_the_grave_rules_that_hold_since_the_start():
    grave = {rule.name for rule in collect_rules() if rule.severity >= Severity.HIGH}
    assert {rule.name for rule in collect_rules() if since_start(rule.condition.test)} & grave == {
        *("eval_loss_never_moves", "reward_constant", "reward_scores_never_move"),
        *("dpo_stuck_at_start", "kto_stuck_at_start", "reward_stuck_at_chance"),
    }


# Of which run

NOW = 1_800_000_000


def start(run_dir, number=0, start_id="a", step=0, created="2027-01-15T08:00:00+00:00", **more):
    """Metadata of the n-th start, written at `NOW`."""
    run_dir.mkdir(exist_ok=True)
    resumed = {"resumed": {"step": step, **more}} if step else {}
    text = json.dumps({"start_id": start_id, "created": created, **resumed})
    (run_dir / f"run_metadata_start{f'_{number}' if number else ''}.json").write_text(text)


def saved(folder, step, start_id=None, at=NOW + 60):
    """A checkpoint of a run with the callback, or without it."""
    state = checkpoint(folder, step) / "trainer_state.json"
    kept = {"DiagnosticsCallback": {"args": {}, "attributes": {"saved": {"start_id": start_id, "start": {"x": 1}}}}}
    content = {"global_step": step, "log_history": [], "stateful_callbacks": kept if start_id else {"Other": {}}}
    state.write_text(json.dumps(content, indent=2))
    os.utime(state, (at, at))


def foreign(folder, last_step):
    return {one.step: one.foreign for one in of_one_run(checkpoints(folder, 0.0), last_step, folder / "diagnostics")}


def test_the_start_that_saved_a_checkpoint_tells_whose_it_is(tmp_path):
    start(tmp_path / "diagnostics", start_id="b")
    for step, start_id in ((50, "b"), (75, "a"), (100, "b"), (150, "a")):
        saved(tmp_path, step, start_id, at=NOW - 60)  # a copy has other times
    other = "from another run, which began by itself"
    assert foreign(tmp_path, 120) == {50: "", 75: other, 100: "", 150: other}


def test_a_run_that_goes_on_from_what_it_had_given_up_once_takes_it_back(tmp_path):
    start(tmp_path / "diagnostics", start_id="a")
    start(tmp_path / "diagnostics", 1, "b", step=50, saved_by="a")
    start(tmp_path / "diagnostics", 2, "c", step=150, saved_by="a")
    for step, start_id in ((50, "a"), (75, "b"), (150, "a"), (200, "c"), (250, "a")):
        saved(tmp_path, step, start_id)
    assert foreign(tmp_path, 200) == {
        **{50: "", 75: "the run went back to step 150 since", 150: "", 200: ""},
        250: "the run went back to step 50 since",
    }


def test_what_a_run_saved_before_it_was_resumed_is_its_own_and_what_it_gave_up_is_not(tmp_path):
    start(tmp_path / "diagnostics", start_id="a")
    start(tmp_path / "diagnostics", 1, "b", step=100)
    for step, start_id in ((50, "a"), (100, "a"), (120, "b"), (150, "a")):
        saved(tmp_path, step, start_id)
    given_up = "the run went back to step 100 since"
    assert foreign(tmp_path, 130) == {50: "", 100: "", 120: "", 150: given_up}
    assert foreign(tmp_path, 160) == {50: "", 100: "", 120: "", 150: given_up}


def test_a_run_that_goes_on_from_another_run_directory(tmp_path):
    start(tmp_path / "diagnostics", start_id="b", step=100)
    for step, start_id in ((50, "a"), (100, "a"), (120, "b"), (150, "a")):
        saved(tmp_path, step, start_id)
    assert foreign(tmp_path, 130) == {50: "", 100: "", 120: "", 150: "from another run, which began by itself"}


def test_without_its_start_the_step_and_the_time_tell(tmp_path):
    start(tmp_path / "diagnostics", start_id="b")
    for step, at in ((50, NOW - 5), (100, NOW + 5), (150, NOW + 5)):
        saved(tmp_path, step, at=at)
    found = {
        50: "from an earlier run, saved before this one began",
        100: "",
        150: "from an earlier run, this one came to step 120",
    }
    assert foreign(tmp_path, 120) == found
    (tmp_path / "diagnostics" / "run_metadata_start.json").write_text("{")
    assert foreign(tmp_path, 120) == {**found, 50: ""}


def test_checkpoints_of_another_run_are_no_part_of_any_advice(tmp_path):
    start(tmp_path / "diagnostics")
    for step, start_id in ((50, "a"), (75, "z"), (100, "a"), (150, "z")):
        saved(tmp_path, step, start_id)
    found = of_one_run(checkpoints(tmp_path), 120, tmp_path / "diagnostics")
    evaluated = [Record(70, 0.0, "eval", {"eval_loss": 0.5}), Record(110, 0.0, "eval", {"eval_loss": 0.1})]
    judged = judge_checkpoints(found, evaluated, [finding(first=130)])
    assert [(one.step, one.scored_at, one.suspect) for one in judged] == [
        (50, 0, ()),
        (75, 0, ()),
        (100, 70, ()),
        (150, 0, ()),
    ]
    found = advise(judged)
    assert (found.go_on.step, found.ship.step) == (100, 100)
    assert found.why_go_on == (
        "The last one that is complete and finite with nothing against it (step 150: from another run, which began by "
        "itself)."
    )
    assert about_checkpoints(judged, found.go_on, "", "killed", "")["last_checkpoint"] == str(
        tmp_path / "checkpoint-100"
    )
    only = advise([one for one in judged if one.foreign])
    assert (only.go_on, only.why_ship) == (
        None,
        "None is fit: step 75 to 150: from another run, which began by itself.",
    )


@pytest.mark.parametrize(
    "text", ["", "{}", '{"stateful_callbacks": 3}', '"stateful_callbacks": {"A": [3, {}]', "[" * 9999]
)
def test_a_state_that_says_nothing_of_its_callbacks(text, tmp_path):
    checkpoint(tmp_path, 5)
    (tmp_path / "checkpoint-5" / "trainer_state.json").write_text(text)
    assert saved_memories(tmp_path / "checkpoint-5") == saved_memories(tmp_path) == []


def test_the_start_that_saved_a_checkpoint_comes_back_without_its_log(tmp_path, monkeypatch):
    saved(tmp_path, 5, "a")
    state = tmp_path / "checkpoint-5" / "trainer_state.json"
    monkeypatch.setattr("trl_diagnostics.sources.checkpoints.TAIL", state.stat().st_size - 30)
    assert [memory["start_id"] for memory in saved_memories(state.parent)] == ["a"]
    assert saved_start(state.parent) == {"x": 1} and saved_start(tmp_path) == {}
