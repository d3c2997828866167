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

"""The condition language: text goes in, a tree comes out that knows its metrics and binds to three-valued verdicts."""

import difflib
import math
import re
from dataclasses import dataclass, field

from .finding import DiagnosticsError
from .tree import (
    MAX_POINTS,
    SHORTEST,
    AllOf,
    AnyOf,
    Arithmetic,
    Comparison,
    Condition,
    Config,
    Function,
    Math,
    Metric,
    Not,
    Number,
    Statistic,
    Sum,
    Test,
)


MAX_LENGTH = 500
MAX_DEPTH = 20
STATISTICS = "mean median min max std mad last count baseline best worst slope delta".split()
WINDOWLESS = ("last", "delta")
MATH = ("abs", "exp", "log", "sqrt")
CALLED = ("range", "outside", "drop", "rise", "plateau", "spike", "outlier", "trend")  # functions with arguments
PLAIN = ("nonfinite", "null", "frozen", "missing")  # functions without
KEYWORDS = ("and", "or", "not", "for", "of", "steps")  # "step" is the optimizer step, except after `for N`
INSTEAD = {"=": "'=='", "&": "'and'", "|": "'or'", "!": "'not'", "÷": "'/'", "×": "'*'"}
TOKEN = re.compile(
    r"(?P<blank>\s+)|`(?P<quoted>[^`]+)`|(?P<name>[A-Za-z][\w/.*-]*)|(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<op><=|>=|==|!=|<|>)|(?P<arithmetic>[-+*/])|(?P<mark>[(),%])",
    re.ASCII,
)


@dataclass
class Token:
    kind: str
    text: str
    column: int


def tokenize(text: str) -> list[Token]:
    """Split a condition into tokens; the last one is the end."""
    tokens, position = [], 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            instead = INSTEAD.get(text[position])
            hint = f"; write {instead}" if instead else ""
            raise DiagnosticsError(f"unexpected character {text[position]!r}{hint}", position)
        kind = match.lastgroup
        if kind == "arithmetic" and not _has_blanks(text, position):
            raise DiagnosticsError(f"operators need blanks on both sides: ' {match.group()} '", position)
        if kind != "blank":
            tokens.append(Token(kind, match.group(kind), position))
        position = match.end()
    return [*tokens, Token("end", "the end", len(text))]


def _has_blanks(text: str, position: int) -> bool:
    return text[position - 1 : position].isspace() and text[position + 1 : position + 2].isspace()


@dataclass
class Parser:
    """Recursive descent over the tokens of one condition; each method reads one rule of the grammar."""

    text: str
    tokens: list[Token] = field(init=False)
    position: int = 0
    depth: int = 0
    metrics: dict[str, None] = field(default_factory=dict)
    configs: dict[str, None] = field(default_factory=dict)

    def __post_init__(self):
        if len(self.text) > MAX_LENGTH:
            raise DiagnosticsError(f"longer than {MAX_LENGTH} characters; split it into two rules", MAX_LENGTH)
        self.tokens = tokenize(self.text)

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def at(self, *texts: str) -> bool:
        return self.token.kind != "quoted" and self.token.text in texts

    def take(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.at(*texts):
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected '{text}'")

    def fail(self, problem: str, token: Token | None = None):
        token = token or self.token
        found = "the end" if token.kind == "end" else f"'{token.text}'"
        raise DiagnosticsError(f"{problem}, found {found}", token.column)

    def condition(self) -> Condition:
        test = self.test(self.or_test())
        streak, of, has_for = 1, 1, self.accept("for")
        if has_for:
            streak = of = self.count("steps")
            if self.accept("of"):
                token = self.token
                of = self.count("steps")
                if of < streak:
                    raise DiagnosticsError(f"'for {streak} of {of} steps' can never be true", token.column)
            if not self.accept("steps", "step"):
                self.fail("expected 'steps'")
        if self.token.kind == "op":
            self.fail("one comparison cannot follow another, use 'and' or 'range(low, high)'")
        if self.token.kind != "end":
            self.fail("expected 'and', 'or', 'for' or the end")
        return Condition(self.text.strip(), test, streak, of, has_for, tuple(self.metrics), tuple(self.configs))

    def or_test(self):
        items = [self.and_test()]
        while self.at("or"):
            items[-1] = self.test(items[-1])
            self.take()
            items.append(self.and_test())
        return items[0] if len(items) == 1 else AnyOf(tuple(map(self.test, items)))

    def and_test(self):
        items = [self.not_test()]
        while self.at("and"):
            items[-1] = self.test(items[-1])
            self.take()
            items.append(self.not_test())
        return items[0] if len(items) == 1 else AllOf(tuple(map(self.test, items)))

    def not_test(self):
        if not self.at("not"):
            return self.comparison()
        self.nest()
        self.take()
        item = Not(self.test(self.not_test()))
        self.depth -= 1
        return item

    def comparison(self):
        """A comparison or a function; inside parentheses also a plain sum, which the caller must want."""
        if self.token.kind == "name" and self.is_function(self.token.text):
            return self.function("value")
        if self.token.kind == "op":
            return self.compare(Metric("value"))
        left = self.sum()
        if self.token.kind == "op":
            return self.compare(self.number(left))
        if isinstance(left, Metric) and self.token.kind == "name":
            if self.is_function(self.token.text):
                return self.function(left.metric)
            if self.token.text not in KEYWORDS:
                self.fail_function()
        return left

    def compare(self, left: Sum) -> Comparison:
        operator = self.take().text
        return Comparison(operator, left, self.number(self.sum()))

    def sum(self):
        left = self.product()
        while self.token.kind == "arithmetic" and self.at("+", "-"):
            operator = self.take().text
            left = Arithmetic(operator, self.number(left), self.number(self.product()))
        if self.token.kind == "number" and self.token.text[0] in "+-":
            raise DiagnosticsError(f"operators need blanks on both sides: ' {self.token.text[0]} '", self.token.column)
        return left

    def product(self):
        left = self.operand()
        while self.token.kind == "arithmetic" and self.at("*", "/"):
            operator = self.take().text
            left = Arithmetic(operator, self.number(left), self.number(self.operand()))
        return left

    def operand(self):
        token = self.token
        if token.kind == "number":
            return Number(self.finite(self.take()))
        if token.kind == "quoted":
            return self.metric()
        if self.at("("):
            self.nest()
            self.take()
            inner = self.or_test()
            self.expect(")")
            self.depth -= 1
            return inner
        if token.kind != "name" or token.text in KEYWORDS:
            self.fail("expected a number, a metric or '('")
        if self.peek() == "(":
            return self.call()
        return self.config() if token.text.startswith("config.") else self.metric()

    def call(self):
        token = self.token
        if token.text in MATH:
            self.nest()
            self.position += 2
            argument = self.number(self.sum())
            self.expect(")")
            self.depth -= 1
            return Math(token.text, argument)
        if token.text not in STATISTICS:
            self.fail_function()
        self.position += 2
        metric = self.metric().metric
        n = None
        if token.text not in WINDOWLESS and self.accept(","):
            n = self.count("points", SHORTEST.get(token.text, 1))
        self.expect(")")
        return Statistic(token.text, metric, n)

    def config(self) -> Config:
        name = self.token.text.removeprefix("config.")
        if not name.isidentifier():
            self.fail("expected the name of a training argument such as 'config.beta'")
        self.take()
        self.configs[name] = None
        return Config(name)

    def metric(self) -> Metric:
        kind, name = self.token.kind, self.token.text
        if kind != "quoted" and (kind != "name" or name in KEYWORDS or name.startswith("config.")):
            self.fail("expected a metric")
        self.take()
        if name != "value":
            self.metrics[name] = None
        return Metric(name)

    def is_function(self, name: str) -> bool:
        return name in PLAIN or (name in CALLED and self.peek() == "(")

    def peek(self) -> str:
        following = self.tokens[self.position + 1 : self.position + 2]
        return following[0].text if following and following[0].kind == "mark" else ""

    def function(self, metric: str) -> Function:
        name = self.take().text
        if name in PLAIN:
            return Function(name, metric)
        self.expect("(")
        function = self.arguments(name, metric)
        self.expect(")")
        return function

    def arguments(self, name: str, metric: str) -> Function:
        if name == "trend":
            return self.trend_arguments(metric)
        token = self.token
        numbers = [self.literal()]
        if name in ("range", "outside"):
            self.expect(",")
            numbers.append(self.literal())
            if numbers[0] > numbers[1]:
                raise DiagnosticsError(f"{name}: lower bound {numbers[0]:g} is above {numbers[1]:g}", token.column)
            return Function(name, metric, tuple(numbers))
        percent = name in ("drop", "rise", "plateau") and self.accept("%")
        if name == "spike":
            self.accept("x")
        self.positive(name, numbers[0], token, or_zero=name == "plateau")
        return Function(name, metric, tuple(numbers), percent)

    def trend_arguments(self, metric: str) -> Function:
        if not self.at("up", "down"):
            self.fail("trend: expected 'up' or 'down'")
        direction = self.take().text
        if not self.accept(","):
            return Function("trend", metric, direction=direction)
        token = self.token
        size = self.literal()
        self.positive("trend", size, token, or_zero=True)
        return Function("trend", metric, (size,), self.accept("%"), direction)

    def positive(self, name: str, number: float, token: Token, or_zero: bool) -> None:
        if number < 0 or (number == 0 and not or_zero):
            raise DiagnosticsError(f"{name}: expected a positive number{' or 0' if or_zero else ''}", token.column)

    def literal(self) -> float:
        if self.token.kind != "number":
            self.fail("expected a number")
        return self.finite(self.take())

    def finite(self, token: Token) -> float:
        value = float(token.text)
        if not math.isfinite(value):
            raise DiagnosticsError(f"number {token.text} is too large", token.column)
        return value

    def count(self, of_what: str, least: int = 1) -> int:
        token = self.token
        if token.kind != "number" or not token.text.isdigit() or int(token.text) < least:
            self.fail(f"expected a whole number of {of_what}, {least} or more")
        if int(token.text) > MAX_POINTS:
            raise DiagnosticsError(f"more than {MAX_POINTS} {of_what}", token.column)
        return int(self.take().text)

    def nest(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise DiagnosticsError(f"more than {MAX_DEPTH} levels of parentheses", self.token.column)

    def number(self, node) -> Sum:
        if isinstance(node, Test):
            self.fail("expected a number, not a condition, before this point")
        return node

    def test(self, node) -> Test:
        if not isinstance(node, Test):
            self.fail("expected a comparison such as '> 0.5' or a function such as 'drop(50%)'")
        return node

    def fail_function(self):
        token = self.token
        if token.text in (*CALLED, *STATISTICS):
            example = {"trend": "trend(up)", "range": "range(0, 1)", "outside": "outside(0, 1)"}
            usual = f"{token.text}(loss)" if token.text in STATISTICS else f"{token.text}(3)"
            raise DiagnosticsError(
                f"'{token.text}' needs parentheses, for example {example.get(token.text, usual)}", token.column
            )
        close = difflib.get_close_matches(token.text, [*CALLED, *PLAIN, *STATISTICS, *MATH], 1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; use {', '.join([*CALLED, *PLAIN])}"
        raise DiagnosticsError(f"unknown function '{token.text}'{hint}", token.column)


def parse_condition(text: str) -> Condition:
    """
    Parse a condition.

    Args:
        text (`str`):
            Condition as in a rule file, for example `"< 0.5 for 10 steps"`.

    Returns:
        `Condition`: the tree with the names it uses.

    Raises:
        `DiagnosticsError`: with the problem, a hint and the column.
    """
    return Parser(text).condition()


def parse_sum(text: str) -> tuple[Sum, tuple[str, ...]]:
    """Parse an arithmetic expression (a derived metric's formula); returns the tree and the metrics it names."""
    parser = Parser(text)
    node = parser.number(parser.sum())
    if parser.token.kind != "end":
        parser.fail("expected '+', '-', '*', '/' or the end")
    return node, tuple(parser.metrics)
