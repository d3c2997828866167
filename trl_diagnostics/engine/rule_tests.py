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

"""A rule with the tests of its file goes in, the problems come out: tests that fail and entry conditions not met."""

import math
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from .engine import Engine
from .finding import DiagnosticsError, Record, from_json_number
from .rule import ANY_TRAINER, Rule
from .tree import MAX_POINTS
from .when import holds
from .yaml_file import suggest


NUMBER = r"[+-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?"
PART = re.compile(
    rf"(?P<value>nan|-?inf|null|_|{NUMBER})(?:\.\.(?P<end>{NUMBER}))?"
    rf"(?:~(?P<noise>{NUMBER})|@(?P<draws>[1-9]\d{{0,3}}))?(?:x(?P<n>\d{{1,9}}))?"
)
SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
NOT_LOGGED = "_"
TEST_FIELDS = ("name", "trainer", "config", "series", "fires", "message")


def parse_series(text: Any, seed: str = "value") -> list[Any]:
    """
    Points of a test series.

    Args:
        text (`str`, `float`, `None` or a list of these):
            For example `"1.0~0.05x40 0.3@64x20 0.2..0.8x9 nan _"`: 40 points with Gaussian noise, 20 shares of 64 draws
            that succeed with probability 0.3, a ramp of 9 points, NaN, one not logged.
        seed (`str`, *optional*, defaults to `"value"`):
            Seed of the noise, the metric's name: the same noise everywhere, another one for each metric.

    Returns:
        `list`: floats, `None` for null, `"_"` for not logged.

    Raises:
        `DiagnosticsError`: for a part that cannot be read.
    """
    noise = random.Random(seed)
    parts = text if isinstance(text, list) else [text]
    points = []
    for part in parts:
        if part is None or (isinstance(part, int | float) and not isinstance(part, bool)):
            points.append(part)
            continue
        for word in str(part).split():
            points += _points(word, noise)
    return points


def _points(word: str, noise: random.Random) -> Iterator[Any]:
    match = PART.fullmatch(word)
    if not match or (match["end"] and match["value"] in (*SPECIAL, "null", NOT_LOGGED)):
        raise DiagnosticsError(
            f"series: cannot read '{word}'; write for example 1.0~0.05x40, 0.2..0.8x9, nan, null or _"
        )
    n = int(match["n"] or 1)
    if n > MAX_POINTS:
        raise DiagnosticsError(f"series: more than {MAX_POINTS} points in '{word}'")
    if match["value"] in ("null", NOT_LOGGED):
        yield from [None if match["value"] == "null" else NOT_LOGGED] * n
        return
    start = from_json_number(SPECIAL[match["value"]]) if match["value"] in SPECIAL else _finite(match["value"])
    end = _finite(match["end"]) if match["end"] else start
    noise_size = _finite(match["noise"]) if match["noise"] else 0.0
    draws = int(match["draws"] or 0)
    if draws and not (0 <= start <= 1 and 0 <= end <= 1):
        raise DiagnosticsError(f"series: a share is between 0 and 1, not as in '{word}'")
    for i in range(n):
        value = start + (end - start) * i / (n - 1) if end != start and n > 1 else start
        if draws:
            value = sum(noise.random() < value for _ in range(draws)) / draws
        yield value + noise.gauss(0.0, noise_size) if match["noise"] else value


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise DiagnosticsError(f"series: number {text} is too large")
    return value


def run_test(rule: Rule, test: Any, metric_map_of: Callable[[str], Any] | None = None) -> str | None:
    """
    Run one test of a rule.

    Args:
        rule (`Rule`):
            The rule, judged alone.
        test (`Any`):
            Test as in the file, which should be a `dict`.
        metric_map_of (`Callable`, *optional*):
            Gives the [`MetricMap`] of a trainer.

    Returns:
        `str` or `None`: what is wrong, if anything.
    """
    if problem := _bad_field(test):
        return problem
    expected = _expected(test.get("fires"))
    try:
        findings = _replay(rule, test, metric_map_of)
    except DiagnosticsError as error:
        return str(error)
    started = [(position, finding) for position, finding in findings if finding.state == "started"]
    positions = [position for position, _ in started]
    if positions != expected:
        fires = f"fires at {_listed(positions)}" if positions else "never fires"
        return (
            f"{fires}, expected {_listed(expected) if expected else 'never'}{_why_silent(rule, test, metric_map_of)}"
        )
    said = started[0][1].message if started else None
    if "message" in test and said != test["message"]:
        return f"says {said!r}, expected {test['message']!r}"
    return None


def _listed(points: list[int]) -> str:
    return ", ".join(map(str, points))


def _why_silent(rule: Rule, test: dict[str, Any], metric_map_of: Callable[[str], Any] | None) -> str:
    """Whether the rule is not even judged with the training arguments of the test."""
    engine, _ = _engine(rule, test, metric_map_of)
    wrong = [key for key, wanted in rule.when.items() if not holds(wanted, engine.config.get(key))]
    found = ", ".join(f"{key} is {engine.config.get(key)!r}" for key in wrong)
    return f"; the rule does not apply, for {found}: give the test a config" if wrong else ""


def _bad_field(test: Any) -> str | None:
    if not isinstance(test, dict):
        return f"expected a map, found {test!r}"
    for key in test:
        if key not in TEST_FIELDS:
            return f"unknown field '{key}'{suggest(key, TEST_FIELDS)}"
    if not isinstance(test.get("trainer", ""), str):
        return f"trainer: expected a text, found {test['trainer']!r}"
    config = test.get("config", {})
    if not isinstance(config, dict):
        return f"config: expected a map, found {config!r}"
    if not isinstance(config.get("logging_steps", 1), int | float):
        return f"config: logging_steps: expected a number, found {config['logging_steps']!r}"
    if test.get("series", {}) == {}:
        return "series is missing"
    if _expected(test.get("fires")) is None:
        return f"fires: expected never, a point or a list of points, found {test.get('fires')!r}"
    return None


def _expected(fires: Any) -> list[int] | None:
    if fires == "never":
        return []
    points = fires if isinstance(fires, list) else [fires]
    return points if all(type(point) is int and point > 0 for point in points) else None


def _engine(
    rule: Rule, test: dict[str, Any], metric_map_of: Callable[[str], Any] | None
) -> tuple[Engine, dict[str, Any]]:
    trainer = test.get("trainer") or rule.trainers[0]
    trainer = "sft" if trainer in ANY_TRAINER else trainer
    config = {"logging_steps": 1, **test.get("config", {})}
    return Engine([rule], trainer, config, metric_map_of(trainer) if metric_map_of else None), config


def _replay(rule: Rule, test: dict[str, Any], metric_map_of: Callable[[str], Any] | None) -> list[tuple[int, Any]]:
    engine, config = _engine(rule, test, metric_map_of)
    metric_map = engine.metric_map
    series = test["series"] if isinstance(test["series"], dict) else {rule.metric: test["series"]}
    columns = {name: parse_series(text, name) for name, text in series.items()}
    if empty := [name for name, points in columns.items() if not points]:
        raise DiagnosticsError(f"series: no points of '{empty[0]}'")
    names = {name: metric_map.canonical(name) if metric_map else name for name in columns}
    phase = next((phase for phase in ("eval", "resume") if rule.metric.startswith(f"{phase}_")), "train")
    findings = []
    for i in range(max(map(len, columns.values()))):
        points = {names[name]: column[i] for name, column in columns.items() if i < len(column)}
        metrics = {name: point for name, point in points.items() if not isinstance(point, str)}
        record = Record((i + 1) * config["logging_steps"], float(i), phase, metrics)
        findings += [(i + 1, finding) for finding in engine.update(record)]
    return findings


def check_tests(rule: Rule, metric_map_of: Callable[[str], Any] | None = None) -> list[str]:
    """Problems of all tests of a rule: where in its file, and at which points it fires."""
    problems = [run_test(rule, test, metric_map_of) for test in rule.tests]
    return [at_test(rule, i, problem) for i, problem in enumerate(problems) if problem]


def at_test(rule: Rule, i: int, problem: str) -> str:
    """A located error text about one test of a rule, which is counted from 0."""
    test, mark = rule.tests[i], rule.document.values["tests"].value[i].start_mark
    name = test.get("name", i + 1) if isinstance(test, dict) else i + 1
    return f"{rule.document.path}:{mark.line + 1}:{mark.column + 1}: tests: '{name}': {problem}"


def check_entry(rule: Rule, metric_map_of: Callable[[str], Any]) -> list[str]:
    """What keeps a rule from being accepted as a built-in one."""
    problems = []

    def complain(field: str, problem: str) -> None:
        problems.append(rule.document.at(field, problem))

    tests = [test for test in rule.tests if isinstance(test, dict)]
    noisy = [test for test in tests if re.search("[~@]", str(test.get("series")))]
    if not any(test.get("fires") != "never" for test in noisy):
        complain("tests", "needs a firing test on noisy data")
    if not any(test.get("fires") == "never" for test in noisy):
        complain("tests", "needs a silent test on noisy data")
    for key, wanted in rule.when.items():
        configs = [test.get("config") for test in tests if test.get("fires") == "never"]
        configs = [config for config in configs if isinstance(config, dict) and key in config]
        if all(holds(wanted, config[key]) for config in configs):
            complain("tests", f"needs a silent test in which 'when: {key}' does not hold")
    if not any(url.startswith("https://") for url in rule.reference):
        complain("reference", "needs a URL")
    if not rule.document.get("status"):
        complain("status", "say stable or experimental")
    if rule.status == "stable" and not (rule.why and rule.fix):
        complain("status", "a stable rule needs 'why' and 'fix'")
    if any(text.strip().lower() == "unknown" for text in rule.false_positives):
        complain("false_positives", "say when, or leave it out")
    for trainer in rule.trainers:
        if trainer not in ANY_TRAINER and not metric_map_of(trainer).is_logged(rule.metric):
            complain("metric", f"'{rule.metric}' is not logged by {trainer} in any release")
    return problems
