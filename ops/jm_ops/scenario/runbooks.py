"""`python -m jm_ops.scenario.runbooks --workers FOLDER --rabbitmq ROOT`: every command of docs/runbooks.md, run in its order.

There is a real broker with the shipped configuration, users and policies, PostgreSQL, workers, and dead letters that real
failures have made. `kubectl` is jm_ops.scenario.cluster. A command has to end with 0; one that only looks may have found
something, and then ends with 1. The page *Backup and restore* is rehearsed: what it saves is destroyed before it is restored.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pika

from jm_ops import manifests
from jm_ops.scenario.broker import Broker
from jm_ops.scenario.cluster import Stand
from jm_ops.scenario.engine import Engine
from jm_ops.scenario.fleet import One, fleet
from jm_ops.scenario.load import Producer, recording
from jm_ops.scenario.machine import free_ports, until
from jm_ops.workers import ROOT, workers

_PAGE = ROOT / "docs" / "runbooks.md"
# Functions that the page defines, and programs: an inline piece of code that begins with one is a command.
_COMMAND = re.compile(r"(?:jm|look|kubectl|rabbitmqctl|rabbitmq-diagnostics|pg_dump|pg_restore|curl) \S")
_FUNCTION = re.compile(r"^\w+\(\) \{")
_LOOKS = re.compile(r"^(?:jm|look) (?:status|doctor|topology check)\b")
_PAUSE = re.compile(r"autoscaling\.keda\.sh/paused-replicas(?:=(\d+)|(-))$")
DEAD_LETTERS = 6


def commands(text: str) -> tuple[str, list[str]]:
    """Of a page the functions that it defines, and everything else that somebody types, in its order."""
    functions: list[str] = []
    found: list[str] = []
    for block, inline in re.findall(r"^```sh\n(.*?)^```|`([^`]+)`", text, re.MULTILINE | re.DOTALL):
        if inline:
            one = re.sub(r"\s+", " ", inline)
            if _COMMAND.match(one):
                found.append(one)
            continue
        for line in block.replace("\\\n", " ").splitlines():
            (functions if _FUNCTION.match(line) else found).append(line.strip())
    return "\n".join(functions), [one for one in found if one]


class Database:
    """PostgreSQL of this machine, private."""

    def __init__(self, folder: Path):
        (self.port,) = free_ports(1)
        self.folder = folder / "postgres"
        self.folder.mkdir(mode=0o755)
        folder.chmod(0o755)
        self.bin = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.url = f"postgres://jm@127.0.0.1:{self.port}/records"

    def start(self) -> None:
        shutil.chown(self.folder, "postgres", "postgres")
        data = self.folder / "data"
        self._as_postgres("initdb", "--auth=trust", "--username=jm", "--no-sync", "-D", str(data))
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._as_postgres("pg_ctl", "-w", "-D", str(data), "-l", str(self.folder / "log"), "-o", options, "start")
        self._as_postgres("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "jm", "records")

    def stop(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self._as_postgres("pg_ctl", "-m", "immediate", "-D", str(self.folder / "data"), "stop")

    def content(self) -> str:
        done = subprocess.run(
            [self.bin / "pg_dump", "--data-only", self.url], capture_output=True, text=True, check=True
        )
        # A line that is another one each time.
        return "\n".join(line for line in done.stdout.splitlines() if not line.startswith("\\"))

    def destroy(self) -> None:
        drop = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
        subprocess.run([self.bin / "psql", "--quiet", self.url, "-c", drop], capture_output=True, check=True)

    def _as_postgres(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", self.bin / program, *arguments],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.strip()}")


class Incident:
    def __init__(self, programs: Path, rabbitmq: Path, folder: Path):
        self._programs, self._folder = programs, folder
        self.broker, self.engine, self.database = Broker(rabbitmq, folder), Engine(), Database(folder)
        self.engine.takes = {}
        self.fleet: dict[str, One] = {}
        self._documents = manifests.build(ROOT / "k8s/overlays/production")
        self.stand = Stand(folder, self._documents)

    def begin(self) -> None:
        self.database.start()
        self.broker.start()
        recording(self._folder / "recordings")
        everybody = fleet(self._programs, self.broker, self.engine.url, self._folder, self._folder / "recordings")
        self.fleet = {name: one for name, one in everybody.items() if (self._programs / name).exists()}
        for name, one in self.fleet.items():
            self._start(name)
            self.stand.logs(name, self._folder / f"{name}.log")
            self.stand.program(name, f"/usr/local/bin/{name}", [str(self._programs / name)], one.env)
        for one in self.fleet.values():
            one.wait_ready()
        control = self.broker.ctl()
        self.stand.program("rabbitmq", "rabbitmqctl", control.command, control.env)
        for program in ("tee", "rm"):
            self.stand.program("rabbitmq", program, [*control.command[:2], f"/usr/bin/{program}"], control.env)
        for deployment, user in (("jm", "jm-viewer"), ("jm-operator", "jm")):
            self._jm(deployment, user)
        producer = Producer(self.broker)
        producer.note()
        until("record in the database", 60, lambda: "Monday" in self.database.content())
        producer.close()
        self._fail()

    def end(self) -> None:
        for one in self.fleet.values():
            one.end(10)
        self.engine.stop()
        self.broker.stop()
        self.database.stop()

    def run(self) -> Iterator[str]:
        functions, wanted = commands(_PAGE.read_text())
        kept: tuple[object, str] | None = None
        for command in wanted:
            if "pg_dump" in command:
                kept = self._topology(), self.database.content()
            if "exec -i rabbitmq-server-0 -- tee" in command:
                self._destroy()
            if command.startswith("jm dead drop"):
                self._fail()  # those before have been put back
            begun = time.monotonic()
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"{functions}\n{command}"],
                cwd=self._folder, env=self._environment(), stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=120, check=False,
            )  # fmt: skip
            print(f"  {done.returncode} {time.monotonic() - begun:5.1f} s  {command}", flush=True)
            if done.returncode not in ((0, 1) if _LOOKS.match(command) else (0,)):
                said = (done.stderr.strip() or done.stdout.strip())[-600:]
                yield f"`{command}` ends with {done.returncode}: {said}"
            self._obey()
        if kept is None:
            yield "nothing was saved"
        elif kept != (self._topology(), self.database.content()):
            yield "what was restored is not what was saved"

    def _fail(self) -> None:
        """Tasks that the engine answers with an error as often as they are tried."""
        self.engine.fails = {"chat"}
        producer = Producer(self.broker)
        producer.chats(DEAD_LETTERS)
        producer.close()
        until("dead letters", 60, lambda: self._dead() >= DEAD_LETTERS)
        self.engine.fails = set()

    def _start(self, name: str) -> None:
        database = {"JM_DATABASE__URL": self.database.url} if name == "record-event-worker" else {}
        self.fleet[name].start(**database)

    def _jm(self, deployment: str, user: str) -> None:
        """With the variables of its manifest, and the one line of its Secret that docs/operations.md tells."""
        own = self._folder / deployment
        shutil.copytree(ROOT / "config", own / "config")
        (own / "config" / "jm.yaml").write_text(f"rabbitmq: {{ name: {user}, password: {self.broker.users[user]} }}\n")
        (own / "database-url").write_text(self.database.url)
        here = {
            "JM_CONFIG": str(own / "config"),
            "JM_MANAGEMENT__URL": f"http://127.0.0.1:{self.broker.management}",
            "JM_DATABASE__URL_FILE": str(own / "database-url"),
        }
        (pod,) = (
            one["spec"]["template"]["spec"]
            for one in self._documents
            if (one["kind"], one["metadata"]["name"]) == ("Deployment", deployment)
        )
        env = {one["name"]: here[one["name"]] for one in pod["containers"][0]["env"]}
        env |= {"JM_RABBITMQ__HOST": "127.0.0.1", "JM_RABBITMQ__PORT": str(self.broker.amqp), "PATH": "/usr/bin:/bin"}
        self.stand.program(deployment, "/usr/local/bin/jm", [str(self._programs / "jm")], env, str(own))

    def _environment(self) -> dict[str, str]:
        path = f"{self._folder}/bin:{self.database.bin}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "ops"), "DATABASE_URL": self.database.url}

    def _obey(self) -> None:
        """As KEDA would: whoever is paused is ended, and started again afterwards."""
        for name, annotation in self.stand.told():
            if name not in self.fleet:
                continue
            replicas, over = _PAUSE.search(annotation).groups()  # type: ignore[union-attr]
            self.fleet[name].end()
            if over or replicas != "0":
                self._start(name)
                self.fleet[name].wait_ready()

    def _destroy(self) -> None:
        self.database.destroy()
        for queue in self.broker.api("GET", "queues/%2F"):
            self.broker.api("DELETE", f"queues/%2F/{queue['name']}")
        for policy in self.broker.api("GET", "policies/%2F"):
            self.broker.api("DELETE", f"policies/%2F/{policy['name']}")
        for worker in workers():
            self.broker.api("DELETE", f"users/{worker.name}")

    def _topology(self) -> object:
        found = self.broker.api("GET", "definitions")
        lists = ("queues", "exchanges", "bindings", "policies", "users", "permissions")
        return {name: sorted(str(one) for one in found[name] if "amq.gen" not in str(one)) for name in lists}

    def _dead(self) -> int:
        """Asked by AMQP: the management API's figures are seconds old."""
        user = pika.PlainCredentials(*self.broker.admin)
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self.broker.amqp, credentials=user)) as one:
            return int(one.channel().queue_declare("jm.llm.dead", passive=True).method.message_count)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--workers", type=Path, required=True)
    arguments.add_argument("--rabbitmq", type=Path, required=True)
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jm-ops-"))
    incident = Incident(chosen.workers.resolve(), chosen.rabbitmq, folder)
    wrong = ["it did not come to an end"]
    try:
        incident.begin()
        wrong = list(incident.run())
        for mistake in wrong:
            print(f"WRONG {mistake}", file=sys.stderr)
    finally:
        incident.end()
        if wrong:
            print(f"logs are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    if not wrong:
        print("runbooks: every command does what it says, and what was backed up was restored")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
