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

"""The generated page of the rules is up to date and complete, and the page of what is not there names no rule."""

import json
import re

import generate_rule_pages as pages
import pytest
import yaml

from trl_diagnostics.engine.rule import load_rules
from trl_diagnostics.engine.rulebook import BUILTIN


RULES = load_rules(BUILTIN)
DOCS = pages.DOCS
RULE = """\
name: {name}
description: Wrong | very
trainers: [dpo, kto]
metric: rewards/margins
condition: "{condition}"
severity: high
message: "Wrong."
reference: [https://huggingface.co/papers/2305.18290, https://github.com/huggingface/trl/issues/1356]
min_steps: 5
status: experimental
when: {{beta: "> 0"}}
unless: [other]
why: |
  Two
  lines.
fix: Lower `beta`.
false_positives: New data.
renamed_from: old_name
"""


def read(tmp_path, **files):
    for name, condition in files.items():
        (tmp_path / f"{name}.yaml").write_text(RULE.format(name=name, condition=condition))
    return load_rules(tmp_path)


@pytest.mark.parametrize("file", pages.outputs(), ids=lambda file: file.name)
def test_is_up_to_date(file):
    assert file.read_text(encoding="utf-8") == pages.outputs()[file], "run `make docs`"


def test_an_entry(tmp_path):
    (rule,) = read(
        tmp_path, wrong="< 0 and (loss > 1 or not kl < 2) and rewards/chosen < rewards/rejected for 2 steps"
    )
    assert (
        pages.entry(rule)
        == """\
### wrong

Wrong | very

**Severity**: high, *experimental*. **Trainers**: dpo, kto. **Metric**: `rewards/margins`. Only where beta > 0.

**Speaks when** this holds, not before log 5, with a window of 1:

```text
< 0
and (loss > 1 or not kl < 2)
and rewards/chosen < rewards/rejected
for 2 steps
```

**Why**: Two lines.

**Fix**: Lower `beta`.

**Wrong when**: New data.

**Silent while** one of these fires: [`other`](#other)

**Earlier names**: `old_name`

**References**: [huggingface.co/papers/2305.18290](https://huggingface.co/papers/2305.18290), \
[huggingface/trl/issues/1356](https://github.com/huggingface/trl/issues/1356)
"""
    )


def test_a_family(tmp_path):
    (rule,) = read(tmp_path, wrong="< 0")
    lines = pages.family("my_family", [rule]).splitlines()
    assert lines[:7] == [
        "## my_family",
        "",
        "1 rule. Trainers, and how many of the rules are for each: dpo (1), kto (1).",
        "",
        "| rule | severity | what it detects |",
        "|---|---|---|",
        "| [`wrong`](#wrong) | high, *experimental* | Wrong \\| very |",
    ]


def test_each_rule_is_on_the_page_once():
    headings = re.findall(r"^### (\w+)$", pages.page(RULES), re.MULTILINE)
    assert sorted(headings) == sorted(rule.name for rule in RULES)


def test_no_paragraph_holds_what_the_documentation_builder_takes_for_a_tag():
    text = re.sub(r"<!--.*?-->|```.*?```|`[^`\n]*`", "", pages.page(RULES), flags=re.DOTALL)
    assert re.findall(r"<[a-zA-Z/][^ ]*", text) == []


def test_check_names_what_is_out_of_date(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    monkeypatch.setattr(pages, "outputs", lambda: {tmp_path / "docs" / "rules.md": "new", tmp_path / "same": "same"})
    (tmp_path / "same").write_text("same")
    monkeypatch.setattr("sys.argv", ["generate_rule_pages.py", "--check"])
    assert pages.main() == 1
    assert capsys.readouterr().out == "docs/rules.md is not what the rules say; run `make docs`\n"
    monkeypatch.setattr("sys.argv", ["generate_rule_pages.py"])
    assert pages.main() == 0 and (tmp_path / "docs" / "rules.md").read_text() == "new"
    monkeypatch.setattr("sys.argv", ["generate_rule_pages.py", "--check"])
    assert pages.main() == 0


def test_numbers_in_the_package_are_of_rules():
    assert set(json.loads((BUILTIN / "accuracy.json").read_text())) <= {rule.name for rule in RULES}


def test_what_is_not_there_is_not_there():
    text = (DOCS / "rules_not_shipped.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    shipped = {name for rule in RULES for name in (rule.name, *rule.renamed_from)}
    assert sorted(set(named) & shipped) == []
    assert len(named) == len(set(named))


def test_pages_of_the_table_of_contents_exist():
    sections = [item for part in yaml.safe_load((DOCS / "_toctree.yml").read_text()) for item in part["sections"]]
    assert [item["local"] for item in sections if not (DOCS / f"{item['local']}.md").is_file()] == []


def test_rules_that_take_the_place_of_a_dropped_one_exist():
    text = (DOCS / "rules_not_shipped.md").read_text(encoding="utf-8")
    reasons = re.findall(r"^\| `\w+` \|[^|]*\|(.*)\|$", text, re.MULTILINE)
    named = {name for reason in reasons for name in re.findall(r"`(\w+)`", reason)}
    assert named and named <= {rule.name for rule in RULES}


def test_the_page_of_the_probes_has_each_metric_with_the_rules_that_judge_it():
    text = (DOCS / "probes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|`]* \| [^|`]* \| (`[^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    named = [re.findall(r"`([^`]+)`", metrics) for metrics, _ in rows]
    names = yaml.safe_load((BUILTIN.parent / "metrics" / "names.yaml").read_text())["names"]
    measured = {name.replace("{", "<").replace("}", ">") for name in names if names[name].get("source") == "probes"}
    assert {metric for row in named for metric in row} == measured
    for metrics, (_, judges) in zip(named, rows, strict=True):
        judging = {
            rule.name for rule in RULES if rule.metric.split("/*")[0] in {metric.split("/<")[0] for metric in metrics}
        }
        assert set(re.findall(r"`(\w+)`", judges)) == judging
