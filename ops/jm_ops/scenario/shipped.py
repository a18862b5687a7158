"""`python -m jm_ops.scenario.shipped --rabbitmq ROOT`: what docker-compose.yml and the overlay `dev` give their broker, on a real one.

It has to become a broker like production's: the same policies, for `dev` also users and permissions, quorum queues by default;
and a dead letter stays however often somebody looks at it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pika
import yaml

from jm_ops import brokers, compose
from jm_ops.scenario.broker import Node
from jm_ops.workers import ROOT

LOOKS = 60
_DEV = ROOT / "k8s" / "overlays" / "dev" / "broker"


def _node(root: Path, folder: Path, configuration: Path, users: str, admin: tuple[str, str]) -> Node:
    lines = configuration.read_text().replace(brokers.DEFINITIONS, "{own}/definitions").splitlines()
    shared = (configuration.parent / "definitions.json").read_text()
    node = Node(root, folder, lines, {"definitions/10-users.json": users, "definitions/20-jm-mq.json": shared})
    node.admin = admin
    return node


def _of_compose(root: Path, folder: Path) -> Node:
    """With the user's file as docker-compose itself writes it."""
    env = folder / "env"
    env.write_text((ROOT / ".env.example").read_text().replace("PASSWORD=\n", "PASSWORD=5ec4e7\n"))
    user = compose.configuration("http", str(env))["configs"]["rabbitmq-user"]["content"]
    return _node(root, folder, ROOT / "ops/rabbitmq/rabbitmq.conf", user, ("jm", "5ec4e7"))


def _of_dev(root: Path, folder: Path) -> Node:
    """By the script of its first container, with Secrets where the manifest mounts them."""
    secrets, target = folder / "secrets", folder / "definitions"
    target.mkdir()
    for pod in yaml.safe_load_all((ROOT / "k8s/overlays/dev/rabbitmq.yaml").read_text()):
        if pod["kind"] == "Deployment":
            (mounted,) = (one for one in pod["spec"]["template"]["spec"]["volumes"] if one["name"] == "users")
    for source in mounted["projected"]["sources"]:
        for item in source["secret"]["items"]:
            path = secrets / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.parent.name if item["key"] == "username" else f"of {path.parent.name} $\"'\\")
    # As in the pod, where no broker runs yet.
    inside = root / folder.relative_to("/")
    inside.mkdir(parents=True)
    script = (
        'mount --bind "$2" "$1$2" && exec chroot "$1" /usr/bin/env -i PATH=/usr/lib/rabbitmq/bin:/usr/bin:/bin HOME="$2" '
        'LANG=C.UTF-8 sh "$2/users.sh" "$2/secrets" "$2/definitions.json" "$2/definitions"'
    )
    for name in ("users.sh", "definitions.json"):
        shutil.copy(_DEV / name, folder)
    try:
        subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", str(root), str(folder)], check=True)
    finally:
        inside.rmdir()
    users = (target / "10-users.json").read_text()
    return _node(root, folder, _DEV / "rabbitmq.conf", users, ("rabbitmq", "of rabbitmq $\"'\\"))


def _mistakes(name: str, node: Node) -> Iterator[str]:
    found = node.api("GET", "definitions")
    wanted = sorted(json.dumps(one, sort_keys=True) for one in brokers.policies())
    policies = sorted(json.dumps(one, sort_keys=True) for one in found["policies"])
    if policies != wanted:
        yield f"{name}: its policies are {policies}"
    if name == "dev":
        rights = {json.dumps(one, sort_keys=True) for one in found["permissions"] if one["user"] != node.admin[0]}
        if rights != {json.dumps(one, sort_keys=True) for one in brokers.permissions()}:
            yield f"dev: its permissions are {sorted(rights)}"
        tags = {one["name"]: one["tags"] for one in found["users"] if one["name"] != node.admin[0]}
        theirs = {one["metadata"]["name"]: one["spec"].get("tags", []) for one in brokers.resources("User")}
        if tags != {user: of for user, of in theirs.items() if user != "keda"}:
            yield f"dev: its users' tags are {tags}"
    yield from _looks(name, node)


def _looks(name: str, node: Node) -> Iterator[str]:
    """A dead letter is looked at again and again. Elsewhere the broker's own limit ends that, or this would prove nothing."""
    parameters = pika.ConnectionParameters("127.0.0.1", node.amqp, credentials=pika.PlainCredentials(*node.admin))
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    left = {}
    for queue in ("jm.llm.dead", "another"):
        channel.queue_declare(queue, durable=True)
        if node.queue(queue)["type"] != "quorum":
            yield f"{name}: {queue} is no quorum queue"
        channel.confirm_delivery() if queue == "jm.llm.dead" else None
        channel.basic_publish("", queue, b"{}", pika.BasicProperties(delivery_mode=2))
        looks = 0
        while looks < LOOKS:
            taken, _, _ = channel.basic_get(queue)
            if taken is None:
                break
            channel.basic_reject(taken.delivery_tag, requeue=True)
            looks += 1
        left[queue] = looks
    connection.close()
    if left["jm.llm.dead"] != LOOKS:
        yield f"{name}: a dead letter was gone after {left['jm.llm.dead']} looks"
    if left["another"] == LOOKS:
        yield f"{name}: the broker's own limit drops nothing, so nothing is shown of dead letters"
    print(
        f"  {name}: a dead letter stays for {left['jm.llm.dead']} looks, in a queue without the policy for {left['another']}"
    )


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rabbitmq", type=Path, required=True)
    root = arguments.parse_args().rabbitmq
    wrong: list[str] = []
    for name, make in (("docker-compose.yml", _of_compose), ("dev", _of_dev)):
        folder = Path(tempfile.mkdtemp(prefix="jm-ops-"))
        node = make(root, folder)
        try:
            node.start()
            wrong += _mistakes(name, node)
        finally:
            node.stop()
            shutil.rmtree(folder)
    for mistake in wrong:
        print(f"WRONG {mistake}", file=sys.stderr)
    if not wrong:
        print(
            "brokers: docker-compose.yml and the overlay dev have production's queue types and policies, dev its users too"
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
