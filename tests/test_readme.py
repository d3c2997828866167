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

"""What README.md shows is what the code says."""

import re
from pathlib import Path

import demo
import pytest

from trl_diagnostics import DiagnosticsError, Engine, MetricMap, Record, cli, collect_rules, parse_alert
from trl_diagnostics.explain import explain
from trl_diagnostics.metrics.checks import check_metric, check_rule
from trl_diagnostics.metrics.names import known_trainers
from trl_diagnostics.sinks import console


README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_warning_is_that_of_the_demo():
    metric_map = MetricMap("grpo", "1.16.0")
    engine = Engine(collect_rules(), "grpo", {"use_vllm": True, "logging_steps": 1, "max_steps": 1000}, metric_map)
    found = []
    for step in range(1, 141):
        logs = demo.grpo_logs(step, 1.0 if step <= 100 else 0.1)
        found += engine.update(Record(step, 0.0, "train", metric_map.record(logs)))
    found = [finding for finding in found if finding.severity != "info"]  # said at the end only
    assert [finding.rule for finding in found] == ["importance_sampling_ratio_low"]
    assert f"```\n{console.warning(found[0])}\n```" in README


def test_the_accuracy_is_that_of_the_page():
    page = (Path(__file__).parents[1] / "docs" / "source" / "accuracy.md").read_text(encoding="utf-8")
    said = README[README.index("## How often it is right") : README.index("## Cost")]

    def held_out(row):
        line = next(line for line in page.splitlines() if line.startswith(f"| {row}"))
        return re.search(r"([\d,]+) (?:of|in) ([\d,]+)", line).groups()

    assert "in {} of {} faulty runs".format(*held_out("a warning, or a remark")) in said
    assert "a warning in {},".format(*held_out("... strictly: a warning")) in said
    assert "names it in {} of {};".format(*held_out("the first finding that counts")) in said
    assert "{} of {} healthy runs would have been stopped".format(*held_out("healthy runs that would")) in said
    warnings, records = held_out("warnings per 1,000 healthy records")
    assert f"{records} healthy records brought {warnings} warning" in said
    delay = re.search(r"\| median delay in logs +\| +<= 10 \| +([\d.]+)", page)[1]
    assert f"in the median {delay} log{'s' * (delay != '1')} after" in " ".join(said.split())


def test_the_alerts_can_be_used():
    alerts = re.findall(r'^ +"(\w+: .*? -> \w+: .*?)",$', README, re.MULTILINE)
    assert len(alerts) == 3
    assert [check_rule(parse_alert(alert, check_metric=check_metric)) for alert in alerts] == [[], [], []]
    collect_rules(alerts, disable=re.search(r"disable=\[\"(.*?)\"\]", README).groups())


def test_the_error_is_what_a_mistake_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rules").mkdir()
    text = (
        'name: margins\ntrainers: [dpo]\nmetric: reward_margin\nseverity: low\ncondition: "dropp(50%)"\nmessage: x\n'
    )
    (tmp_path / "my_rules" / "margins.yaml").write_text(text)
    with pytest.raises(DiagnosticsError) as error:
        collect_rules(custom_heuristics_dir="my_rules")
    assert f"```\n{error.value}\n```" in README


def test_the_explained_metric_is_what_the_command_says(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    name = re.search(r"^\$ trl-diagnostics explain (.+)$", README, re.MULTILINE)[1]
    assert f"$ trl-diagnostics explain {name}\n{explain(name, collect_rules())}\n```" in README


def test_the_commands_exist():
    commands = re.findall(r"^\| `trl-diagnostics (.*?)` \|", README, re.MULTILINE)
    assert len(commands) == 13
    for command in commands:
        cli.parse(command.replace("[", "").replace("]", "").replace("'", "").split())


def test_every_local_link_leads_somewhere():
    root = Path(__file__).parents[1]
    pages = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs" / "source").glob("*.md")]
    pages.append(root / "trl_diagnostics" / "rules" / "README.md")
    lost = []
    for page in pages:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for link in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            found = [page] if not path else [page.parent / path, page.parent / f"{path}.md"]  # the docs leave .md away
            target = next((file for file in found if file.exists()), None)
            if target is None or anchor and anchor not in anchors(target):
                lost.append(f"{page.name}: {link}")
    assert sorted(set(lost)) == []


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_nearly_all_trainers_have_rules_of_their_own():
    rules = [rule for rule in collect_rules() if not {"all", "common"} & set(rule.trainers)]
    maps = [MetricMap(trainer) for trainer in known_trainers()]
    without = [one.trainer for one in maps if not any(rule.applies_to((one.trainer, *one.bases)) for rule in rules)]
    assert len(without) <= len(maps) / 6 and not {"sft", "dpo", "grpo", "bco", "prm"} & set(without)


def test_info_is_said_in_the_same_words_everywhere():
    root = Path(__file__).parents[1]
    words = "something odd-looking that is normal here; said in one sentence in the summary at the end, never before"
    for file in (
        "README.md",
        "docs/source/rules.md",
        "trl_diagnostics/rules/README.md",
        "trl_diagnostics/engine/finding.py",
    ):
        assert words in (root / file).read_text(encoding="utf-8"), file


def test_the_demo_feeds_keys_that_trl_logs():
    metric_map = MetricMap("grpo", "1.16.0")
    assert [key for key in demo.grpo_logs(1, 1.0) if not metric_map.is_logged(key)] == []
