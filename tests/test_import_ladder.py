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

"""What may import what, read from the source of the package, and what a fresh interpreter has loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import run_dir

import trl_diagnostics


PACKAGE = Path(trl_diagnostics.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"accelerate", "datasets", "matplotlib", "pandas", "peft", "torch", "transformers", "trl"}

# What the modules of a folder may import of ours besides their own folder.
ALLOWED = {
    "engine": set(),
    "metrics": {"engine"},
    "sources": {"engine", "metrics", "words"},
    "sinks": {"engine", "metrics", "sources", "words"},
    "words.py": set(),
    "agents": {"engine"},
}
ENGINE_NEEDS = {"numpy", "scipy", "yaml"}


def name_of(file):
    return file.relative_to(PACKAGE).as_posix()


def trees():
    return [(file, ast.parse(file.read_text(encoding="utf-8"))) for file in FILES]


def nodes_that_run(node):
    """All nodes but those under `if TYPE_CHECKING:`, which only name types."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING"):
            yield from nodes_that_run(child)


def relative_targets(file, tree):
    """Path of every module of ours that `file` imports, as parts from the root of the package: `("engine", "rule")`."""
    folder = file.parent.relative_to(PACKAGE).parts
    for node in nodes_that_run(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level <= len(folder) + 1, f"{name_of(file)}:{node.lineno} imports from outside the package"
            base = folder[: len(folder) - node.level + 1]
            if node.module:
                yield base + tuple(node.module.split("."))
            else:  # from . import a, b
                yield from (base + (alias.name,) for alias in node.names)


def absolute_targets(tree):
    """Top-level name of every absolute import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def test_imports_of_ours_are_relative():
    assert [name_of(file) for file, tree in trees() if "trl_diagnostics" in absolute_targets(tree)] == []


def test_imports_point_one_way():
    wrong = []
    for file, tree in trees():
        home = file.relative_to(PACKAGE).parts[0]
        for target in relative_targets(file, tree):
            if home in ALLOWED and target[0] not in ALLOWED[home] | {home}:
                wrong.append(f"{name_of(file)} imports {'.'.join(target)}")
    assert wrong == []


def test_nobody_imports_callback_or_cli():
    wrong = []
    for file, tree in trees():
        if file in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"):  # the lazy public names, `python -m`
            continue
        for target in relative_targets(file, tree):
            if target[0] in {"callback", "cli"}:
                wrong.append(f"{name_of(file)} imports {'.'.join(target)}")
    assert wrong == []


def test_engine_needs_only_numpy_scipy_and_yaml():
    foreign = {
        f"{name_of(file)} imports {target}"
        for file, tree in trees()
        if file.is_relative_to(PACKAGE / "engine")
        for target in absolute_targets(tree)
        if target not in sys.stdlib_module_names | ENGINE_NEEDS
    }
    assert foreign == set()


def test_nothing_is_evaluated():
    calls = [
        f"{name_of(file)}:{node.lineno} {node.func.id}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"eval", "exec", "compile", "__import__"}
    ]
    assert calls == []


def test_every_folder_with_python_is_a_package():
    """A folder without `__init__.py` works from a checkout and is missing from the wheel."""
    assert {name_of(file.parent) for file in FILES if not (file.parent / "__init__.py").is_file()} == set()


@pytest.mark.parametrize(
    "code",
    [
        "import trl_diagnostics",
        "import trl_diagnostics; trl_diagnostics.load_rules; trl_diagnostics.Engine; trl_diagnostics.MetricMap",
        "import runpy; sys.argv = ['trl-diagnostics', 'rules']; runpy.run_module('trl_diagnostics.cli', {}, '__main__')",
    ],
    ids=["import", "engine", "rules"],
)
def test_loads_nothing_heavy(code):
    # An exit handler writes the list, for the command line may end with SystemExit.
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {module.partition(".")[0] for module in done.stderr.splitlines()[-1].split()}
    assert "trl_diagnostics" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("command", ["diagnose", "compare", "checkpoints", "postmortem", "watch", "validate-resume"])
def test_commands_load_nothing_heavy(command, tmp_path):
    folder = str(run_dir(tmp_path).parent)
    more = {"compare": [folder], "watch": ["--once"], "validate-resume": ["--config", f"{folder}/diagnostics"]}
    arguments = ["trl-diagnostics", command, folder, *more.get(command, [])]
    code = f"import runpy; sys.argv = {arguments!r}; runpy.run_module('trl_diagnostics', {{}}, '__main__')"
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True)
    loaded = {module.partition(".")[0] for module in done.stderr.splitlines()[-1].split()}
    assert f"trl_diagnostics.commands.{command.replace('-', '_')}" in done.stderr
    assert loaded & HEAVY == set()


def test_rules_need_no_scipy():
    code = "import sys; sys.argv = ['x', 'rules']; from trl_diagnostics.cli import main; main()"
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    done = subprocess.run([sys.executable, "-c", f"{report}\n{code}"], capture_output=True, text=True)
    loaded = {module.partition(".")[0] for module in done.stderr.splitlines()[-1].split()}
    assert loaded & {"scipy", "rich", "jinja2", "psutil", *HEAVY} == set()
