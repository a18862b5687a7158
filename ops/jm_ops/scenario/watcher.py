"""A real Prometheus that scrapes the workers and the broker, and its HTTP API."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from jm_ops.scenario.broker import Broker
from jm_ops.scenario.fleet import One
from jm_ops.scenario.machine import Process, answers, free_ports, until

INTERVAL = 2


class Watcher:
    def __init__(self, workers: list[One], broker: Broker, rules: dict, folder: Path):
        (self._port,) = free_ports(1)
        self._folder = folder / "prometheus"
        self._folder.mkdir()
        (self._folder / "rules.yaml").write_text(yaml.dump(rules))
        targets = [f"127.0.0.1:{one.port}" for one in workers]
        # Names instead of addresses, as the PodMonitor does it.
        names = [
            {
                "source_labels": ["__address__"],
                "regex": f"127.0.0.1:{one.port}",
                "target_label": "instance",
                "replacement": f"{one.name}-0",
            }
            for one in workers
        ]
        config = {
            "global": {
                "scrape_interval": f"{INTERVAL}s",
                "evaluation_interval": f"{INTERVAL}s",
                "scrape_timeout": f"{INTERVAL}s",
            },
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": "jm-mq",
                    "sample_limit": 5000,
                    "static_configs": [{"targets": targets, "labels": {"namespace": "scenario"}}],
                    "relabel_configs": names,
                },
                {
                    "job_name": "rabbitmq",
                    "metrics_path": "/metrics/detailed",
                    "params": {"family": ["queue_coarse_metrics", "queue_consumer_count"], "vhost": ["/"]},
                    "static_configs": [{"targets": [f"127.0.0.1:{broker.metrics}"]}],
                },
            ],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.dump(config))
        self._process: Process | None = None

    def start(self) -> None:
        command = [
            "prometheus",
            f"--config.file={self._folder}/prometheus.yaml",
            f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        self._process = Process("prometheus", command, self._folder)
        until("ready Prometheus", 30, lambda: answers(f"http://127.0.0.1:{self._port}/-/ready"))

    def stop(self) -> None:
        if self._process:
            self._process.end()

    def range(self, expr: str, begin: float, end: float, step: float = INTERVAL) -> list[dict]:
        """Series as `{"metric": labels, "values": [(time, value)]}`; what is no number is left out."""
        found = self._ask("query_range", query=expr, start=begin, end=end, step=step)["result"]
        for series in found:
            values = [(float(time), float(value)) for time, value in series["values"]]
            series["values"] = [(time, value) for time, value in values if not math.isnan(value)]
        return [series for series in found if series["values"]]

    def names(self, job: str) -> set[str]:
        """Of all metrics that the job's targets have."""
        return set(self._ask("label/__name__/values", **{"match[]": f'{{job="{job}"}}'}))

    def _ask(self, path: str, **parameters: object) -> Any:
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}"
        query = urllib.parse.urlencode(parameters)
        try:
            # An expression may be too long for an address.
            asked = urllib.request.Request(url, query.encode()) if path == "query_range" else f"{url}?{query}"
            with urllib.request.urlopen(asked, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{parameters}: {json.load(error)['error']}") from error
