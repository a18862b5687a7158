"""A private RabbitMQ 4.3 from a Debian root, also one that is configured and peopled as k8s/components/rabbitmq says.

It runs in a PID namespace of its own, so that its daemons go when it goes, and listens on 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jm_ops.scenario.machine import Process, free_ports, until
from jm_ops.workers import ROOT

MANIFESTS = ROOT / "k8s" / "components" / "rabbitmq"
_VHOST = "%2F"


@dataclass(frozen=True)
class Ctl:
    """rabbitmqctl of a node: without arguments, and its environment."""

    command: list[str]
    env: dict[str, str]


class Node:
    """One node, with the lines of configuration and the files that it is given."""

    def __init__(self, root: Path, folder: Path, lines: list[str], files: dict[str, str] | None = None):
        """`files` have their text by their path in the node's own folder, which a line names as `{own}`."""
        self.amqp, self.management, self.metrics, self._dist, self._epmd = free_ports(5)
        self._root = root
        self._inside = f"/srv/jm-{secrets.token_hex(4)}"
        self._own = root / self._inside.lstrip("/")
        self._folder = folder
        self._lines, self._files = lines, files or {}
        self.admin = ("admin", secrets.token_urlsafe(12))
        self._node: Process | None = None

    def start(self) -> None:
        (self._own / "home").mkdir(parents=True)
        hosts = self._root / "etc" / "hosts"
        if not hosts.exists():
            hosts.write_text("127.0.0.1 localhost\n")
        cookie = self._own / "home" / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
        (self._own / "enabled_plugins").write_text(
            "[rabbitmq_management,rabbitmq_prometheus,rabbitmq_shovel,rabbitmq_shovel_management].\n"
        )
        for name, text in self._files.items():
            path = self._own / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (self._own / "rabbitmq.conf").write_text(self._configuration())
        script = (
            f'mount -t proc proc "$1/proc" && exec chroot "$1" /usr/bin/env -i {self._environment()} '
            "/usr/lib/rabbitmq/bin/rabbitmq-server"
        )
        command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", str(self._root)]
        self._node = Process("rabbitmq", command, self._folder)
        until("management API of RabbitMQ", 90, self._is_up)

    def stop(self) -> None:
        if self._node:
            self._node.end()
        shutil.rmtree(self._own, ignore_errors=True)

    def api(self, method: str, path: str, body: object = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.management}/api/{path}", method=method)
        user = ":".join(self.admin).encode()
        request.add_header("authorization", "Basic " + base64.b64encode(user).decode())
        request.add_header("content-type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=10) as response:
            text = response.read()
        return json.loads(text) if text else None

    def control(self, *command: str) -> str:
        """rabbitmqctl."""
        ctl = self.ctl()
        done = subprocess.run(
            [*ctl.command, *command], env=ctl.env, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {command[0]}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def ctl(self) -> Ctl:
        env = dict(pair.split("=", 1) for pair in self._environment().split())
        return Ctl(["chroot", str(self._root), "/usr/lib/rabbitmq/bin/rabbitmqctl"], env)

    def close_connections(self) -> None:
        """All of them, also those that the management API has not heard of yet."""
        self.control("close_all_connections", "scenario")

    def queue(self, name: str) -> dict:
        return self.api("GET", f"queues/{_VHOST}/{name}")

    def _configuration(self) -> str:
        """On ports of ours."""
        return "\n".join(
            [
                *(line.replace("{own}", self._inside) for line in self._lines),
                f"listeners.tcp.1 = 127.0.0.1:{self.amqp}",
                "management.tcp.ip = 127.0.0.1",
                f"management.tcp.port = {self.management}",
                "prometheus.tcp.ip = 127.0.0.1",
                f"prometheus.tcp.port = {self.metrics}",
                f"default_user = {self.admin[0]}",
                f"default_pass = {self.admin[1]}",
                "collect_statistics_interval = 2000",
                "",
            ]
        )

    def _environment(self) -> str:
        values = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": f"{self._inside}/home",
            "ERL_EPMD_PORT": self._epmd,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "ops@localhost",
            "RABBITMQ_DIST_PORT": self._dist,
            "RABBITMQ_MNESIA_BASE": f"{self._inside}/data",
            "RABBITMQ_LOG_BASE": f"{self._inside}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{self._inside}/pid",
            "RABBITMQ_CONFIG_FILE": f"{self._inside}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self._inside}/enabled_plugins",
        }
        return " ".join(f"{name}={value}" for name, value in values.items())

    def _is_up(self) -> bool:
        if self._node and not self._node.runs():
            raise RuntimeError(f"RabbitMQ ended; see {self._node.log}")
        try:
            self.api("GET", "overview")
            return True
        except OSError:
            return False


class Broker(Node):
    """As k8s/components/rabbitmq configures and peoples it."""

    def __init__(self, root: Path, folder: Path, without: tuple[str, ...] = ()):
        """`without` are keys of the manifest's configuration that this one does not have."""
        cluster = yaml.safe_load((MANIFESTS / "cluster.yaml").read_text())
        # Those that need other nodes or disks are left out too.
        left_out = ("#", "disk_free", *without)
        lines = cluster["spec"]["rabbitmq"]["additionalConfig"].splitlines()
        super().__init__(root, folder, [line for line in lines if not line.startswith(left_out)])
        self.users: dict[str, str] = {}

    def start(self) -> None:
        super().start()
        self._people()

    def _people(self) -> None:
        """Users, permissions and policies of the manifests, so that the workers run with what they would have."""
        for path in sorted(MANIFESTS.glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                self._apply(document)

    def _apply(self, document: dict) -> None:
        name, spec = document["metadata"]["name"] if "metadata" in document else "", document.get("spec", {})
        match document.get("kind"):
            case "User":
                self.users[name] = secrets.token_urlsafe(12)
                tags = ",".join(spec.get("tags", []))
                self.api("PUT", f"users/{name}", {"password": self.users[name], "tags": tags})
            case "Permission":
                self.api("PUT", f"permissions/{_VHOST}/{spec['userReference']['name']}", spec["permissions"])
            case "Policy":
                policy = {"pattern": spec["pattern"], "apply-to": spec["applyTo"], "definition": spec["definition"]}
                self.api("PUT", f"policies/{_VHOST}/{spec['name']}", policy)
