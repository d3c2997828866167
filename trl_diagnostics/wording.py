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

"""A rule goes in, its condition comes out in words where that is shorter to read, and what its functions mean."""

from .engine.rule import Rule
from .engine.tree import (
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Config,
    Function,
    Math,
    Metric,
    Number,
    Statistic,
    Sum,
    Test,
    walk,
)
from .engine.verdict import SPIKE_POINTS
from .engine.when import Predicate


# a longer sentence is harder to read than the condition itself
MAX_WORDS = 30

OPERATORS = {"<": "is below", "<=": "is at most", ">": "is above", ">=": "is at least", "==": "equals", "!=": "is not"}
OVER_LOGS = {
    "mean": "the mean of the last {n} logs of {metric}",
    "median": "the median of the last {n} logs of {metric}",
    "min": "the lowest of the last {n} logs of {metric}",
    "max": "the highest of the last {n} logs of {metric}",
    "std": "the standard deviation of the last {n} logs of {metric}",
    "mad": "the median distance from the median in the last {n} logs of {metric}",
    "count": "the number of finite values in the last {n} logs of {metric}",
    "slope": "the slope of {metric} over the last {n} logs",
    "baseline": "the mean of the first {n} logs of {metric} past warm-up",
    "best": "the best mean of {n} logs of {metric} in a row so far",
    "worst": "the worst mean of {n} logs of {metric} in a row so far",
}
OF_ONE_LOG = {
    "baseline": "the first {metric} past warm-up",
    "best": "the best {metric} so far",
    "worst": "the worst {metric} so far",
}
FUNCTIONS = {
    "range": "{level} is between {a:g} and {b:g}",
    "outside": "{level} is below {a:g} or above {b:g}",
    "drop": "{level} is at least {a:g}{percent} below that of the first {n} past warm-up",
    "rise": "{level} is at least {a:g}{percent} above that of the first {n} past warm-up",
    "plateau": "the halves of the last {n} logs of {metric} differ by at most {a:g}{percent}",
    "spike": "one of the last {spike} logs of {metric} is above {a:g} times the mean of the {n} before these",
    "outlier": "the last {metric} is more than {a:g} median distances above the median of the {n} logs before",
    "nonfinite": "{metric} is not a finite number",
    "null": "{metric} is null",
    "frozen": "the last {n} logs of {metric} are one and the same number",
    "missing": "{metric} is in none of the last {n} logs",
}
MEANINGS = {
    "baseline": "baseline(x, n): mean of the first n logs past warm-up",
    "best": "best(x, n): best mean of n logs in a row since the start",
    "worst": "worst(x, n): worst mean of n logs in a row since the start",
    "mad": "mad(x, n): median distance from the median of the last n logs",
    "count": "count(x, n): how many of the last n logs are finite",
    "delta": "delta(x): the last log minus the one before",
    "slope": "slope(x, n): of the straight line through the last n logs, per log",
    "drop": "drop(y): the last window is y below the first window past warm-up",
    "rise": "rise(y): the last window is y above the first window past warm-up",
    "plateau": "plateau(y): the two halves of the window differ by at most y",
    "spike": f"spike(k): one of the last {SPIKE_POINTS} logs is above k times the mean of the window before these",
    "outlier": "outlier(k): the last log is above the median of the window before it by k median distances",
    "trend": "trend: the window rises or falls by more than its noise explains",
    "frozen": "frozen: all logs of the window are one and the same number",
    "missing": "missing: in none of the logs of the window",
}
SAMPLES = "config.samples_per_log: samples in one log, over all processes"


def in_words(rule: Rule) -> str | None:
    """A rule's condition as a sentence without its end, `None` where the condition itself is easier to read."""
    condition = rule.condition
    try:
        text = _test(condition.test, rule)
    except LookupError:
        return None
    if condition.streak > 1:
        of = f"of the last {condition.of} logs" if condition.of != condition.streak else "logs in a row"
        text = f"{text}, at {condition.streak} {of}"
    return text if len(text.split()) <= MAX_WORDS else None


def _test(node: Test, rule: Rule) -> str:
    match node:
        case Comparison():
            exactly = isinstance(node.right, Number) and node.operator == "=="
            operator = "is" if exactly else OPERATORS[node.operator]
            return f"{_sum(node.left, rule)} {operator} {_sum(node.right, rule)}"
        case Function():
            return _function(node, rule)
        case AllOf() | AnyOf() if not any(isinstance(item, AllOf | AnyOf) for item in node.items):
            return (" and " if isinstance(node, AllOf) else " or ").join(_test(item, rule) for item in node.items)
    raise LookupError("no words for this")


def _sum(node: Sum, rule: Rule) -> str:
    match node:
        case Number():
            return f"{node.value:g}"
        case Metric():
            return _level(node.metric, rule)
        case Config():
            return "the samples in a log" if node.name == "samples_per_log" else node.name
        case Statistic():
            return _statistic(node, rule)
        case Math(name="abs"):
            return f"the size of {_sum(node.argument, rule)}"
        case Arithmetic(operator="*", left=Number() | Config()):
            return f"{_sum(node.left, rule)} times {_sum(node.right, rule)}"
    raise LookupError("no words for this")


def _statistic(node: Statistic, rule: Rule) -> str:
    metric, n = _name(node.metric, rule), node.n or rule.window
    if node.name == "delta":
        return f"the change of {metric} from log to log"
    if node.name == "last" or n == 1 and node.name in ("mean", "median", "min", "max"):
        return metric
    texts = OF_ONE_LOG if n == 1 and node.name in OF_ONE_LOG else OVER_LOGS
    return texts[node.name].format(n=n, metric=metric)


def _function(node: Function, rule: Rule) -> str:
    metric, n = _name(node.metric, rule), rule.window
    a, b = (*node.numbers, 0.0, 0.0)[:2]
    percent = "%" * node.percent
    if node.name == "trend":
        size = f", by more than {a:g}{percent}" if node.numbers else ""
        return f"the last {n} logs of {metric} {'rise' if node.direction == 'up' else 'fall'} beyond their noise{size}"
    if node.name == "missing" and n == 1:
        return f"{metric} is not logged"
    level = _level(node.metric, rule)
    return FUNCTIONS[node.name].format(metric=metric, n=n, level=level, a=a, b=b, percent=percent, spike=SPIKE_POINTS)


def _level(metric: str, rule: Rule) -> str:
    """A bare metric is the mean of its window."""
    name = _name(metric, rule)
    return name if rule.window == 1 or metric == "step" else OVER_LOGS["mean"].format(n=rule.window, metric=name)


def _name(metric: str, rule: Rule) -> str:
    return rule.metric if metric == "value" else metric


def meanings(rule: Rule) -> list[str]:
    """What the names in a rule's condition mean, one line each."""
    nodes = list(walk(rule.condition.test))
    used = {node.name for node in nodes if isinstance(node, Statistic | Function)}
    lines = [text for name, text in MEANINGS.items() if name in used]
    own = any(isinstance(node, Metric | Statistic | Function) and node.metric == "value" for node in nodes)
    bare = any(isinstance(node, Metric) and node.metric != "step" for node in nodes)
    if own:
        lines.insert(0, f"value, or no name at all: {rule.metric}")
    if bare and rule.window > 1:
        lines.append(f"a metric without a function: mean of its last {rule.window} logs")
    lines += [SAMPLES] * ("samples_per_log" in rule.condition.configs)
    return lines + ["for n steps: at n logs in a row"] * (rule.condition.streak == rule.condition.of > 1)


def clauses(rule: Rule) -> list[str]:
    """A rule's condition as written, a line for each part outside of parentheses that `and`, `or` and `for` join."""
    lines, depth = [""], 0
    for word in rule.condition.text.split():
        if word in ("and", "or", "for") and depth == 0:
            lines.append("")
        depth += word.count("(") - word.count(")")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def when_in_words(when: dict[str, tuple[Predicate, ...]]) -> str:
    """The training arguments that a rule is for: `beta > 0, loss_type is grpo or dapo`."""
    return ", ".join(f"{key} {' or '.join(_predicates(any_of))}" for key, any_of in when.items())


def _predicates(any_of: tuple[Predicate, ...]) -> list[str]:
    """`is` stands only before the first of several values."""
    texts, last = [], ""
    for operator, wanted in any_of:
        word = {"==": "is", "!=": "is not"}.get(operator, operator)
        texts.append(f"{'' if word == last else word + ' '}{'null' if wanted is None else wanted}")
        last = word
    return texts
