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

"""How right the rules are: the promises, on the half of the recorded runs that no threshold was tuned on."""

import pytest
from calibrate import PUBLIC
from calibration.measures import (
    MAX_DELAY,
    MAX_STOPS,
    MAX_WARNINGS,
    MIN_NOTICED,
    MIN_RIGHT_FIRST,
    Faults,
    Healthy,
    faults,
    healthy,
)
from calibration.public import Public, judge_folder
from calibration.runs import HELD_OUT, Judged, judge_all
from failure_lab import corpus

from trl_diagnostics.engine.rulebook import collect_rules


RULES = collect_rules()
NO_PUBLIC = pytest.mark.skipif(not PUBLIC.is_dir(), reason="no public logs in ../shared/corpus beside the repository")


@pytest.fixture(scope="module")
def held() -> list[Judged]:
    return list(judge_all(corpus.FOLDER, RULES, half=HELD_OUT))


@pytest.fixture(scope="module")
def wrong(held) -> Faults:
    return faults(run for run in held if not run.hidden)


@pytest.fixture(scope="module")
def hidden(held) -> Faults:
    return faults(run for run in held if run.hidden)


@pytest.fixture(scope="module")
def fine(held) -> Healthy:
    return healthy(held)


@pytest.fixture(scope="module")
def public() -> list[Public]:
    return judge_folder(PUBLIC, RULES)


# The messages have counts and no names: nobody should fit a rule to a run of the held-out half.
def test_faults_are_named(wrong):
    named = wrong.noticed
    assert named.raw >= MIN_NOTICED, f"a warning or a remark names the fault in {named.hits} of {named.total} runs"


def test_faults_are_named_by_warnings(wrong):
    caught = wrong.caught
    assert caught.raw >= MIN_NOTICED, f"a warning names the fault in {caught.hits} of {caught.total} runs"
    first = wrong.named_first
    assert first.raw >= MIN_RIGHT_FIRST, f"the first warning is right in {first.hits} of {first.total} runs"


def test_the_right_cause_comes_first(wrong):
    first = wrong.right_first
    assert first.raw >= MIN_RIGHT_FIRST, (
        f"the first finding that counts is right in {first.hits} of {first.total} runs"
    )


def test_faults_are_named_soon(wrong):
    assert wrong.delay <= MAX_DELAY


def test_what_the_logs_hide_is_named(hidden):
    named, first = hidden.noticed, hidden.right_first
    assert named.raw >= MIN_NOTICED, f"the fault is named in {named.hits} of {named.total} runs"
    assert first.raw >= MIN_RIGHT_FIRST, f"what is said first is right in {first.hits} of {first.total} runs"


def test_no_healthy_run_is_stopped(fine):
    assert fine.stopped.hits <= MAX_STOPS, f"{fine.stopped.hits} of {fine.stopped.total} healthy runs are stopped"


def test_healthy_runs_are_left_in_peace(fine):
    assert fine.per_1000 <= MAX_WARNINGS, f"{fine.warnings} warnings in {fine.records} healthy records"


@NO_PUBLIC
def test_every_public_log_can_be_read(public):
    assert [log.id for log in public if not log.records] == []


@NO_PUBLIC
def test_no_healthy_public_log_raises_an_alarm(public):
    assert [log.id for log in public if log.looks == "healthy" and log.alarmed] == []


@NO_PUBLIC
def test_broken_public_logs_are_flagged(public):
    assert [log.id for log in public if log.looks == "broken" and not log.warned] == []
