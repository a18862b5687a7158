"""What must agree without any process running: metrics in the code, on dashboards and in alerts; alerts and runbooks.

`python -m jm_ops.agreement` prints what does not, and ends with 1 if anything does not.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

from jm_ops.alerts import alerts
from jm_ops.expressions import metric_names
from jm_ops.panels import overview, worker
from jm_ops.scenario.findings import base, filled, targets
from jm_ops.unused import UNUSED
from jm_ops.workers import ROOT, workers

_METRICS = (
    "crates/jm-mq-core/src/metrics.rs",
    "crates/jm-service/src/http/metrics.rs",
    "services/record-event-worker/src/metrics.rs",
)
# Of the process, by the crate metrics-process; the scenario sees which there are.
_OTHERS = ("process_", "rabbitmq_detailed_", "ALERTS", "up")
# Pages that no alert leads to, with an order of their own.
_PROCEDURES = {"backup and restore"}
_SECTIONS = ("**What it means.**", "**First look.**", "**What to do.**")


def metrics() -> Iterator[str]:
    """A metric that nobody looks at is a mistake here, and so is a name that the code does not have."""
    code = {name for path in _METRICS for name in _names(path)}
    shown = {base(name) for target in targets() for name in metric_names(filled(target.expr))}
    named = shown | {base(name) for alert in alerts(workers()) for name in metric_names(alert.expr)}
    yield from (
        f"{name} is on no dashboard, and not in ops/jm_ops/unused.py" for name in sorted(code - shown - UNUSED.keys())
    )
    yield from (f"{name} is named and not in the code" for name in sorted(named - code) if not name.startswith(_OTHERS))


def runbooks() -> Iterator[str]:
    """Each alert has its page, each page its three parts, and no page is left over."""
    text = (ROOT / "docs" / "runbooks.md").read_text()
    pages = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    wanted = {alert.page for alert in alerts(workers())}
    found = {title.lower() for title in pages}
    yield from (f"docs/runbooks.md has no page `{page}`" for page in sorted(wanted - found))
    yield from (
        f"docs/runbooks.md: no alert leads to the page `{page}`" for page in sorted(found - wanted - _PROCEDURES)
    )
    for title, page in pages.items():
        if title.lower() in _PROCEDURES:
            continue
        yield from (f"docs/runbooks.md: {title} has no {section}" for section in _SECTIONS if section not in page)


def operations() -> Iterator[str]:
    """docs/operations.md has every metric and every alert, and no other."""
    text = (ROOT / "docs" / "operations.md").read_text()
    for what, pattern, wanted in (
        ("Metrics", r"`(jm_[a-z_]+)`", {name for path in _METRICS for name in _names(path)}),
        ("Alerts", r"`(JmMq[A-Za-z]+)`", {alert.name for alert in alerts(workers())}),
    ):
        section = re.search(rf"^## {what}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        rows = "\n".join(line for line in section[1].splitlines() if line.startswith("|")) if section else ""
        found = set(re.findall(pattern, rows))
        yield from (f"docs/operations.md, {what}: {name} is missing" for name in sorted(wanted - found))
        yield from (f"docs/operations.md, {what}: there is no {name}" for name in sorted(found - wanted))


def _names(path: str) -> list[str]:
    return re.findall(r'"(jm_[a-z_]+)"', (ROOT / path).read_text())


def panels() -> Iterator[str]:
    """Each says what good looks like, in the source and in what is committed."""
    known = workers()
    for rows in [overview(), *map(worker, known)]:
        for panel in (panel for row in rows for panel in row.panels):
            if not panel.good.startswith("Good: "):
                yield f"panel {panel.title} does not say what good looks like"
    for path in sorted((ROOT / "k8s/components/monitoring/dashboards").glob("*.json")):
        ids = [panel["id"] for panel in json.loads(path.read_text())["panels"]]
        if len(ids) != len(set(ids)):
            yield f"{path.name}: two panels have one id"


def tests() -> Iterator[str]:
    """Each alert is tested, firing and silent."""
    text = "\n".join(path.read_text() for path in (ROOT / "ops/prometheus/tests").glob("*.yaml"))
    yield from (
        f"{name} has no test in ops/prometheus/tests"
        for name in sorted({alert.name for alert in alerts(workers())})
        if name not in text
    )


def main() -> int:
    wrong = [*metrics(), *runbooks(), *operations(), *panels(), *tests()]
    for mistake in wrong:
        print(mistake, file=sys.stderr)
    if not wrong:
        print("metrics, dashboards, alerts, their tests and their runbooks agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
