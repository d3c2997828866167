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

"""A folder of public logs goes in, what the rules say about each comes out; nothing of the logs themselves."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from trl_diagnostics.engine.engine import Engine
from trl_diagnostics.engine.finding import DiagnosticsError, Finding, Severity
from trl_diagnostics.engine.rule import Rule
from trl_diagnostics.metrics.names import MetricMap
from trl_diagnostics.sources.logs import open_run


@dataclass(frozen=True)
class Public:
    """
    A public log and what the rules say about it.

    Args:
        id (`str`):
            Name of the log.
        repo (`str`):
            Repository that it comes from.
        trainer (`str`):
            Trainer.
        looks (`str`):
            How a person read its numbers: `"healthy"`, `"suspicious"`, `"broken"` or `"unsure"`.
        documented (`bool`):
            Whether its authors say themselves that it is broken.
        records (`int`):
            Number of records; 0 if the file cannot be read.
        findings (`tuple[Finding, ...]`, *optional*):
            Findings that start.
    """

    id: str
    repo: str
    trainer: str
    looks: str
    documented: bool
    records: int
    findings: tuple[Finding, ...] = ()

    @property
    def warned(self) -> bool:
        """Whether there is a finding of medium severity or above."""
        return any(finding.level >= Severity.MEDIUM for finding in self.findings)

    @property
    def alarmed(self) -> bool:
        """Whether there is a finding of high or critical severity."""
        return any(finding.level >= Severity.HIGH for finding in self.findings)


def _version(stated: str | None) -> str | None:
    match = re.fullmatch(r"(?:==)?(\d+(?:\.\d+)+)", stated or "")
    return match and match[1]


def judge_file(folder: Path, row: dict, rules: list[Rule]) -> Public:
    """Judge one log; `row` is its line of the folder's `index.jsonl`."""
    about = {"id": row["id"], "repo": row["repo"], "trainer": row["trainer"], "looks": row["looks"]}
    documented = bool(row["documented"]) and row["looks"] == "broken"
    try:
        run = open_run(folder / row["file"], row["trainer"], _version(row["trl_version"]))
    except DiagnosticsError:
        return Public(**about, documented=documented, records=0)
    engine = Engine(rules, run.trainer, run.config, MetricMap(run.trainer, run.trl_version))
    records = list(run.records())
    findings = [finding for record in records for finding in engine.update(record) if finding.state == "started"]
    return Public(**about, documented=documented, records=len(records), findings=tuple(findings))


def judge_folder(folder: Path, rules: list[Rule]) -> list[Public]:
    """Judge all logs that the folder's `index.jsonl` lists."""
    lines = (folder / "index.jsonl").read_text(encoding="utf-8").splitlines()
    return [judge_file(folder, json.loads(line), rules) for line in lines]
