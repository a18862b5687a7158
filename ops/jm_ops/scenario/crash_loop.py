"""`python -m jm_ops.scenario.crash_loop`: replicas in a crash loop, with the kubelet's back-off, as a real Prometheus and a real
Alertmanager with the shipped rules and routes tell it. Time runs 25 times as fast: all durations are divided.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

from jm_ops.scenario.machine import Process, answers, free_ports, until
from jm_ops.workers import ROOT, seconds

FASTER = 25
# As the kubelet does it: doubled each time, and five minutes at most.
BACK_OFF = (10, 20, 40, 80, 160, 300, 300)
CALM, MENDED = 120, 1800
# Of the simulation's own seconds: from the first crash until somebody is told, Alertmanager's group_wait included.
TOLD_WITHIN = 300
_DURATION = re.compile(r"(?<![\w.])(\d+)(ms|s|m|h)(?![\w.])")


def faster(text: str) -> str:
    """Every duration of a rule or a configuration."""
    return _DURATION.sub(lambda found: f"{int(1000 * seconds(found[0]) / FASTER)}ms", text)


@dataclass
class Replica:
    """`life` is how long each start lives; one of a second is never seen."""

    name: str
    life: int
    back_off: tuple[int, ...]

    def __post_init__(self) -> None:
        self.up, self.started = True, time.time()
        self.crashed = self.mended = 0.0
        replica = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not replica.up:
                    self.close_connection = True
                    return
                text = f'jm_mq_workers{{queue="jm.llm"}} 4\nprocess_start_time_seconds {replica.started}\n'.encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                with suppress(BrokenPipeError):  # a scrape that waited for too long
                    self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        threading.Thread(target=self._live, daemon=True).start()

    def _live(self) -> None:
        time.sleep(CALM / FASTER)
        self.crashed = time.time()
        for pause in self.back_off:
            self.up = False
            time.sleep(pause / FASTER)
            self.up, self.started = True, time.time()
            time.sleep(self.life / FASTER)
        self.mended = time.time()

    def stop(self) -> None:
        self._server.shutdown()


class Told:
    """Whom Alertmanager tells: (time, status, alert, replica)."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, str, str, str]] = []
        told = self

        class Hook(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["content-length"])))
                for alert in message["alerts"]:
                    labels = alert["labels"]
                    told.heard.append((time.time(), alert["status"], labels["alertname"], labels["instance"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, status: str, replica: Replica) -> list[tuple[float, str]]:
        return [(at, alert) for at, now, alert, name in self.heard if now == status and name == replica.name]

    def stop(self) -> None:
        self._server.shutdown()


def _start(folder: Path, replicas: list[Replica], told: Told, rules: str) -> list[Process]:
    web, manager = free_ports(2)
    routes = yaml.safe_load(faster((ROOT / "ops/prometheus/alertmanager.yaml").read_text()))
    hook = {"url": f"http://127.0.0.1:{told.port}/", "send_resolved": True}
    routes["receivers"] = [{"name": routes["route"]["receiver"], "webhook_configs": [hook]}]
    (folder / "alertmanager.yaml").write_text(yaml.dump(routes))
    # Only what is about processes: the replicas here tell nothing of queues.
    groups = yaml.safe_load(faster(rules))
    of_process = ("JmMqProcessRestarts", "JmMqReplicaDown")
    groups["groups"][0]["rules"] = [rule for rule in groups["groups"][0]["rules"] if rule["alert"] in of_process]
    (folder / "alerts.yaml").write_text(yaml.dump(groups))
    shipped = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yaml").read_text())
    interval = faster(shipped["global"]["scrape_interval"])
    names = [{"targets": [f"127.0.0.1:{one.port}"], "labels": {"instance": one.name}} for one in replicas]
    prometheus = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
        "rule_files": ["alerts.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{manager}"]}]}]},
        "scrape_configs": [{"job_name": "jm-mq", "static_configs": names}],
    }
    (folder / "prometheus.yaml").write_text(yaml.dump(prometheus))
    started = [
        Process(
            "alertmanager",
            [
                "prometheus-alertmanager",
                f"--config.file={folder}/alertmanager.yaml",
                f"--storage.path={folder}/alertmanager",
                f"--web.listen-address=127.0.0.1:{manager}",
                "--cluster.listen-address=",
            ],
            folder,
        ),
        Process(
            "prometheus",
            [
                "prometheus",
                f"--config.file={folder}/prometheus.yaml",
                f"--storage.tsdb.path={folder}/prometheus",
                f"--web.listen-address=127.0.0.1:{web}",
                "--rules.alert.resend-delay=1s",
            ],
            folder,
        ),
    ]
    until("ready Alertmanager", 30, lambda: answers(f"http://127.0.0.1:{manager}/-/ready"))
    return started


def _mistakes(told: Told, loops: list[Replica], once: Replica) -> Iterator[str]:
    for one in loops:
        firing, resolved = told.of("firing", one), told.of("resolved", one)
        if not firing:
            yield f"{one.name}: nobody is told"
            continue
        after = (min(firing)[0] - one.crashed) * FASTER
        print(f"  {one.name}: told as {min(firing)[1]} after {after:.0f} s, over {len(one.back_off)} starts")
        if after > TOLD_WITHIN:
            yield f"{one.name}: told only after {after:.0f} s"
        for alert in sorted({alert for _, alert in firing}):
            ends = [at for at, name in resolved if name == alert]
            for at in ends:
                if at < one.mended:
                    yield f"{one.name}: {alert} is told as over {(one.mended - at) * FASTER:.0f} s before it was"
            if not ends:
                yield f"{one.name}: {alert} is not told as over although it was mended"
    if told.of("firing", once):
        yield f"{once.name}: {told.of('firing', once)[0][1]} is told of a single restart"


def run(rules: str) -> list[str]:
    folder = Path(tempfile.mkdtemp(prefix="jm-ops-"))
    told = Told()
    seen = Replica("lives-for-half-a-minute", 30, BACK_OFF)
    unseen = Replica("ends-at-once", 1, BACK_OFF)
    once = Replica("evicted-once", 30, (10,))
    replicas = [seen, unseen, once]
    started: list[Process] = []
    try:
        started = _start(folder, replicas, told, rules)
        until("end of the loop", 120, lambda: all(one.mended for one in replicas))
        time.sleep(MENDED / FASTER)
        return list(_mistakes(told, [seen, unseen], once))
    finally:
        for process in started:
            process.end()
        for one in replicas:
            one.stop()
        told.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    wrong = run((ROOT / "ops/prometheus/alerts.yaml").read_text())
    for mistake in wrong:
        print(mistake, file=sys.stderr)
    if not wrong:
        print("crash loop: told early, and not as over before it was; a single restart is not told")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
