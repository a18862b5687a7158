"""The five workers as their own files describe them, so that no number is written twice.

`config/<worker>.yaml` has the queue, the concurrency and the time limits. `k8s/base/<worker>/deployment.yaml` has what
the cluster adds: how long a drain may take there, and when the kubelet ends the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Worker:
    name: str
    queue: str
    concurrency: int
    prefetch: int
    handler_timeout: float
    consumer_timeout: float
    drain_timeout: float
    grace_period: float


def seconds(text: str) -> float:
    """`1h 30m` as the configuration writes it."""
    parts = re.findall(r"([\d.]+)\s*(ms|s|m|h)", text)
    if not parts:
        raise ValueError(f"{text!r} is no duration")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _read(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def _load(folder: Path, shared: dict) -> Worker:
    consumer = shared | _read(ROOT / "config" / f"{folder.name}.yaml")["consumer"]
    spec = _read(folder / "deployment.yaml")["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in spec["containers"][0].get("env", [])}
    return Worker(
        name=folder.name,
        queue=consumer["queue"],
        concurrency=consumer["concurrency"],
        prefetch=consumer["prefetch_per_worker"],
        handler_timeout=seconds(consumer["handler_timeout"]),
        consumer_timeout=seconds(consumer["consumer_timeout"]),
        drain_timeout=seconds(env.get("JM_CONSUMER__DRAIN_TIMEOUT") or consumer["drain_timeout"]),
        grace_period=float(spec["terminationGracePeriodSeconds"]),
    )


def workers() -> list[Worker]:
    """One for each folder `k8s/base/*-worker`, in the order of a record's journey as far as names tell."""
    shared = _read(ROOT / "config" / "default.yaml")["consumer"]
    return [_load(folder, shared) for folder in sorted((ROOT / "k8s" / "base").glob("*-worker"))]
