"""What has to be true of dashboards, alerts and metrics once the story is over."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from jm_ops.alerts import Alert
from jm_ops.expressions import metric_names
from jm_ops.scenario.story import Phase
from jm_ops.scenario.watcher import INTERVAL, Watcher
from jm_ops.unused import UNUSED
from jm_ops.workers import ROOT

DASHBOARDS = ROOT / "k8s" / "components" / "monitoring" / "dashboards"
# As Grafana fills them in; its own rate interval is four scrapes at least.
_VARIABLES = {"$__rate_interval": f"{8 * INTERVAL}s", "$namespace": ".*", "$queue": ".*"}

# Alerts that nothing in the story sets off, each with its reason. Their tests in ops/prometheus/tests do.
NOT_PROVOKED = {
    "JmMqLostAcks": "a settlement is lost when its channel goes in the moment of writing; dozens of closed connections cost none",
    "JmMqLongWait": "an hour's wait and half an hour's rate are more than the story has",
    "JmMqNothingFinished": "half an hour without an end is more than the story has",
    "JmMqNothingSucceeds": "half an hour without a success is more than the story has",
}


@dataclass(frozen=True)
class Target:
    dashboard: str
    panel: str
    expr: str


def filled(expr: str) -> str:
    for variable, value in _VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def targets() -> Iterator[Target]:
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield Target(path.stem, panel["title"], target["expr"])


def of_dashboards(watcher: Watcher, phases: list[Phase]) -> Iterator[str]:
    """Panels without data in the whole story."""
    for target in targets():
        if not watcher.range(filled(target.expr), phases[0].begin, phases[-1].end):
            yield f"dashboard {target.dashboard}, {target.panel}: no data: {target.expr}"


def of_alerts(watcher: Watcher, alerts: list[Alert], phases: list[Phase]) -> Iterator[str]:
    """Alerts whose expression is true in the calm, or never."""
    calm = phases[0]
    for alert in alerts:
        where = alert.name + (f" of {alert.labels['queue']}" if alert.labels else "")
        # The first scrapes come before the workers' first connection.
        if watcher.range(alert.expr, calm.begin + 10, calm.end):
            yield f"{where}: true while all is calm"
        # Of what is not provoked its metrics have data, whatever they are.
        wanted = sorted(metric_names(alert.expr)) if alert.name in NOT_PROVOKED else [alert.expr]
        if not all(watcher.range(expr, calm.end, phases[-1].end) for expr in wanted):
            yield f"{where}: never true"


def of_names(watcher: Watcher, alerts: list[Alert]) -> Iterator[str]:
    """Metrics that are named and do not exist, and those that exist and are on no dashboard."""
    ours = {base(name) for name in watcher.names("jm-mq") if name not in _SCRAPE}
    theirs = watcher.names("rabbitmq")
    shown = {base(name) for target in targets() for name in metric_names(filled(target.expr))}
    named = shown | {base(name) for alert in alerts for name in metric_names(alert.expr)}
    for name in sorted(named - ours - theirs - {"ALERTS", "up"}):
        yield f"{name} is named and does not exist"
    for name in sorted(ours - shown - UNUSED.keys()):
        yield f"{name} exists, and is neither on a dashboard nor among the unused ones in ops/jm_ops/unused.py"
    for name in sorted(UNUSED.keys() - ours):
        yield f"{name} is told to be unused in ops/jm_ops/unused.py and does not exist"
    for name in sorted(UNUSED.keys() & shown):
        yield f"{name} is told to be unused in ops/jm_ops/unused.py and is on a dashboard"


# What Prometheus adds of its own.
_SCRAPE = {
    "ALERTS",
    "ALERTS_FOR_STATE",
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
}


def base(name: str) -> str:
    """A histogram's own name."""
    for part in ("_bucket", "_sum", "_count"):
        if name.endswith(f"_seconds{part}"):
            return name.removesuffix(part)
    return name


def of_page(name: str, page: str) -> Iterator[str]:
    """What `promtool check metrics` says of a worker's page."""
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
    if done.returncode or done.stderr.strip():
        yield f"{name}: promtool check metrics: {done.stderr.strip()}"


def of_cardinality(series: dict[str, int], kinds: int) -> Iterator[str]:
    """Unknown types share one label and one kind of dead letter, both of which were there from the start."""
    more = series["after"] - series["before"]
    if more > 0:
        yield f"{kinds} messages of unknown types made {more} more series"
