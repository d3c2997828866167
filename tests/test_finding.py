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

"""Records and findings go to strict JSON and come back the same."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_diagnostics.engine.finding import Finding, Record, Severity, from_json_number, json_number


NUMBERS = st.one_of(st.none(), st.floats(), st.integers(-(10**9), 10**9))
METRICS = st.dictionaries(st.text(max_size=8), NUMBERS, max_size=5)


def strict(data):
    """Through JSON text that every parser reads: no NaN, no Infinity."""
    text = json.dumps(data, allow_nan=False)
    assert "\n" not in text
    return json.loads(text, parse_constant=pytest.fail)


def same(a, b):
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


@pytest.mark.parametrize(
    "number, written",
    [
        (1.5, 1.5),
        (0, 0),
        (None, None),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_number(number, written):
    assert json_number(number) == written
    assert same(from_json_number(written), number)


@given(step=st.integers(0, 10**9), metrics=METRICS)
def test_record_comes_back(step, metrics):
    record = Record(step, 12.5, "train", metrics)
    back = Record.from_json(strict(record.to_json()))
    assert (back.step, back.time, back.phase, list(back.metrics)) == (step, 12.5, "train", list(metrics))
    assert all(same(back.metrics[name], value) for name, value in metrics.items())


def test_line_of_metrics_jsonl():
    record = Record(3, 1.0, "eval", {"eval_loss": math.nan, "eval_kl": None, "eval_x": 2.0})
    assert json.dumps(record.to_json()) == (
        '{"step": 3, "time": 1.0, "phase": "eval", "metrics": {"eval_loss": "NaN", "eval_kl": null, "eval_x": 2.0}}'
    )


@given(value=NUMBERS, evidence=METRICS, message=st.text(), cascade_of=st.none() | st.text())
def test_finding_comes_back(value, evidence, message, cascade_of):
    finding = Finding(
        rule="r",
        severity="high",
        state="started",
        step=4,
        first_step=2,
        metric="m",
        value=value,
        message=message,
        reference=["https://huggingface.co/papers/2402.03300"],
        evidence=evidence,
        cascade_of=cascade_of,
    )
    written = strict(finding.to_json())
    back = Finding.from_json(written)
    assert same(back.value, value)
    assert all(same(back.evidence[name], number) for name, number in evidence.items())
    assert back.to_json() == finding.to_json() == written


def test_line_of_findings_jsonl():
    finding = Finding("r", "low", "resolved", 9, 5, "m", math.inf, "text", evidence={"m": math.inf, "kl": None})
    assert finding.to_json() == {
        "rule": "r",
        "severity": "low",
        "state": "resolved",
        "step": 9,
        "first_step": 5,
        "metric": "m",
        "value": "Infinity",
        "message": "text",
        "why": "",
        "fix": "",
        "reference": [],
        "evidence": {"m": "Infinity", "kl": None},
        "trainer": "unknown",
        "status": "stable",
        "cascade_of": None,
    }


def test_no_line_looks_like_an_agent_trace():
    """`datasets` takes a JSONL with `type` and `message` (or `payload`) at the top for an agent trace."""
    assert "type" not in Finding("r", "low", "started", 1, 1, "m", 0.0, "x").to_json()
    assert "type" not in Record(1, 0.0, "train", {}).to_json()


def test_severities_are_ordered_and_read_as_words():
    assert Severity.INFO < Severity.LOW < Severity.MEDIUM < Severity.HIGH < Severity.CRITICAL
    assert [str(severity) for severity in Severity] == ["info", "low", "medium", "high", "critical"]
