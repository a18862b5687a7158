"""What a broker without operators is given, from the resources of k8s/components/rabbitmq, so that queue types, policies and
permissions are the same everywhere. `jm_ops.generate` writes it for docker-compose.yml and for the overlay `dev`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

from jm_ops.workers import ROOT

MANIFESTS = ROOT / "k8s" / "components" / "rabbitmq"
# The folder of definitions; the first file in it has the users, whose passwords are known only where it runs.
DEFINITIONS = "/etc/rabbitmq/definitions"
# Of a cluster of its own machines alone.
_LEFT_OUT = ("#", "disk_free", "vm_memory")
_HEADER = "# Written by `make dashboards` from k8s/components/rabbitmq/cluster.yaml, where the reasons are.\n"


def resources(kind: str) -> Iterator[dict]:
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document.get("kind") == kind:
                yield document


def settings() -> str:
    cluster = next(resources("RabbitmqCluster"))
    lines = cluster["spec"]["rabbitmq"]["additionalConfig"].splitlines()
    kept = [line for line in lines if not line.startswith(_LEFT_OUT)]
    kept += ["definitions.import_backend = local_filesystem", f"definitions.local.path = {DEFINITIONS}"]
    return _HEADER + "\n".join(kept) + "\n"


def policies() -> list[dict]:
    return [
        {
            "vhost": spec["vhost"],
            "name": spec["name"],
            "pattern": spec["pattern"],
            "apply-to": spec["applyTo"],
            "priority": spec.get("priority", 0),
            "definition": spec["definition"],
        }
        for spec in (one["spec"] for one in resources("Policy"))
    ]


def permissions() -> list[dict]:
    """Of all users but KEDA's, which is only where KEDA is."""
    return [
        {"user": spec["userReference"]["name"], "vhost": spec["vhost"], **spec["permissions"]}
        for spec in (one["spec"] for one in resources("Permission"))
        if spec["userReference"]["name"] != "keda"
    ]


def definitions(with_permissions: bool) -> str:
    content = {"policies": policies()} | ({"permissions": permissions()} if with_permissions else {})
    return json.dumps(content, indent=2) + "\n"
