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

"""What the user chose goes in (alerts, a folder of rules, rules to mute), the rules of a run come out."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from .alert import parse_alert
from .finding import DiagnosticsError
from .rule import CheckMetric, Rule, load_rules, merge_rules, select


BUILTIN = Path(__file__).parents[1] / "rules"


def collect_rules(
    custom_alerts: Iterable[str] = (),
    custom_heuristics_dir: str | Path | None = None,
    disable: Iterable[str] = (),
    check_metric: CheckMetric | None = None,
) -> list[Rule]:
    """
    Built-in rules, the user's rules and alerts, without the muted ones.

    Args:
        custom_alerts (`Iterable[str]`, *optional*):
            Inline alerts, see [`parse_alert`].
        custom_heuristics_dir (`str` or `Path`, *optional*):
            Folder of rule files. A rule with the name of a built-in one replaces it.
        disable (`Iterable[str]`, *optional*):
            Names or globs of rules to mute.
        check_metric (`Callable`, *optional*):
            As in [`load_rules`].

    Raises:
        `DiagnosticsError`: with all that is wrong, before training starts.
    """
    _check_texts("custom_alerts", custom_alerts)
    _check_texts("disable", disable)
    rules = load_rules(BUILTIN)
    custom = load_rules(custom_heuristics_dir, check_metric) if custom_heuristics_dir is not None else []
    rules = merge_rules(rules, custom + _alerts(custom_alerts, check_metric))
    muted = select(rules, disable)
    return [rule for rule in rules if rule.name not in muted]


def _check_texts(option: str, value: Iterable[str]) -> None:
    if isinstance(value, str):
        raise DiagnosticsError(f"{option}: expected a list of texts, found {value!r}; put it in brackets")
    for i, text in enumerate(value):
        if not isinstance(text, str):
            raise DiagnosticsError(f"{option}[{i}]: expected a text, found {text!r}")


def _alerts(texts: Iterable[str], check_metric: CheckMetric | None) -> list[Rule]:
    rules, problems = [], []
    for i, text in enumerate(texts):
        try:
            rule = parse_alert(text, f"custom_alerts[{i}]", check_metric)
        except DiagnosticsError as error:
            problems.append(str(error))
            continue
        same = sum(other.name == rule.name or other.name.startswith(f"{rule.name}_") for other in rules)
        rules.append(replace(rule, name=f"{rule.name}_{same + 1}") if same else rule)
    if problems:
        raise DiagnosticsError("\n".join(problems))
    return rules
