"""Writes dashboards, alerts, and what brokers without operators are given; with `--check` it only tells which files are stale, and ends with 1 if any is."""

from __future__ import annotations

import sys

import yaml

from jm_ops.alerts import Alert, alerts
from jm_ops.brokers import definitions, settings
from jm_ops.dashboards import dashboards
from jm_ops.workers import ROOT, workers

_HEADER = "# Written by `make dashboards` from ops/jm_ops/alerts.py, where each alert's reason is too.\n"


class _Wide(yaml.SafeDumper):
    """Keeps the order of keys, and long expressions on one line."""


def _yaml(document: dict) -> str:
    return _HEADER + yaml.dump(document, Dumper=_Wide, sort_keys=False, width=1000, allow_unicode=True)


def _groups(rules: list[Alert]) -> dict:
    return {"groups": [{"name": "jm-mq", "interval": "15s", "rules": [alert.rule() for alert in rules]}]}


def files() -> dict[str, str]:
    """Text by path from the project's root."""
    known = workers()
    rules = alerts(known)
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "jm-mq"},
        "spec": _groups(rules),
    }
    monitoring = "k8s/components/monitoring"
    written = {
        "ops/prometheus/alerts.yaml": _yaml(_groups(rules)),
        f"{monitoring}/alerts.yaml": _yaml(resource),
        "ops/rabbitmq/rabbitmq.conf": settings(),
        "ops/rabbitmq/definitions.json": definitions(with_permissions=False),
        "k8s/overlays/dev/broker/rabbitmq.conf": settings(),
        "k8s/overlays/dev/broker/definitions.json": definitions(with_permissions=True),
    }
    for name, text in dashboards(known).items():
        written[f"{monitoring}/dashboards/{name}.json"] = text
    return written


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    stale = 0
    for path, text in files().items():
        target = ROOT / path
        if target.exists() and target.read_text() == text:
            continue
        if check:
            print(f"{path} is not what its source says: run `make dashboards`", file=sys.stderr)
            stale += 1
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            print(f"wrote {path}")
    if check and not stale:
        print(f"dashboards, alerts and brokers: {len(files())} files are what their source says")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
