"""The five workers as processes, each with the user that k8s/components/rabbitmq gives it."""

from __future__ import annotations

import signal
from pathlib import Path

from jm_ops.scenario.broker import Broker
from jm_ops.scenario.machine import Process, answers, free_ports, get, until
from jm_ops.workers import workers

# What differs from the shipped configuration, so that a few minutes show what takes hours.
FASTER = {
    "JM_CONSUMER__BACKLOG_INTERVAL": "2s",
    "JM_CONSUMER__RETRY_BASE_DELAY": "200ms",
    "JM_CONSUMER__DRAIN_TIMEOUT": "8s",
    "JM_PUBLISHER__TIMEOUT": "3s",
    "JM_LOG__FORMAT": "json",
}
# What asr-worker is told of the broker's consumer_timeout, in seconds; that is half an hour. A tenth before it the worker
# hands its message back, a fifth before it the alert is true: with a scrape between the two.
CONSUMER_TIMEOUT = 30


class One:
    """A worker that may be started, killed and started again on the same port."""

    def __init__(self, program: Path, env: dict[str, str], folder: Path):
        self.name = program.name
        (self.port,) = free_ports(1)
        self._program, self._folder = program, folder
        self.env = env | {"JM_HTTP__LISTEN": f"127.0.0.1:{self.port}", "PATH": "/usr/bin:/bin"}
        self._process: Process | None = None

    def start(self, **env: str) -> None:
        self._process = Process(self.name, [str(self._program)], self._folder, self.env | env, self._folder)

    def wait_ready(self, limit: float = 30) -> None:
        until(f"ready {self.name}", limit, lambda: answers(f"http://127.0.0.1:{self.port}/health/ready"))

    def metrics(self) -> str:
        return get(f"http://127.0.0.1:{self.port}/metrics")

    def kill(self) -> None:
        self._running().signal(signal.SIGKILL)
        self._running().wait(5)

    def terminate(self) -> None:
        self._running().signal(signal.SIGTERM)

    def wait(self, limit: float) -> int:
        return self._running().wait(limit)

    def _running(self) -> Process:
        if not self._process:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def end(self, limit: float = 40) -> int:
        return self._process.end(limit) if self._process else 0


def fleet(programs: Path, broker: Broker, engine_url: str, folder: Path, recordings: Path) -> dict[str, One]:
    """By name, not started yet."""
    made = {}
    for worker in workers():
        env = FASTER | {
            "JM_RABBITMQ__HOST": "127.0.0.1",
            "JM_RABBITMQ__PORT": str(broker.amqp),
            "JM_RABBITMQ__NAME": worker.name,
            "JM_RABBITMQ__PASSWORD": broker.users[worker.name],
            "JM_CONFIG": str(Path(__file__).resolve().parents[3] / "config"),
        }
        if worker.name == "record-event-worker":
            env |= {
                "JM_DATABASE__URL": f"sqlite://{folder}/records.db",
                "JM_DATABASE__LOCK_TIMEOUT": "100ms",
                "JM_CONSUMER__RETRY_BASE_DELAY": "50ms",
            }
        else:
            env |= {"JM_ENGINE__BASE_URL": engine_url, "JM_ENGINE__MODEL": "m"}
        if worker.name == "asr-worker":
            env |= {"JM_CONSUMER__CONSUMER_TIMEOUT": f"{CONSUMER_TIMEOUT}s"}
        if worker.name in ("asr-worker", "sd-worker"):
            env |= {"JM_AUDIO__FOLDER": str(recordings)}
        made[worker.name] = One(programs / worker.name, env, folder)
    return made
