"""Panels become Grafana dashboards."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as query_model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode

from jm_ops.panels import Panel, Query, Row, overview, worker
from jm_ops.workers import Worker

_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLOURS = {"warning": "orange", "critical": "red"}
_HEIGHT = 8
AnyPanel = timeseries.Panel | stat.Panel | heatmap.Panel


def dashboards(workers: list[Worker]) -> dict[str, str]:
    """JSON by file name."""
    made = {
        "overview": _dashboard(
            "overview",
            "jm-mq: all queues",
            "All queues, in the order in which one looks in an incident.",
            overview(),
            workers,
        )
    }
    for one in workers:
        about = f"{one.queue} and {one.name}, in the order in which one looks in an incident."
        made[one.name] = _dashboard(one.name, f"jm-mq: {one.name}", about, worker(one), None)
    return {name: JSONEncoder(sort_keys=True, indent=2).encode(made[name].build()) + "\n" for name in made}


def _dashboard(name: str, title: str, about: str, rows: list[Row], workers: list[Worker] | None) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(title)
        .uid(f"jm-mq-{name}")
        .description(about)
        .tags(["jm-mq"])
        .readonly()
        .refresh("30s")
        .time("now-3h", "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("jm-mq")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["jm-mq"])
            .as_dropdown(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("namespace", "Namespace", "label_values(jm_mq_workers, namespace)", ".*"))
    )
    if workers is not None:
        built.with_variable(
            _variable("queue", "Queue", 'label_values(jm_mq_workers{namespace=~"$namespace"}, queue)', ".*")
        )
    ids = itertools.count(1)
    for number, row in enumerate(rows, 1):
        built.with_row(dashboard.Row(f"{number} · {row.title}").id(next(ids)))
        for panel in row.panels:
            built.with_panel(_panel(panel).id(next(ids)))
    return built


def _variable(name: str, label: str, query: str, everything: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(everything)
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def _panel(panel: Panel) -> AnyPanel:
    made = _MAKERS[panel.kind](panel).title(panel.title).description(panel.good).datasource(_SOURCE).span(panel.width)
    made.height(4 if panel.kind == "stat" else _HEIGHT).unit(panel.unit)
    for letter, query in zip("ABCDEF", panel.queries, strict=False):
        made.with_target(_target(panel, query).ref_id(letter))
    return made


def _target(panel: Panel, query: Query) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).range()
    return target.format(query_model.PromQueryFormat.HEATMAP) if panel.kind == "heatmap" else target


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="green")]
    steps += [
        model.Threshold(value=float(value), color=_COLOURS[meaning]) for value, meaning in sorted(panel.limits.items())
    ]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().line_width(1).fill_opacity(5)
    if panel.unit != "mps" or not panel.limits:  # a slope goes below zero
        made.min(0)
    made.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .placement(models.LegendPlacement.BOTTOM)
        .display_mode(models.LegendDisplayMode.LIST)
    )
    if panel.limits:
        made.thresholds(_thresholds(panel))
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(models.GraphTresholdsStyleMode.DASHED))
    return made


def _number(panel: Panel) -> stat.Panel:
    made = stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    made.graph_mode(models.BigValueGraphMode.AREA).no_value("none")
    made.color_mode(models.BigValueColorMode.BACKGROUND if panel.limits else models.BigValueColorMode.VALUE)
    return made.thresholds(_thresholds(panel))


def _heatmap(panel: Panel) -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
    return heatmap.Panel().calculate(False).color(colours).y_axis(heatmap.YAxisConfig().unit("s"))


_MAKERS: dict[str, Callable[[Panel], AnyPanel]] = {"timeseries": _lines, "stat": _number, "heatmap": _heatmap}
