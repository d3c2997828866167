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

"""Curves and findings go in, PNG pictures come out: matplotlib's Agg through objects, nothing global is touched."""

import io
import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from ..engine.finding import Finding
from .curves import Curve, Point


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


WIDTH, DPI = 4.8, 200  # inches; narrow, so that it can be read on a phone
AXES, ABOVE, BELOW, LEGEND_ROW = 1.55, 0.28, 0.45, 0.19  # inches from top to bottom
LEGEND_COLUMNS = 2
PANEL, GAP = 1.0, 0.58  # of the key metrics
INK, LINE, BAND, ALARM, LEVEL = "#26292e", "#1f6fb4", "#7fb3dc", "#c62828", "#9a5b00"
FEW = 30  # so many points are drawn one by one
STEEP = 1000.0  # a curve whose highest point is so many times its median needs a logarithmic axis
LARGEST = 1e100  # the arithmetic of the axes overflows above
DEEPEST = 1e12  # so many times its smallest unit is an axis with both signs; its arithmetic overflows too
LEAST_BAND = 5  # points
MOST_LEVELS = 3
MOST_TICKS = 5  # of an axis with both signs


def band(curve: Curve, before: float, n: int) -> tuple[float, float, int] | None:
    """
    The baseline: 5th and 95th percentile of the first points past warm-up.

    Args:
        curve ([`Curve`]):
            Metric.
        before (`float`):
            Step from which on points are not usual any more.
        n (`int`):
            Number of points.

    Returns:
        `tuple` of lower end, upper end and number of points, or `None` if there are fewer than 5.
    """
    from numpy import percentile

    values = [y for x, y in curve.head[:n] if x < before]
    if len(values) < LEAST_BAND:
        return None
    low, high = percentile(values, [5, 95])
    return float(low), float(high), len(values)


def finding_figure(
    curve: Curve, episodes: Sequence[Finding], ends: Sequence[float], levels: Iterable[float], title: str, window: int
) -> "Figure":
    """
    The evidence of a finding: its metric with the baseline, what it was held against, and the episodes.

    Args:
        curve ([`Curve`]):
            Metric of the finding.
        episodes (`Sequence[Finding]`):
            Findings that started, earliest first.
        ends (`Sequence[float]`):
            Step at which each of them was over, or the last step.
        levels (`Iterable[float]`):
            See [`thresholds`].
        title (`str`):
            Metric and unit.
        window (`int`):
            Points of the baseline.
    """
    from matplotlib.figure import Figure

    figure = Figure(dpi=DPI, facecolor="white")
    axes = figure.add_subplot()
    first = episodes[0]
    usual = band(curve, first.first_step, window)
    if usual:
        axes.axhspan(usual[0], usual[1], color=BAND, alpha=0.35, lw=1.5, label=f"baseline, first {usual[2]} logs")
    for i, (finding, end) in enumerate(zip(episodes, ends, strict=True)):
        label = None if i else "episode" if len(episodes) == 1 else f"{len(episodes)} episodes"
        axes.axvspan(finding.first_step, end, color=ALARM, alpha=0.12, lw=0, label=label)
        if i:  # an episode of one log has no width
            axes.axvline(finding.first_step, color=ALARM, lw=0.8, alpha=0.6)
    axes.axvline(first.first_step, color=ALARM, lw=1.3, label=f"onset, step {first.first_step}")
    if first.step != first.first_step:
        axes.axvline(first.step, color=ALARM, lw=1.1, ls=":", label=f"found, step {first.step}")
    for level in list(levels)[:MOST_LEVELS]:
        axes.axhline(_drawn(level), color=LEVEL, lw=1.1, ls="--", label=f"threshold {level:.4g}")
    _draw(axes, curve)
    _name(axes, title)
    axes.set_xlabel("step", fontsize=9, color=INK)
    rows = math.ceil(len(axes.get_legend_handles_labels()[0]) / LEGEND_COLUMNS)
    figure.legend(loc="lower center", ncols=LEGEND_COLUMNS, fontsize=9, labelcolor=INK, frameon=False, borderaxespad=0)
    _fit(figure, AXES + ABOVE + BELOW + LEGEND_ROW * rows, BELOW + LEGEND_ROW * rows)
    return figure


def key_figure(curves: dict[str, Curve], onset: float | None) -> "Figure":
    """
    The trainer's key metrics, two beside each other.

    Args:
        curves (`dict[str, Curve]`):
            Metrics in the order of the picture.
        onset (`float`, *optional*):
            Step at which the first problem began.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(curves) / 2)
    figure = Figure(dpi=DPI, facecolor="white")
    for i, (metric, curve) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(rows, 2, i)
        if onset is not None:
            axes.axvline(onset, color=ALARM, lw=1.2)
        _draw(axes, curve)
        _name(axes, metric, most=28)
        if i > len(curves) - 2:
            axes.set_xlabel("step", fontsize=9, color=INK)
    _fit(figure, rows * (PANEL + GAP) - GAP + ABOVE + BELOW, BELOW)
    figure.subplots_adjust(hspace=GAP / PANEL, wspace=0.34)
    return figure


def _fit(figure: "Figure", height: float, below: float) -> None:
    """Fixed margins: to compute them takes as long as to draw."""
    figure.set_size_inches(WIDTH, height)
    figure.subplots_adjust(left=0.135, right=0.98, bottom=below / height, top=1 - ABOVE / height)


def png(figure: "Figure") -> bytes:
    """The picture as a file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: "Axes", curve: Curve) -> None:
    points = [(x, _drawn(y)) for x, y in curve.points()]
    finite = [y for _, y in points if not math.isnan(y)]
    _scale(axes, finite)
    marker = {"marker": "o", "markersize": 3} if len(points) <= FEW else {}
    axes.plot(*_columns(points), color=LINE, lw=1.2, **marker)
    holes = curve.holes()
    if holes:  # at the lower edge, whatever the values are
        place = axes.get_xaxis_transform()
        label = f"{curve.nonfinite} x NaN, infinite or null"
        axes.plot(
            holes, [0.04] * len(holes), "x", color=ALARM, markersize=5, transform=place, clip_on=False, label=label
        )
    if not finite:
        axes.set_yticks([])


def _drawn(y: float) -> float:
    return y if math.isnan(y) else min(max(y, -LARGEST), LARGEST)


def _columns(points: list[Point]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _scale(axes: "Axes", finite: list[float]) -> None:
    sizes = sorted(abs(y) for y in finite if y)
    # with both signs, as the loss of a policy gradient, most points may be nearly 0: then the larger ones are usual
    usual = sizes and (median(sizes) if min(finite) > 0 else sizes[(len(sizes) - 1) * 3 // 4])
    if not sizes or sizes[-1] < STEEP * usual:
        return
    if min(finite) > 0:
        axes.set_yscale("log")
    else:
        axes.set_yscale("symlog", linthresh=max(usual, sizes[-1] / DEEPEST))
        axes.yaxis.get_major_locator().set_params(numticks=MOST_TICKS)


def _name(axes: "Axes", title: str, most: int = 56) -> None:
    """What a log calls a metric is no formula, and a font has not every letter."""
    from matplotlib.ticker import FuncFormatter

    text = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in title)
    text = text if len(text) <= most else text[: most - 1] + "…"
    axes.set_title(text, loc="left", fontsize=9.5, color=INK, parse_math=False)
    axes.tick_params(labelsize=9, colors=INK)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.6g}"))  # without a factor above the axis
    axes.grid(True, color="#d8dbe0", lw=0.6)
    axes.set_axisbelow(True)
    axes.set_facecolor("white")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#9aa0a8")
