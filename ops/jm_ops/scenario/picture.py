"""Draws a dashboard's queries over the story: the same rows, panels and titles, the data that Prometheus really has.

It is no picture of Grafana; it shows what each query returns, and that something is to be seen when something is wrong.
"""

from __future__ import annotations

import io
import json
import math
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from jm_ops.scenario.findings import DASHBOARDS, filled
from jm_ops.scenario.story import Phase
from jm_ops.scenario.watcher import INTERVAL, Watcher

# Told apart by most people who see colours differently (Okabe and Ito).
_COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#999933"]
_LIMITS = {"orange": "#E69F00", "red": "#D55E00"}
_COLUMNS = 24
_LEGEND = 6


def draw(watcher: Watcher, phases: list[Phase], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(DASHBOARDS.glob("*.json")):
        _dashboard(json.loads(path.read_text()), watcher, phases, folder / f"{path.stem}.png")


def _dashboard(dashboard: dict, watcher: Watcher, phases: list[Phase], path: Path) -> None:
    bands = list(_bands(dashboard["panels"]))
    heights = [0.12 if isinstance(band, str) else band[0]["gridPos"]["h"] / 8 for band in bands] + [0.2]
    size = 1.9 * sum(heights) + 0.45 * len(heights)
    figure = plt.figure(figsize=(16, size))
    figure.suptitle(dashboard["title"], fontsize=15, x=0.04, ha="left", y=1 - 0.2 / size)
    grid = figure.add_gridspec(len(heights), _COLUMNS, height_ratios=heights, wspace=1.4, hspace=0.45)
    figure.subplots_adjust(left=0.04, right=0.985, top=1 - 0.6 / size, bottom=0.1 / size)
    for index, band in enumerate(bands):
        if isinstance(band, str):
            _words(figure.add_subplot(grid[index, :]), band, size=12)
            continue
        for panel in band:
            place = panel["gridPos"]
            axes = figure.add_subplot(grid[index, place["x"] : place["x"] + place["w"]])
            _panel(axes, panel, watcher, phases)
    told = "   ".join(f"{number} {phase.title}" for number, phase in enumerate(phases, 1))
    _words(figure.add_subplot(grid[-1, :]), textwrap.fill(f"Minutes since the start. {told}", 260), size=7)
    _save(figure, path)


def _bands(panels: list[dict]) -> Iterator[str | list[dict]]:
    """Titles of rows, and panels of one height beside each other."""
    line: list[dict] = []
    for panel in panels:
        if line and (panel["type"] == "row" or panel["gridPos"]["y"] != line[0]["gridPos"]["y"]):
            yield line
            line = []
        if panel["type"] == "row":
            yield panel["title"]
        else:
            line.append(panel)
    if line:
        yield line


def _words(axes: Axes, text: str, size: int) -> None:
    axes.axis("off")
    axes.text(0, 0.3, text, fontsize=size, weight="bold" if size > 8 else "normal")


def _panel(axes: Axes, panel: dict, watcher: Watcher, phases: list[Phase]) -> None:
    begin, end = phases[0].begin, phases[-1].end
    found = [(target, watcher.range(filled(target["expr"]), begin, end)) for target in panel["targets"]]
    axes.set_title(panel["title"], fontsize=8, loc="left")
    axes.tick_params(labelsize=6)
    axes.set_xlim(0, (end - begin) / 60)
    {"heatmap": _heatmap, "stat": _number}.get(panel["type"], _lines)(axes, panel, found, begin)
    if panel["type"] != "stat":
        _mark(axes, phases, begin)


def _mark(axes: Axes, phases: list[Phase], begin: float) -> None:
    for number, phase in enumerate(phases, 1):
        first, last = (phase.begin - begin) / 60, (phase.end - begin) / 60
        if number % 2 == 0:
            axes.axvspan(first, last, color="#000000", alpha=0.06, linewidth=0)
        axes.text(
            (first + last) / 2,
            1.0,
            str(number),
            transform=axes.get_xaxis_transform(),
            fontsize=5,
            ha="center",
            va="bottom",
        )


def _lines(axes: Axes, panel: dict, found: list, begin: float) -> None:
    series = [(_legend(target, one["metric"]), one["values"]) for target, many in found for one in many]
    # The busiest first, so that the legend names what one sees.
    series.sort(key=lambda named: -max(abs(value) for _, value in named[1]))
    for index, (legend, values) in enumerate(series):
        times, heights = _split(values, begin)
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(times, heights, linewidth=0.9, color=colour, label=legend if index < _LEGEND else None)
    if not series:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", fontsize=8)
        return
    low, high = axes.get_ylim()
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is not None and low <= step["value"] <= high:
            axes.axhline(step["value"], color=_LIMITS[step["color"]], linewidth=0.8, linestyle="--")
    axes.grid(alpha=0.25, linewidth=0.4)
    axes.legend(
        fontsize=5, loc="upper left", frameon=True, framealpha=0.6, borderpad=0.2, labelspacing=0.15, handlelength=1
    )
    axes.set_ylabel(_unit(panel), fontsize=6)


def _split(values: list[tuple[float, float]], begin: float) -> tuple[list[float], list[float]]:
    """Minutes and values, broken where samples are missing; infinite ones are no point of a line."""
    times: list[float] = []
    heights: list[float] = []
    for time, value in values:
        if times and time - begin - times[-1] * 60 > 3 * INTERVAL:
            times.append(times[-1])
            heights.append(math.nan)
        times.append((time - begin) / 60)
        heights.append(value if math.isfinite(value) else math.nan)
    return times, heights


def _legend(target: dict, labels: dict[str, str]) -> str:
    text = target["legendFormat"]
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return re.sub(r"{{\w+}}", '""', text)  # a label without a value, as the default exchange's name


def _unit(panel: dict) -> str:
    units = {"s": "seconds", "mps": "messages/s", "cps": "per second", "percentunit": "share", "bytes": "bytes"}
    return units.get(panel["fieldConfig"]["defaults"].get("unit", ""), "")


def _heatmap(axes: Axes, panel: dict, found: list, begin: float) -> None:
    """Buckets are cumulative: what belongs into one is what it has more than the one below."""
    buckets = {}
    for _, many in found:
        for one in many:
            buckets[float(one["metric"]["le"])] = dict(one["values"])
    bounds = sorted(buckets)
    times = sorted({time for values in buckets.values() for time in values})
    if len(times) < 2:
        return
    counts = numpy.array([[buckets[bound].get(time, 0) for time in times] for bound in bounds])
    counts = numpy.diff(counts, axis=0, prepend=0)
    minutes = [(time - begin) / 60 for time in times]
    masked = numpy.ma.masked_less_equal(counts, 1e-9)
    if masked.count():
        axes.pcolormesh(minutes, range(len(bounds)), masked, cmap="Blues", norm=LogNorm(), shading="nearest")
    axes.set_yticks(range(0, len(bounds), 3), [f"{bounds[index]:g} s" for index in range(0, len(bounds), 3)])


def _number(axes: Axes, panel: dict, found: list, begin: float) -> None:
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    for index, (target, many) in enumerate(found):
        for one in many:
            times, heights = _split(one["values"], begin)
            axes.plot(times, heights, linewidth=0.9, color=_COLOURS[index], label=f"{target['legendFormat']}")
    low, high = axes.get_ylim()
    for step in steps:
        if step["value"] is not None and low <= step["value"] <= high:
            axes.axhline(step["value"], color=_LIMITS[step["color"]], linewidth=0.8, linestyle="--")
    if len(found) > 1:
        axes.legend(fontsize=5, frameon=False)
    axes.set_ylabel(_unit(panel), fontsize=6)


def _save(figure: Figure, path: Path) -> None:
    """With few colours: a document's picture, not a photograph."""
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=85)
    plt.close(figure)
    raw.seek(0)
    Image.open(raw).convert("RGB").quantize(48).save(path, optimize=True)
