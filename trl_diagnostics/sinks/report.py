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

"""A `Diagnosis` goes in; a Markdown report, one self-contained HTML file and the plots in both come out."""

import base64
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from ..engine.engine import Engine
from ..engine.finding import Finding, Severity
from ..engine.rule import Rule
from ..engine.rulebook import BUILTIN
from ..metrics.catalogue import names
from ..metrics.lookup import entries_of_derived
from ..metrics.names import MetricMap
from ..sources.signal_budget import sentence
from ..words import number
from . import report_text
from .curves import Curve, collect_curves
from .run_dir import write_file
from .thresholds import thresholds


if TYPE_CHECKING:
    from ..diagnosis import Diagnosis

TEMPLATES = Path(__file__).parent / "templates"
MOST_PLOTS = 10  # of findings
MOST_KEYS = 8
SECONDS = ("s", "1/s")  # units of a timing
NO_MATPLOTLIB = "There are no plots, since matplotlib is not installed: `pip install matplotlib`."
NOT_WANTED = "Written in haste, without pictures and timing: `trl-diagnostics diagnose` writes a whole report."


@dataclass(frozen=True)
class Plot:
    """A picture in `plots/`, and the same inside the HTML file."""

    name: str
    data: bytes

    @property
    def uri(self) -> str:
        """The picture as an address that needs no network."""
        return f"data:image/png;base64,{base64.b64encode(self.data).decode()}"


def write_report(folder: Path, diagnosis: "Diagnosis", plots: bool = True) -> list[Path]:
    """
    Write `run_report.md`, `run_report.html` and `plots/*.png`, each complete when it appears.

    Args:
        folder (`Path`):
            Where they go; it is created.
        diagnosis ([`Diagnosis`]):
            What to report.
        plots (`bool`, *optional*, defaults to `True`):
            Whether to read the records once more, for pictures (if matplotlib is installed) and timing. Without, a report
            takes milliseconds however long the run.

    Returns:
        `list[Path]`: the files, the Markdown first, then the HTML.
    """
    heads = report_text.problems(diagnosis.findings)
    shown = report_text.everything(heads)
    curves = _curves(diagnosis, shown) if plots else {}
    drawn, note = _plots(diagnosis, shown, curves) if plots else ({}, NOT_WANTED)
    told = _told(diagnosis, heads, curves) | {"plots": drawn, "plots_note": note}
    pages = {"run_report.md": _markdown(), "run_report.html": _html()}
    written = {name: page.get_template(f"{name}.jinja").render(told) for name, page in pages.items()}
    # a path or a message may hold bytes that are no text
    files = {folder / name: text.encode(errors="backslashreplace") for name, text in written.items()}
    files |= {folder / "plots" / plot.name: plot.data for plot in drawn.values()}
    for path, data in files.items():
        write_file(path, data, sync=False)
    return list(files)


def _told(diagnosis: "Diagnosis", heads: list[report_text.Problem], curves: dict[str, Curve]) -> dict[str, Any]:
    """Everything that the pages say."""
    run = diagnosis.run
    answer, reasons = report_text.last_checkpoint(diagnosis)
    provenance = report_text.flat({k: v for k, v in run.metadata.items() if k not in ("arguments", "diagnostics")})
    return {
        "diagnosis": diagnosis,
        "run": run,
        "postmortem": diagnosis.postmortem or {},
        "heads": heads,
        "status": report_text.status(diagnosis, heads),
        "verdict": report_text.verdict(diagnosis, heads),
        "tone": _tone(diagnosis, heads),
        "fixes": sum(bool(problem.finding.fix) for problem in heads),
        "repairs": report_text.repairs(diagnosis),
        "signal": sentence(diagnosis.groups),
        "normal": report_text.normal(diagnosis.findings),
        "checkpoint_answer": answer,
        "checkpoint_reasons": reasons,
        "advice": diagnosis.advice,
        "ended": report_text.ended(diagnosis),
        "coverage": report_text.covered(diagnosis.coverage),
        "settings": lambda finding: report_text.settings(finding, run.config),
        "conditions": {rule.name: rule.condition.text for rule in diagnosis.rules},
        "accuracy": _accuracy(diagnosis.rules),
        "number": number,
        "ranks": {m: c for m, c in curves.items() if c.phase == "rank"},
        "timing": {m: c for m, c in curves.items() if c.phase != "rank" and _is_timing(m)},
        "unit": _unit,
        "provenance": provenance,
        "brief": [(name, value) for name, value in provenance if report_text.is_brief(name)],
        "chosen": report_text.chosen(run.config, run.metadata),
        "arguments": report_text.flat(run.metadata.get("arguments") or run.config),
    }


def _tone(diagnosis: "Diagnosis", heads: list[report_text.Problem]) -> str:
    """The colour of the verdict."""
    worst = max((problem.finding.level for problem in heads), default=None)
    if report_text.failure(diagnosis) and (worst is None or worst < Severity.HIGH):
        return "high"
    return "ok" if worst is None else str(worst)


def _accuracy(rules: tuple[Rule, ...]) -> Callable[[Finding], str]:
    """The user's own rules were not measured, whatever their names."""
    own = {rule.name for rule in rules if not (rule.document and BUILTIN in rule.document.path.parents)}
    return lambda finding: "" if finding.rule in own else report_text.accuracy(finding.rule)


# Pictures


def _curves(diagnosis: "Diagnosis", shown: list[report_text.Problem]) -> dict[str, Curve]:
    run = diagnosis.run
    metrics = {problem.finding.metric for problem in shown} | set(report_text.KEY_METRICS)
    used = {problem.finding.rule for problem in shown}
    rules = [rule for rule in diagnosis.rules if rule.name in used]
    engine = Engine(rules, run.trainer, run.config, MetricMap(run.trainer, run.trl_version))
    return collect_curves(
        run.records(), engine, lambda metric, phase: metric in metrics or phase == "rank" or _is_timing(metric)
    )


def _plots(
    diagnosis: "Diagnosis", shown: list[report_text.Problem], curves: dict[str, Curve]
) -> tuple[dict[str, Plot], str]:
    """Pictures by the rule and metric that they are for, and what to say of those that are not there."""
    if importlib.util.find_spec("matplotlib") is None:
        return {}, NO_MATPLOTLIB
    from .plots import finding_figure, key_figure, png

    drawn = {}
    keys = {m: curves[m] for m in report_text.KEY_METRICS if m in curves and curves[m].count > 1}
    if keys:
        onset = shown[0].episodes[0].first_step if shown else None
        chosen = dict(list(keys.items())[:MOST_KEYS])
        drawn["key"] = Plot("key_metrics.png", png(key_figure(chosen, onset)))
    rules = {rule.name: rule for rule in diagnosis.rules}
    visible = [p for p in shown if p.finding.metric in curves and curves[p.finding.metric].count > 1]
    for problem in visible[:MOST_PLOTS]:
        finding, rule = problem.finding, rules.get(problem.finding.rule)
        figure = finding_figure(
            curves[finding.metric],
            problem.episodes,
            [diagnosis.last_step if end is None else end for end in problem.ends],
            thresholds(rule, finding) if rule else (),
            _titled(finding.metric),
            max(rule.window, 10) if rule else 20,
        )
        drawn[f"{finding.rule}|{finding.metric}"] = Plot(_file_name(finding), png(figure))
    return drawn, _left_out([p.finding.rule for p in visible[MOST_PLOTS:]])


def _left_out(rules: list[str]) -> str:
    return f"Not drawn, to keep the report short: {', '.join(f'`{rule}`' for rule in rules)}." if rules else ""


def _file_name(finding: Finding) -> str:
    """A metric's name may have slashes, and anything else."""
    return re.sub(r"[^\w-]+", "_", f"{finding.rule}__{finding.metric}", flags=re.ASCII)[:120] + ".png"


def _titled(metric: str) -> str:
    unit = _unit(metric)
    return f"{metric} ({unit})" if unit not in ("", "1", metric) else metric


@cache
def _unit(metric: str) -> str:
    name = metric.removeprefix("eval_")
    entry = names().names.get(name) or next(iter(entries_of_derived(metric)), {})
    return entry.get("unit", "")


def _is_timing(metric: str) -> bool:
    return _unit(metric) in SECONDS or metric.endswith(("_s", "_ms"))


# Pages. What a run logs is text, whatever it looks like: it is escaped on its way out, in each page in its own way.


@cache
def _html() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["prose"] = prose
    pages.filters["link"] = link
    return pages


def prose(text: str) -> Markup:
    """Text with `code` between backticks, as HTML."""
    parts = re.split(r"`([^`\n]+)`", text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(parts)
    )


def link(url: str) -> Markup:
    """An address on the web as a link, anything else as text."""
    if not re.match(r"https?://", url):
        return escape(url)
    return Markup('<a href="{}" rel="noreferrer noopener">{}</a>').format(url, url.split("://", 1)[1])


@cache
def _markdown() -> jinja2.Environment:
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        finalize=plain,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters["web"] = lambda url: Markup(f"<{url}>") if re.fullmatch(r"https?://[^\s<>]+", url) else url
    pages.filters["code"] = code
    pages.filters["block"] = block
    return pages


def code(text: Any) -> Markup:
    """Text as it is, between more backticks than it has itself."""
    text = re.sub(r"\s+", " ", str(text))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}")


def block(text: str) -> Markup:
    """The last lines of a text as they are."""
    return Markup("\n".join(f"    {line}" for line in report_text.last_lines(text)))


def plain(value: Any) -> str:
    """
    A value in one line of Markdown in which nothing is markup but `code` between backticks: no link, no picture, no
    HTML, no new cell.
    """
    if isinstance(value, Markup):
        return value
    parts = re.split(r"(`[^`]+`)", re.sub(r"\s+", " ", str(value)))
    return "".join(part.replace("|", "\\|") if i % 2 else _quoted(part) for i, part in enumerate(parts))


def _quoted(text: str) -> str:
    text = re.sub(r"([\\\[\]*|`])", r"\\\1", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
