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

"""The built-in rules go in, docs/source/rules.md comes out; `--check` says whether what is committed is up to date."""

import argparse
import sys
from collections import Counter
from pathlib import Path


ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trl_diagnostics.engine.finding import Severity  # noqa: E402
from trl_diagnostics.engine.rule import Rule, load_rules  # noqa: E402
from trl_diagnostics.engine.rulebook import BUILTIN  # noqa: E402
from trl_diagnostics.explain import MEANINGS, SAMPLES, clauses, when_in_words  # noqa: E402


DOCS = ROOT / "docs" / "source"
INTRO = """\
<!-- Written by `make docs` from the files in trl_diagnostics/rules. Do not edit. -->

# Rules

{count} rules come with the package: {severities}.

Each is one YAML file in `trl_diagnostics/rules`, with its tests inside; the README in that folder explains the fields and
the condition language. `trl-diagnostics explain NAME` prints what is on this page in the terminal. How often the rules
are right is measured in [Accuracy](accuracy).

| severity | meaning |
|---|---|
| critical | the weights or the run are already worthless |
| high | the run is probably wasted, look now |
| medium | the result will suffer |
| low | worth knowing |
| info | something odd-looking that is normal here; said in one sentence in the summary at the end, never before |

Rules marked *experimental* never stop a run and never set an exit code. A *log* is one logged point of a metric: with
`logging_steps=10` it is ten optimizer steps. Problems that no rule covers, and why, are listed in
[Rules that are not there](rules_not_shipped).

In a condition,

- `value`, or no name at all: the rule's own metric
- a metric without a function: the mean of its last logs, as many as the window has
- `for n steps`: at n logs in a row; `for n of m steps`: at n of the last m
{meanings}
"""


def page(rules: list[Rule]) -> str:
    """The whole page."""
    families: dict[str, list[Rule]] = {}
    for rule in rules:
        families.setdefault(rule.document.path.relative_to(BUILTIN).parts[0], []).append(rule)
    order = sorted(families, key=lambda name: (name != "common", name))
    count = Counter(rule.severity for rule in rules)
    severities = ", ".join(f"{count[severity]} {severity}" for severity in reversed(Severity) if count[severity])
    lines = [f"- `{name}`: {text}" for name, text in (line.split(": ", 1) for line in [*MEANINGS.values(), SAMPLES])]
    parts = [INTRO.format(count=len(rules), severities=severities, meanings="\n".join(lines))]
    parts += [family(name, sorted(families[name], key=lambda rule: (-rule.severity, rule.name))) for name in order]
    return "\n".join(parts)


def family(name: str, rules: list[Rule]) -> str:
    """A section: a folder's trainers, a table of its rules, then each of them."""
    count = Counter(trainer for rule in rules for trainer in rule.trainers)
    trainers = ", ".join(f"{trainer} ({n})" for trainer, n in sorted(count.items(), key=lambda item: (-item[1], item)))
    opening = (
        f"{len(rules)} rule{'s' * (len(rules) != 1)}. Trainers, and how many of the rules are for each: {trainers}."
    )
    table = ["| rule | severity | what it detects |", "|---|---|---|"]
    table += [f"| [`{rule.name}`](#{rule.name}) | {_severity(rule)} | {_cell(rule.description)} |" for rule in rules]
    return "\n".join([f"## {name}\n", f"{opening}\n", *table, "", *map(entry, rules)])


def _severity(rule: Rule) -> str:
    return f"{rule.severity}" if rule.status == "stable" else f"{rule.severity}, *{rule.status}*"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def entry(rule: Rule) -> str:
    """Everything about one rule."""
    unless = ", ".join(f"[`{name}`](#{name})" for name in rule.unless)
    when = f" Only where {when_in_words(rule.when)}." if rule.when else ""
    parts = [
        f"### {rule.name}",
        rule.description,
        f"**Severity**: {_severity(rule)}. **Trainers**: {', '.join(rule.trainers)}. **Metric**: `{rule.metric}`.{when}",
        _condition(rule),
        f"**Why**: {_line(rule.why)}" if rule.why else "",
        f"**Fix**: {_line(rule.fix)}" if rule.fix else "",
        f"**Wrong when**: {_line(' '.join(rule.false_positives))}" if rule.false_positives else "",
        f"**Silent while** one of these fires: {unless}" if unless else "",
        f"**Earlier names**: {', '.join(f'`{name}`' for name in rule.renamed_from)}" if rule.renamed_from else "",
        f"**References**: {', '.join(map(_link, rule.reference))}" if rule.reference else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())


def _link(url: str) -> str:
    """The documentation builder takes `<https://...>` for a tag."""
    return f"[{url.removeprefix('https://').removeprefix('github.com/')}]({url})"


def _condition(rule: Rule) -> str:
    since = f"not before log {rule.min_steps}" if rule.min_steps > 1 else "from the first log on"
    code = "\n".join(clauses(rule))
    return f"**Speaks when** this holds, {since}, with a window of {rule.window}:\n\n```text\n{code}\n```"


def outputs() -> dict[Path, str]:
    """What is generated, file by file."""
    return {DOCS / "rules.md": page(load_rules(BUILTIN))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if something is out of date")
    check, stale = parser.parse_args().check, 0
    for file, text in outputs().items():
        if not check:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            print(f"{file.relative_to(ROOT)} is not what the rules say; run `make docs`")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
