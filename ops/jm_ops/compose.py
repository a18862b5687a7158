"""What must hold of docker-compose.yml beyond its grammar, as docker-compose itself understands the file.

`python -m jm_ops.compose ENV_FILE` prints what is wrong, and ends with 1 if anything is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jm_ops.workers import ROOT, workers

TOOLS = Path(os.environ["JM_OPS_TOOLS"])
_COMPOSE = TOOLS / "programs/usr/libexec/docker/cli-plugins/docker-compose"
PROFILES = ("http", "embedded")


def configuration(profile: str, env_file: str) -> dict[str, Any]:
    done = subprocess.run(
        [_COMPOSE, "--file", ROOT / "docker-compose.yml", "--env-file", env_file, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "COMPOSE_PROFILES": profile},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def services(profile: str, env_file: str) -> dict[str, Any]:
    found: dict[str, Any] = configuration(profile, env_file)["services"]
    return found


def of_every(known: dict[str, Any]) -> Iterator[str]:
    """Limits, health, and nothing that another machine reaches."""
    for name, one in known.items():
        if "test" not in one.get("healthcheck", {}):
            yield f"{name} has no health check"
        if "memory" not in one.get("deploy", {}).get("resources", {}).get("limits", {}):
            yield f"{name} has no memory limit"
        if any(port.get("host_ip") != "127.0.0.1" for port in one.get("ports", [])):
            yield f"{name} publishes a port to other machines"


def of_workers(known: dict[str, Any]) -> Iterator[str]:
    """Each worker is there once, hardened, asked by its own binary, started after its servers, and scraped."""
    prometheus = yaml.safe_load((ROOT / "ops/prometheus/prometheus.yaml").read_text())
    scraped = prometheus["scrape_configs"][0]["dns_sd_configs"][0]["names"]
    for worker in workers():
        found = {name: one for name, one in known.items() if one.get("build", {}).get("target") == worker.name}
        if len(found) != 1:
            yield f"{worker.name} is there {len(found)} times: {sorted(found)}"
            continue
        ((name, one),) = found.items()
        aliases = (one["networks"]["default"] or {}).get("aliases", [])
        demands = {
            "a read-only root": one.get("read_only") is True,
            "its capabilities dropped": one.get("cap_drop") == ["ALL"],
            "a health check by its own binary": one.get("healthcheck", {}).get("test")
            == ["CMD", f"/usr/local/bin/{worker.name}", "--health"],
            "a start after its healthy servers": one["depends_on"].get("rabbitmq", {}).get("condition")
            == "service_healthy",
            "a name that Prometheus asks for": worker.name in scraped and worker.name in [name, *aliases],
            "version and revision": {"VERSION", "REVISION"} <= one["build"].get("args", {}).keys(),
        }
        yield from (f"{name} lacks {what}" for what, met in demands.items() if not met)


def main() -> int:
    wrong = [
        f"docker-compose.yml, profile {profile}: {mistake}"
        for profile in PROFILES
        for known in [services(profile, sys.argv[1])]
        for mistake in [*of_every(known), *of_workers(known)]
    ]
    for mistake in wrong:
        print(mistake, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
