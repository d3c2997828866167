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

"""One TRL release as source text goes in (a wheel or a folder, never imported), its trainers with keys and defaults come out."""

import ast
import re
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from key_events import KeyScan
from key_texts import has_super_call, last_name


# PPOv2Trainer (0.9 to 0.12) is the rewrite that took over the name PPOTrainer in 0.12: one algorithm, one history.
RENAMED = {"ppov2": "ppo"}
# Abstract classes, which nobody trains with.
ABSTRACT = re.compile(r"^_|^Base")
LITERAL = (bool, int, float, str, type(None))


@dataclass(frozen=True, eq=False)
class Module:
    """One file of the package: `name` is dotted (`trl.trainer.sft_trainer`)."""

    name: str
    is_package: bool
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def classes(self) -> dict[str, ast.ClassDef]:
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}

    @cached_property
    def functions(self) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in self.tree.body if isinstance(node, ast.FunctionDef)}

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """Local name -> (module, name there). Imports under `if` and `try` count: TRL's packages load lazily."""
        parts = self.name.split(".")
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                base = parts[: len(parts) - node.level + self.is_package] if node.level else []
                origin = ".".join(base + ([node.module] if node.module else []))
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, (origin, alias.name))
        return found

    @property
    def folder(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Definition:
    """A class and the module that defines it."""

    module: Module
    node: ast.ClassDef

    @property
    def methods(self) -> dict[str, ast.AST]:
        return {n.name: n for n in self.node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}


@dataclass
class Key:
    """A logged key or pattern (`{hole}`): `when` is the option it needs, `tracker` that on_log never sees it."""

    key: str
    when: str | None = None
    tracker: bool = False
    user: bool = False


@dataclass
class Trainer:
    """What one release says about one trainer."""

    name: str
    class_names: list[str] = field(default_factory=list)
    configs: list[str] = field(default_factory=list)
    bases: list[str] = field(default_factory=list)
    loop: str = "transformers"
    keys: dict[tuple[str, bool], Key] = field(default_factory=dict)
    defaults: dict[str, object] = field(default_factory=dict)


def trainer_name(class_name: str) -> str:
    """`OnlineDPOTrainer` -> `onlinedpo`."""
    name = class_name.removesuffix("Trainer").lower()
    return RENAMED.get(name, name)


class Release:
    """
    One TRL release.

    Args:
        version (`str`):
            Version of the release.
        files (`dict[str, str]`):
            Path inside the package (`trl/trainer/sft_trainer.py`) -> source text.
    """

    def __init__(self, version: str, files: dict[str, str]):
        self.version = version
        self.modules: dict[str, Module] = {}
        for path, text in files.items():
            is_package = path.endswith("__init__.py")
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            self.modules[name] = Module(name, is_package, text)

    @classmethod
    def from_wheel(cls, path: Path) -> "Release":
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.startswith("trl/") and name.endswith(".py")]
            return cls(path.name.split("-")[1], {name: archive.read(name).decode() for name in names})

    @classmethod
    def from_folder(cls, folder: Path, version: str) -> "Release":
        files = {f"trl/{path.relative_to(folder).as_posix()}": path.read_text() for path in folder.rglob("*.py")}
        return cls(version, files)

    def find_class(self, module: Module, name: str) -> Definition | None:
        """The class that `name` means in `module`, followed through imports; `None` when it is not TRL's."""
        seen = set()
        while (module.name, name) not in seen:
            seen.add((module.name, name))
            if name in module.classes:
                return Definition(module, module.classes[name])
            origin, name = module.imports.get(name, ("", name))
            if origin not in self.modules:
                return None
            module = self.modules[origin]
        return None

    def bases_of(self, definition: Definition) -> list[Definition | str]:
        """Direct bases, TRL's as definitions and others by name."""
        bases = []
        for node in definition.node.bases:
            name = node.id if isinstance(node, ast.Name) else ast.unparse(node).rpartition(".")[2]
            found = self.find_class(definition.module, name)
            bases.append(name if found is None or found.node is definition.node else found)
        return bases

    def lineage(self, definition: Definition) -> list[Definition]:
        """The class and its bases inside TRL, nearest first (depth first: TRL has no diamonds)."""
        chain = [definition]
        for base in self.bases_of(definition):
            if isinstance(base, Definition):
                chain += [item for item in self.lineage(base) if all(item.node is not seen.node for seen in chain)]
        return chain

    def trainers(self) -> dict[str, Trainer]:
        """All trainers of the release by name; classes of one name (stable, experimental variant) are merged."""
        found: dict[str, Trainer] = {}
        for definition in self._trainer_classes():
            name = trainer_name(definition.node.name)
            self._add(found.setdefault(name, Trainer(name)), definition)
        return dict(sorted(found.items()))

    def _trainer_classes(self) -> list[Definition]:
        classes = []
        # Stable modules sort after experimental ones; they come first here because the first config class wins.
        for name in sorted(self.modules, key=lambda item: (not item.startswith("trl.trainer."), item)):
            if name.startswith(("trl.trainer.", "trl.experimental.")) and "Trainer(" in self.modules[name].text:
                module = self.modules[name]
                classes += [Definition(module, node) for node in module.classes.values() if self._is_trainer(node)]
        return classes

    @staticmethod
    def _is_trainer(node: ast.ClassDef) -> bool:
        return node.name.endswith("Trainer") and bool(node.bases) and not ABSTRACT.match(node.name)

    def _add(self, trainer: Trainer, definition: Definition) -> None:
        chain = self.lineage(definition)
        loop = self._loop(chain)
        if definition.node.name not in trainer.class_names:
            trainer.class_names.append(definition.node.name)
        parents = [trainer_name(item.node.name) for item in chain[1:] if self._is_trainer(item.node)]
        trainer.bases += [name for name in parents if name != trainer.name and name not in trainer.bases]
        self._add_config(trainer, chain)
        for key in self._keys(chain, loop):
            known = trainer.keys.setdefault((key.key, key.tracker), key)
            if known is not key and (known.when is None or key.when is None):
                known.when = None
        # A class outside transformers' Trainer (PPO until 0.11) beside one inside it (PPOv2): the latter decides.
        trainer.loop = loop if len(trainer.class_names) == 1 or trainer.loop == "tracker" else trainer.loop

    def _loop(self, chain: list[Definition]) -> str:
        """Who logs: `transformers` (its own keys too), `own` (train() is overridden) or `tracker` (not a Trainer)."""
        outside = [base for item in chain for base in self.bases_of(item) if isinstance(base, str)]
        if "Trainer" not in outside:
            return "tracker"
        own = next((item.methods["train"] for item in chain if "train" in item.methods), None)
        return "transformers" if own is None or has_super_call(own, "train") else "own"

    def _keys(self, chain: list[Definition], loop: str) -> list[Key]:
        groups = [visible_methods(chain)]
        for module in {item.module.name: item.module for item in chain}.values():
            groups += self._helpers(module, chain)
        scan = KeyScan(class_constants(chain), groups)
        keys = [Key(key, when, loop == "tracker", user) for key, (when, user) in scan.keys().items()]
        return keys + [Key(f"eval_{name}") for name in self._eval_metrics(chain)]

    def _helpers(self, module: Module, chain: list[Definition]) -> list[list[ast.AST]]:
        """Code beside the trainer that writes to its log: collators, datasets, and a folder's rollout workers."""
        modules = [module]
        if module.folder.count(".") >= 2:  # trl.experimental.<trainer>: the folder belongs to the trainer
            modules = [other for other in self.modules.values() if other.folder == module.folder]
            modules = [other for other in modules if '__name__ == "__main__"' not in other.text]  # launch scripts
        mine = {item.node for item in chain}
        groups = []
        for other in modules:
            groups.append(list(other.functions.values()))
            for name, node in other.classes.items():
                if node not in mine and not name.endswith("Trainer"):
                    groups.append(list(Definition(other, node).methods.values()))
        return groups

    def _eval_metrics(self, chain: list[Definition]) -> set[str]:
        """Names that the trainer's default `compute_metrics` function returns; transformers puts `eval_` before."""
        names = set()
        for item in chain:
            for node in ast.walk(item.node) if "compute_metrics = " in item.module.text else ():
                if isinstance(node, ast.Assign) and last_name(node.targets[0]) == "compute_metrics":
                    names |= self._returned_keys(item.module, node.value)
        return names

    def _returned_keys(self, module: Module, value: ast.AST) -> set[str]:
        if not isinstance(value, ast.Name):
            return set()
        origin, name = module.imports.get(value.id, (module.name, value.id))
        function = self.modules[origin].functions.get(name) if origin in self.modules else None
        if function is None:
            return set()
        returns = [n.value for n in ast.walk(function) if isinstance(n, ast.Return) and isinstance(n.value, ast.Dict)]
        return {key.value for node in returns for key in node.keys if isinstance(key, ast.Constant)}

    def _add_config(self, trainer: Trainer, chain: list[Definition]) -> None:
        config = self._config(chain)
        if config is not None and config.node.name not in trainer.configs:
            trainer.configs.append(config.node.name)
            # The rewrite (PPOv2Config) explains today's options; the first class wins everywhere else.
            if len(trainer.configs) == 1 or config.node.name.endswith("v2Config"):
                trainer.defaults = config_defaults(self.lineage(config))

    def _config(self, chain: list[Definition]) -> Definition | None:
        """The class named like the trainer beside it, else what `args` (early on `config`) is annotated with."""
        named = chain[0].node.name.removesuffix("Trainer") + "Config"
        for module in self.modules.values():
            if module.folder == chain[0].module.folder and named in module.classes:
                return Definition(module, module.classes[named])
        for item in chain:
            init = item.methods.get("__init__")
            for argument in init.args.args + init.args.kwonlyargs if init else []:
                if argument.arg in ("args", "config") and argument.annotation is not None:
                    for name in re.findall(r"\w+", ast.unparse(argument.annotation)):
                        found = self.find_class(item.module, name) if name.endswith(("Config", "Arguments")) else None
                        if found is not None:
                            return found
        return None


def visible_methods(chain: list[Definition]) -> list[ast.AST]:
    """The methods that can run: an override hides the base's one unless it calls super(), and what only that used."""
    visible, hidden = [], []
    for position, item in enumerate(chain):
        for name, node in item.methods.items():
            overrides = [other.methods[name] for other in chain[:position] if name in other.methods]
            (visible if all(has_super_call(other, name) for other in overrides) else hidden).append(node)
    used_by_all = {id(node): _attributes(node) for node in visible + hidden}
    while True:
        alive = set().union(*(used_by_all[id(node)] for node in visible)) if visible else set()
        dead = [n for n in visible if n.name not in alive and any(n.name in used_by_all[id(h)] for h in hidden)]
        if not dead:
            return visible
        visible = [node for node in visible if node not in dead]
        hidden += dead


def _attributes(function: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}


def class_constants(chain: list[Definition]) -> dict[str, str]:
    """String attributes set in class bodies (`_name = "SDPO"`), the nearest class first."""
    constants: dict[str, str] = {}
    for item in chain:
        for node in item.node.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                if isinstance(node.targets[0], ast.Name) and isinstance(node.value.value, str):
                    constants.setdefault(node.targets[0].id, node.value.value)
    return constants


def config_defaults(chain: list[Definition]) -> dict[str, object]:
    """Dataclass fields with a literal default, a subclass over its bases."""
    defaults: dict[str, object] = {}
    for item in reversed(chain):
        for node in item.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                defaults.pop(node.target.id, None)
                found, value = literal_default(node.value)
                if found:
                    defaults[node.target.id] = value
    return defaults


def literal_default(node: ast.AST) -> tuple[bool, object]:
    """`(True, value)` for a literal number, bool, string, None or list of them; else `(False, None)`."""
    if isinstance(node, ast.Call):
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        factory = keywords.get("default_factory")
        node = keywords.get("default", factory.body if isinstance(factory, ast.Lambda) else node)
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return False, None
    items = value if isinstance(value, list) else [value]
    # Texts of more than 100 characters are prompt templates, which no rule compares.
    simple = all(isinstance(item, LITERAL) and (not isinstance(item, str) or len(item) <= 100) for item in items)
    return simple, value if simple else None
