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

"""TRL releases (wheels) go in, `trl_diagnostics/metrics/maps/*.json` come out; `--check` compares them with a TRL."""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from map_check import check, release_at  # noqa: E402
from trl_source import Release, Trainer  # noqa: E402

from trl_diagnostics.metrics.catalogue import canonical_name, parse_version  # noqa: E402


MAPS = ROOT / "trl_diagnostics" / "metrics" / "maps"
INDEX = ROOT / "trl_diagnostics" / "metrics" / "index.json"
ABSENT = object()


def history(releases: Iterable[Release]) -> tuple[list[str], dict[str, list[Trainer | None]]]:
    """The versions, oldest first, and each trainer release by release (`None` where it does not exist)."""
    versions: list[str] = []
    timeline: dict[str, list[Trainer | None]] = {}
    for release in releases:
        found = release.trainers()
        for name in found:
            timeline.setdefault(name, [None] * len(versions))
        versions.append(release.version)
        for name, series in timeline.items():
            series.append(found.get(name))
    return versions, timeline


def ranges(versions: list[str], present: list[bool]) -> list[list[str | None]]:
    """Runs of releases that have a thing, as `[since, until]`; `until` is `None` while the newest release has it."""
    spans, start = [], None
    for position, here in enumerate([*present, False]):
        if here and start is None:
            start = position
        elif not here and start is not None:
            spans.append([versions[start], None if position == len(versions) else versions[position - 1]])
            start = None
    return spans


def span_fields(spans: list[list[str | None]]) -> dict[str, object]:
    fields: dict[str, object] = {"since": spans[0][0], "until": spans[-1][1]}
    return fields | ({"ranges": spans} if len(spans) > 1 else {})


def changes(versions: list[str], values: list[object]) -> list[list[object]]:
    """A series of values as `[[since, value], ...]`; `[since]` alone says that the thing is gone."""
    found: list[list[object]] = []
    last = ABSENT
    for version, value in zip(versions, values, strict=True):
        if value is not last and (value is ABSENT or last is ABSENT or repr(value) != repr(last)):
            found.append([version] if value is ABSENT else [version, value])
        last = value
    return found


def union(lists: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(item for items in lists for item in items))


def trainer_map(name: str, versions: list[str], series: list[Trainer | None]) -> dict[str, object]:
    """The map of one trainer."""
    known = [trainer for trainer in series if trainer is not None]
    keys = []
    for identity in sorted({identity for trainer in known for identity in trainer.keys}):
        holders = [trainer.keys[identity] for trainer in known if identity in trainer.keys]
        spans = ranges(versions, [trainer is not None and identity in trainer.keys for trainer in series])
        entry = {"key": identity[0]} | span_fields(spans) | {"when": holders[-1].when}
        entry |= {"tracker": True} if identity[1] else {}
        entry |= {"user": True} if holders[-1].user else {}
        keys.append(entry | {"canonical": canonical_name(name, identity[0], spans[-1][1] or versions[-1])})
    fields = sorted({field for trainer in known for field in trainer.defaults})
    return {
        "trainer": name,
        "class": known[-1].class_names[0],
        "configs": union(trainer.configs for trainer in reversed(known)),
        "bases": known[-1].bases,
        **span_fields(ranges(versions, [trainer is not None for trainer in series])),
        "loop": changes(versions, [ABSENT if trainer is None else trainer.loop for trainer in series]),
        "keys": keys,
        "defaults": {
            field: changes(versions, [ABSENT if t is None else t.defaults.get(field, ABSENT) for t in series])
            for field in fields
        },
    }


def dump(data: dict[str, object]) -> str:
    """JSON with one line per key and per option, so that a new release shows as a small diff."""
    lines = []
    for name, value in data.items():
        if isinstance(value, list) and name == "keys":
            rows = ",\n".join("    " + json.dumps(row) for row in value)
            lines.append(f'  "{name}": [\n{rows}\n  ]' if rows else f'  "{name}": []')
        elif isinstance(value, dict):
            rows = ",\n".join(f"    {json.dumps(key)}: {json.dumps(row)}" for key, row in value.items())
            lines.append(f'  "{name}": {{\n{rows}\n  }}' if rows else f'  "{name}": {{}}')
        else:
            lines.append(f'  "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(lines) + "\n}\n"


def write(versions: list[str], timeline: dict[str, list[Trainer | None]]) -> None:
    MAPS.mkdir(parents=True, exist_ok=True)
    for stale in MAPS.glob("*.json"):
        stale.unlink()
    index = {}
    for name, series in sorted(timeline.items()):
        data = trainer_map(name, versions, series)
        (MAPS / f"{name}.json").write_text(dump(data))
        index[name] = {field: data[field] for field in ("class", "configs", "since", "until")}
    INDEX.write_text(dump({"releases": versions, "trainers": index}))


def restamp() -> None:
    """Write the canonical names of names.yaml into the maps again; no TRL is needed."""
    last = json.loads(INDEX.read_text())["releases"][-1]
    for path in sorted(MAPS.glob("*.json")):
        data = json.loads(path.read_text())
        for entry in data["keys"]:
            entry["canonical"] = canonical_name(data["trainer"], entry["key"], entry["until"] or last)
        path.write_text(dump(data))


def fetch(versions: list[str], folder: Path) -> None:
    for version in versions:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"]
        subprocess.run([*command, "--dest", str(folder), f"trl=={version}"], check=True)


def wheels(folder: Path) -> list[Path]:
    """Wheels of TRL in a folder, oldest release first."""
    return sorted(folder.glob("trl-*.whl"), key=lambda path: parse_version(path.name.split("-")[1]))


def installed_source() -> Path:
    """Folder of the installed TRL, which is not imported."""
    spec = find_spec("trl")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("TRL is not installed; name a source tree with --source")
    return Path(spec.submodule_search_locations[0])


def source_release(source: Path | None) -> Release:
    """The release to check: a wheel, a folder with the package (`.../trl`) or one that holds it, else the installed."""
    if source is None:
        return Release.from_folder(installed_source(), installed_version("trl"))
    if not source.exists():
        raise SystemExit(f"{source}: no such file or folder")
    if source.suffix == ".whl":
        return Release.from_wheel(source)
    folder = source / "trl" if (source / "trl").is_dir() else source
    return Release.from_folder(folder, stated_version(folder))


def stated_version(folder: Path) -> str:
    """What a tree says of its release: a VERSION file, or the metadata that pip puts beside it; else the installed."""
    files = [path for path in (folder / "VERSION", folder.parent / "VERSION") if path.is_file()]
    if files:
        return files[0].read_text().strip()
    metadata = sorted(folder.parent.glob("trl-*.dist-info"))
    return metadata[0].name.split("-")[1].removesuffix(".dist") if metadata else installed_version("trl")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sources", nargs="*", help="a folder of TRL wheels, or releases to add to those in the maps (downloads all)"
    )
    parser.add_argument("--check", action="store_true", help="compare the committed maps with a TRL, write nothing")
    parser.add_argument("--source", type=Path, help="with --check: a TRL source tree or wheel, not the installed one")
    parser.add_argument("--rules", type=Path, default=ROOT / "trl_diagnostics" / "rules", help="rules that may break")
    parser.add_argument("--names-only", action="store_true", help="write names.yaml's names into the maps again")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    if arguments.check:
        release = source_release(arguments.source)
        problems = check(release, arguments.rules)
        for problem in problems:
            print(problem)
        at = release_at(release.version)
        note = "" if at == release.version else f" (compared as {at}, the nearest release in the maps)"
        print(f"TRL {release.version}{note}: {len(problems)} differences with the committed maps")
        return 1 if problems else 0
    if arguments.names_only:
        restamp()
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.sources[0]) if arguments.sources else Path(temporary)
        if not folder.is_dir():  # the maps are a history, so the releases they cover are read again too
            folder = Path(temporary)
            fetch([*json.loads(INDEX.read_text())["releases"], *arguments.sources], folder)
        if not wheels(folder):
            raise SystemExit("name a folder of TRL wheels, or releases to add")
        write(*history(Release.from_wheel(path) for path in wheels(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
