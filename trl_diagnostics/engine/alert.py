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

"""An inline alert (one line of text) goes in, a `Rule` comes out."""

import re
from collections.abc import Iterator

from .condition import parse_condition
from .finding import DiagnosticsError, Severity
from .needs import too_short
from .rule import (
    PLACEHOLDERS,
    SEVERITIES,
    CheckMetric,
    Rule,
    glob_problem,
    message_problem,
    trainer_problem,
    unknown_metrics,
)
from .tree import OF_THE_RECORD
from .yaml_file import pointer, suggest


ALERT = re.compile(r"(?P<trainers>[^:]*):(?P<condition>.*?)->(?P<severity>[^:]*):(?P<message>.*)", re.DOTALL)
ALERT_SHAPE = "'<trainer>: <condition> -> <severity>: <message>'"


def parse_alert(text: str, where: str = "alert", check_metric: CheckMetric | None = None) -> Rule:
    """
    Parse an inline alert, for example `"grpo: importance_sampling_ratio < 0.5 -> high: IS collapsed"`.

    Args:
        text (`str`):
            Trainers (comma separated), condition, severity and message.
        where (`str`, *optional*, defaults to `"alert"`):
            What to call the alert in errors.
        check_metric (`Callable`, *optional*):
            As in [`load_rules`].

    Returns:
        `Rule`: with the default window, warm-up and status of a rule. Its name is made from the condition:
        `alert_kl_gt_0_1` for `kl > 0.1`.

    Raises:
        `DiagnosticsError`: with the place of the first problem and what to write.
    """
    match = ALERT.fullmatch(text) if isinstance(text, str) else None
    if not match:
        raise DiagnosticsError(f"{where}: expected {ALERT_SHAPE}, found {text!r}")

    def fail(group: str, problem: str, column: int = 0):
        part = match.group(group)
        offset = match.start(group) + len(part) - len(part.lstrip()) + column
        raise DiagnosticsError(f"{where}:{offset + 1}: {group}: {problem}\n{pointer(text, offset)}")

    trainers = tuple(trainer.strip() for trainer in match["trainers"].split(","))
    severity, message = match["severity"].strip(), match["message"].strip()
    try:
        condition = parse_condition(match["condition"].strip())
    except DiagnosticsError as error:
        fail("condition", str(error), error.column)
    metric = next((name for name in condition.metrics if name not in OF_THE_RECORD), None)
    if metric is None:
        fail("condition", "name the metric to look at, for example 'loss > 10'")
    if severity not in SEVERITIES:
        fail("severity", f"'{severity}' is not one of {', '.join(SEVERITIES)}{suggest(severity.lower(), SEVERITIES)}")
    window = 1 if condition.has_for else 20
    rule = Rule(
        _name(condition.text), trainers, metric, condition, Severity[severity.upper()], message, message, window
    )
    for problem in _problems(rule, check_metric):
        fail(*problem)
    return rule


def _problems(rule: Rule, check_metric: CheckMetric | None) -> Iterator[tuple]:
    """What is wrong with an alert that could be read: its part, the problem, and the column in the part if known."""
    for trainer in rule.trainers:
        if problem := trainer_problem(trainer):
            yield "trainers", problem
    if function := too_short(rule.condition.test, rule.window):
        yield "condition", f"'{function}' cannot be judged on single points; leave out 'for'"
    if problem := glob_problem(rule.metric, rule.condition):
        yield "condition", problem
    if not rule.message:
        yield "message", "say in one sentence what is wrong"
    if problem := message_problem(rule.message, [*PLACEHOLDERS, *rule.condition.metrics]):
        yield "message", problem
    for name, problem in unknown_metrics(rule.condition, rule.trainers, check_metric) if check_metric else ():
        yield "condition", problem, rule.condition.text.find(name)


def _name(condition: str) -> str:
    words = {"<=": "le", ">=": "ge", "<": "lt", ">": "gt", "==": "eq", "!=": "ne"}
    text = re.sub(r"-(?=[\d.])", " minus ", condition.lower())
    text = re.sub("<=|>=|==|!=|<|>", lambda match: f" {words[match.group()]} ", text)
    return "alert_" + re.sub(r"[^a-z0-9]+", "_", text).strip("_")
