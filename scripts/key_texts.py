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

"""A Python expression and what the code around it says go in, the texts it can be and the options it reads come out."""

import ast
import itertools
import re


# Attributes of self that say where code runs, not how it was configured.
NOT_OPTIONS = {"accelerator", "state", "model", "control", "processing_class", "is_world_process_zero", "args"}
HOLE = re.compile(r"\{\w+\}")
STRING_METHODS = ("lower", "upper", "replace", "strip")


def last_name(node: ast.AST | None) -> str:
    """Last identifier of `a.b.c`, `c`, `x["c"]` or `c[mode]`; empty when there is none."""
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Subscript):
        if isinstance(node.slice, ast.Constant):
            return node.slice.value if isinstance(node.slice.value, str) else ""
        return last_name(node.value)
    return ""


def variables(node: ast.AST) -> set[str]:
    """Names that an expression reads or binds."""
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}


def is_super(node: ast.AST) -> bool:
    """`super()` or `super(Class, self)`."""
    return isinstance(node, ast.Call) and last_name(node.func) == "super"


def has_super_call(function: ast.AST, name: str) -> bool:
    """Whether the function calls `super().<name>(...)`."""
    return any(
        isinstance(node, ast.Attribute) and node.attr == name and is_super(node.value) for node in ast.walk(function)
    )


def option_texts(test: ast.AST, switches: dict[str, str]) -> list[str]:
    """
    The parts of a test that read an option, without `self.`.

    Args:
        test (`ast.AST`):
            Test of an `if`; the parts of an `and` are told apart.
        switches (`dict[str, str]`):
            Private attributes that stand for options, see [`Scope`].

    Returns:
        `list[str]`: such as `["use_vllm", "beta != 0.0"]`.
    """
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
        return [text for value in test.values for text in option_texts(value, switches)]
    names = {node.attr for node in ast.walk(test) if isinstance(node, ast.Attribute) and _is_owner(node.value)}
    private = {name for name in names if name.startswith("_")}
    text = re.sub(r"\b(self\.args|self|args)\.", "", ast.unparse(test))
    if private and private <= set(switches):
        return [switches[text]] if text in switches else []
    # A subscript or a counter (`self._step % n`) tells a moment of the run, not an option.
    moment = private or "state" in names or any(isinstance(node, ast.Subscript) for node in ast.walk(test))
    return [text] if names - NOT_OPTIONS and not moment else []


def _is_owner(node: ast.AST) -> bool:
    """`self`, `args` or `self.args`."""
    if isinstance(node, ast.Attribute):
        return node.attr == "args" and last_name(node.value) == "self"
    return isinstance(node, ast.Name) and node.id in ("self", "args")


class Scope:
    """
    What the functions of one class share.

    Args:
        constants (`dict[str, str]`):
            String attributes of the class, for keys such as `f"{self._name}/loss"`.
        functions (`list[ast.AST]`):
            Its methods.
    """

    def __init__(self, constants: dict[str, str], functions: list[ast.AST]):
        self.constants = constants
        nodes = list(itertools.chain.from_iterable(ast.walk(function) for function in functions))
        self.calls = [node for node in nodes if isinstance(node, ast.Call)]
        # A dict spread into the arguments of a call (`f(**metrics)`) carries arguments, not metrics.
        self.arguments = {keyword.value.id for call in self.calls for keyword in call.keywords if _is_spread(keyword)}
        # `self._bonus = args.coef != 0`: a private switch is told by the option behind it.
        self.switches: dict[str, str] = {}
        for node in nodes:
            if isinstance(node, ast.Assign) and is_private_attribute(node.targets[0]):
                texts = option_texts(node.value, {})
                if texts and not isinstance(node.value, ast.Call | ast.Attribute):
                    self.switches[last_name(node.targets[0])] = " and ".join(texts)


def is_private_attribute(node: ast.AST) -> bool:
    """`self._name`."""
    return isinstance(node, ast.Attribute) and last_name(node.value) == "self" and node.attr.startswith("_")


def _is_spread(keyword: ast.keyword) -> bool:
    return keyword.arg is None and isinstance(keyword.value, ast.Name)


class Texts:
    """
    The texts that the names of one function can hold, statement by statement.

    Args:
        function (`ast.AST`):
            The function.
        scope (`Scope`):
            What it shares with the other functions of its class.
    """

    def __init__(self, function: ast.AST, scope: Scope):
        self.function = function
        self.scope = scope
        self.known: dict[str, list[str]] = {}
        # Loop variable -> container whose keys it runs through.
        self.copied: dict[str, str] = {}
        self.parameters = [argument.arg for argument in function.args.args + function.args.kwonlyargs]

    def assign(self, name: str, value: ast.AST, in_branch: bool) -> None:
        unknown = f"{{{name}}}"
        before = self.known.get(name, []) if in_branch else []
        texts = list(dict.fromkeys(before + (self.of(value) or [unknown])))
        # Once a name can be anything, its other texts add nothing.
        self.known[name] = [unknown] if unknown in texts else texts

    def bind_loop(self, target: ast.AST, iterable: ast.AST) -> list[str]:
        """Take in `for <target> in <iterable>`; returns the names it binds."""
        names = [item.id for item in ast.walk(target) if isinstance(item, ast.Name)]
        for name in names:
            self.known.pop(name, None)
            self.copied.pop(name, None)
        if isinstance(iterable, ast.List | ast.Tuple) and len(names) == 1:
            values = [self.of(item) for item in iterable.elts]
            if None not in values:
                self.known[names[0]] = list(itertools.chain.from_iterable(values))
        elif isinstance(iterable, ast.Call) and last_name(iterable.func) == "items" and names:
            self.copied[names[0]] = last_name(iterable.func.value)
        return names

    def of(self, node: ast.AST | None) -> list[str] | None:
        """All texts that an expression can be, unknown parts as `{name}`; `None` when it is no text."""
        if isinstance(node, ast.Constant):
            return [node.value] if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return ["".join(parts) for parts in itertools.product(*(self._part(value) for value in node.values))]
        if isinstance(node, ast.Name):
            return self.known.get(node.id) or self._passed(node.id) or [f"{{{node.id}}}"]
        if isinstance(node, ast.IfExp):
            body, orelse = self.of(node.body), self.of(node.orelse)
            return None if body is None or orelse is None else body + orelse
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self.of(node.left), self.of(node.right)
            return None if left is None or right is None else [a + b for a in left for b in right]
        if isinstance(node, ast.Attribute) and last_name(node.value) == "self" and node.attr in self.scope.constants:
            return [self.scope.constants[node.attr]]
        return self._called(node) if isinstance(node, ast.Call) else None

    def _part(self, node: ast.AST) -> list[str]:
        if isinstance(node, ast.Constant):
            return [node.value]
        return self.of(node.value) or [f"{{{last_name(node.value) or 'value'}}}"]

    def _passed(self, parameter: str) -> list[str]:
        """Literal texts that callers hand to this helper: `def _log(self, key, value)` and `self._log("kl", x)`."""
        if parameter not in self.parameters:
            return []
        position = self.parameters.index(parameter) - (self.parameters[0] == "self")
        texts = []
        for call in self.scope.calls:
            if last_name(call.func) == self.function.name:
                given = {keyword.arg: keyword.value for keyword in call.keywords} | dict(enumerate(call.args))
                value = given.get(parameter, given.get(position))
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    texts.append(value.value)
        return texts

    def _called(self, node: ast.Call) -> list[str] | None:
        if last_name(node.func) == "getattr" and isinstance(node.args[1], ast.Constant):
            value = self.scope.constants.get(node.args[1].value)
            return None if value is None else [value]
        if not isinstance(node.func, ast.Attribute) or node.func.attr not in STRING_METHODS:
            return None
        texts = self.of(node.func.value)
        arguments = [item.value for item in node.args if isinstance(item, ast.Constant)]
        if texts is None or len(arguments) != len(node.args):
            return None
        return [text if HOLE.search(text) else getattr(text, node.func.attr)(*arguments) for text in texts]
