"""Checks of the Kubernetes resources that take no cluster: schemas of every resource, and what no schema says.

`python -m jm_ops.manifests` prints what is wrong, and ends with 1 if anything is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

from jm_ops.workers import ROOT, seconds, workers

KUBERNETES = "1.37"
# Where scripts/install-ops-tools has put them.
TOOLS = Path(os.environ["JM_OPS_TOOLS"])
_K8S = ROOT / "k8s"
_PAGE = ROOT / "docs" / "operations.md"
_SCHEMAS = ROOT / "ops" / "schemas"
_MODELLED = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1")
# Seconds to close connections (1), the publisher (2), and to send reports (2), with room; see docs/operations.md.
CLOSING = 30


def build(folder: Path) -> list[dict]:
    """What `kubectl kustomize` makes of a folder."""
    done = subprocess.run(
        [TOOLS / "programs/usr/bin/kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def name_of(document: dict) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def schemas(documents: list[dict]) -> Iterator[str]:
    """Unknown fields are mistakes too: the API server would drop them without a word."""
    rabbitmq = yaml.safe_load((_SCHEMAS / "rabbitmq.yaml").read_text())
    modelled = [document for document in documents if document["apiVersion"] in _MODELLED]
    for document in documents:
        if document["apiVersion"] == "rabbitmq.com/v1beta1":
            schema = rabbitmq[document["kind"]] | {"$defs": rabbitmq["$defs"]}
            for error in jsonschema.Draft202012Validator(schema).iter_errors(document["spec"]):
                yield f"{name_of(document)}: spec.{'.'.join(map(str, error.path))}: {error.message}"
        elif document not in modelled:
            try:
                kubernetes_validate.validate(document, KUBERNETES, strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                yield f"{name_of(document)}: {error}"
    if modelled:
        lines = "\n".join(json.dumps(document) for document in modelled)
        # Its text, since Node looks for packages beside a file, and they are beside the tools.
        command = ["node", "--input-type=module", "--eval", (_SCHEMAS / "validate.mjs").read_text()]
        done = subprocess.run(command, cwd=TOOLS / "node", input=lines, capture_output=True, text=True, check=False)
        yield from done.stderr.splitlines()
        if done.returncode and not done.stderr:
            yield f"validate.mjs ended with {done.returncode}"


def selectors(documents: list[dict]) -> Iterator[str]:
    """A selector that is empty, or that fits others' pods too, is valid and does harm."""
    deployments = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Deployment"}
    labels = {name: document["spec"]["template"]["metadata"]["labels"] for name, document in deployments.items()}
    labels |= {
        one["metadata"]["name"]: {"app.kubernetes.io/name": one["metadata"]["name"]}
        for one in documents
        if one["kind"] == "RabbitmqCluster"
    }
    for document in documents:
        if document["kind"] not in ("Deployment", "PodDisruptionBudget"):
            continue
        wanted = document["spec"]["selector"].get("matchLabels", {})
        chosen = [name for name, own in labels.items() if wanted.items() <= own.items()]
        if chosen != [document["metadata"]["name"]]:
            yield f"{name_of(document)} selects the pods of {chosen}"
    for name, deployment in deployments.items():
        for spread in deployment["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            wanted = spread["labelSelector"].get("matchLabels", {})
            if not wanted or not wanted.items() <= labels[name].items():
                yield f"Deployment {name}: a topologySpreadConstraint counts other pods"


def reached(documents: list[dict]) -> Iterator[str]:
    """Prometheus finds every worker, and each network policy is about somebody."""
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in documents if one["kind"] == "Deployment"]
    pods += [
        {"app.kubernetes.io/name": one["metadata"]["name"]} for one in documents if one["kind"] == "RabbitmqCluster"
    ]
    for document in documents:
        match document["kind"]:
            case "PodMonitor" if document["metadata"]["name"] == "jm-mq":
                wanted = document["spec"]["selector"]["matchLabels"]
                found = {one["app.kubernetes.io/name"] for one in pods if wanted.items() <= one.items()}
                if found != {worker.name for worker in workers()}:
                    yield f"{name_of(document)} finds {sorted(found)}"
            case "NetworkPolicy":
                wanted = document["spec"]["podSelector"].get("matchLabels", {})
                if not any(wanted.items() <= one.items() for one in pods):
                    yield f"{name_of(document)} is about nobody"


def scaled(documents: list[dict]) -> Iterator[str]:
    """Who applies a number of replicas that an autoscaler owns, undoes its scaling, each time."""
    deployments = {one["metadata"]["name"]: one for one in documents if one["kind"] == "Deployment"}
    for document in documents:
        if document["kind"] not in ("ScaledObject", "HorizontalPodAutoscaler"):
            continue
        name = document["spec"]["scaleTargetRef"]["name"]
        if name not in deployments:
            yield f"{name_of(document)} scales {name}, and there is no such Deployment"
        elif "replicas" in deployments[name]["spec"]:
            yield f"Deployment {name} has replicas, which {name_of(document)} owns"


def brokers(documents: list[dict]) -> Iterator[str]:
    """A node that is drained does not take a quorum queue's majority."""
    budgets = [one["spec"] for one in documents if one["kind"] == "PodDisruptionBudget"]
    for cluster in (one for one in documents if one["kind"] == "RabbitmqCluster"):
        pods = {"app.kubernetes.io/name": cluster["metadata"]["name"]}
        if not any(one["selector"].get("matchLabels") == pods and one.get("maxUnavailable") == 1 for one in budgets):
            yield f"{name_of(cluster)} has no PodDisruptionBudget of one pod at a time"


def encrypted(documents: list[dict]) -> Iterator[str]:
    """Whoever speaks to the broker by this project's programs does so by TLS, and may not do otherwise."""
    for document in (one for one in documents if one["kind"] == "Deployment"):
        container = document["spec"]["template"]["spec"]["containers"][0]
        named = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
        given: dict[str, str] = {}
        for one in documents:
            if one["kind"] == "ConfigMap" and one["metadata"]["name"] in named:
                given |= one["data"]
        authority = Path(given.get("JM_RABBITMQ__TLS__CA_FILE", ""))
        if str(authority.parent) not in {mount["mountPath"] for mount in container["volumeMounts"]}:
            yield f"{name_of(document)} does not trust an authority that is mounted, or speaks no TLS to the broker"
    for document in (one for one in documents if one["kind"] == "RabbitmqCluster"):
        if "tls" not in document["spec"]:
            yield f"{name_of(document)} has no certificate"
    for document in (one for one in documents if name_of(one) == "NetworkPolicy rabbitmq"):
        for rule in document["spec"]["ingress"]:
            ours = any("component" in str(peer) or "name: jm" in str(peer) for peer in rule["from"])
            if ours and any(port["port"] == 5672 for port in rule.get("ports", [])):
                yield f"{name_of(document)} lets ours in without TLS"


def discovered(documents: list[dict]) -> Iterator[str]:
    """What the Prometheus operator chooses by its label has it, and each alert's link is an address."""
    for document in (one for one in documents if one["apiVersion"] == "monitoring.coreos.com/v1"):
        if not document["metadata"].get("labels", {}).get("release"):
            yield f"{name_of(document)} has no label `release`"
        for group in document["spec"].get("groups", []):
            for rule in group["rules"]:
                if not rule["annotations"]["runbook_url"].startswith("https://"):
                    yield f"{rule['alert']}: its runbook_url is {rule['annotations']['runbook_url']}"
    for document in (one for one in documents if one["kind"] == "TriggerAuthentication"):
        spec = document["spec"]
        name = next((one["name"] for one in spec.get("configMapTargetRef", []) if one["parameter"] == "host"), "")
        hosts = [one["data"]["host"] for one in documents if name_of(one) == f"ConfigMap {name}"]
        namespace = document["metadata"]["namespace"]
        if not hosts or f".{namespace}.svc" not in hosts[0]:
            yield f"{name_of(document)}: its host is not to be found from KEDA's own namespace: {hosts}"
    for document in (one for one in documents if one["kind"] == "ServiceAccount"):
        if not document.get("imagePullSecrets"):
            yield f"{name_of(document)} pulls images without a Secret"


def secrets(documents: list[dict], page: str) -> Iterator[str]:
    """docs/operations.md lists every Secret that something needs, and says of those that users are imported from which label
    they bear: the Topology Operator refuses a User without it."""
    imported = {one["spec"]["importCredentialsSecret"]["name"] for one in documents if one["kind"] == "User"}
    needed = imported | {name for document in documents for name in _secrets(document)}
    listed: dict[str, bool] = {}
    labelled = False
    for row in re.findall(r"^ *\| (.*?) \|", page[page.index("| Secret | keys |") :], re.MULTILINE):
        if row.startswith("**"):
            labelled = 'rabbitmq.com/topology-operator: "true"' in row
        listed |= dict.fromkeys(re.findall(r"`([a-z-]+)`", row), labelled) if "rabbitmq.com/" not in row else {}
        if row.startswith("in `dev` alone"):
            break
    yield from (f"docs/operations.md does not list the Secret {name}" for name in sorted(needed - listed.keys()))
    for name in sorted(imported & listed.keys()):
        if not listed[name]:
            yield f"docs/operations.md does not say that {name} bears the Topology Operator's label"


def _secrets(document: dict) -> Iterator[str]:
    match document["kind"]:
        case "Deployment":
            for volume in document["spec"]["template"]["spec"].get("volumes", []):
                if "secret" in volume:
                    yield volume["secret"]["secretName"]
                yield from (
                    one["secret"]["name"] for one in volume.get("projected", {}).get("sources", []) if "secret" in one
                )
        case "RabbitmqCluster":
            yield document["spec"]["tls"]["secretName"]
        case "TriggerAuthentication":
            yield from (one["name"] for one in document["spec"]["secretTargetRef"])
        case "ServiceAccount":
            yield from (one["name"] for one in document.get("imagePullSecrets", []))


def patches(tree: Path = _K8S) -> Iterator[str]:
    """A patch whose target nothing fits is valid and does nothing. Each is replaced by one that must fail if it reaches
    anything, so that kustomize itself says what a target fits."""
    for path in sorted(tree.rglob("kustomization.yaml")):
        for index, one in enumerate(yaml.safe_load(path.read_text()).get("patches", [])):
            if "target" in one and not _reaches(tree, path, index):
                yield f"{path.relative_to(tree)}: a patch reaches nothing: {one['target']}"


@contextmanager
def _with_storage(tree: Path) -> Iterator[Path]:
    """Production with the components that no overlay here has, in a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="jm-ops-") as folder:
        copy = Path(folder) / "k8s"
        shutil.copytree(tree, copy)
        shutil.copytree(ROOT / "config", Path(folder) / "config")
        kustomization = copy / "overlays/production/kustomization.yaml"
        document = yaml.safe_load(kustomization.read_text())
        document["components"].append("../../components/storage")
        kustomization.write_text(yaml.dump(document))
        yield copy


def _reaches(tree: Path, path: Path, index: int) -> bool:
    with _with_storage(tree) as copy:
        kustomization = copy / path.relative_to(tree)
        document = yaml.safe_load(kustomization.read_text())
        # Others first would hide it: they fail where it has changed what they look at.
        document["patches"] = [
            {
                "target": document["patches"][index]["target"],
                "patch": '[{"op": "test", "path": "/kind", "value": "none"}]',
            }
        ]
        kustomization.write_text(yaml.dump(document))
        for overlay in sorted((copy / "overlays").iterdir()):
            try:
                build(overlay)
            except RuntimeError as error:
                if "testing value /kind failed" not in str(error):
                    raise
                return True
    return False


def hardened(documents: list[dict]) -> Iterator[str]:
    """The pod security standard `restricted`, a read-only root, no token, limits."""
    for document in (one for one in documents if one["kind"] == "Deployment"):
        spec = document["spec"]["template"]["spec"]
        pod = spec.get("securityContext", {})
        demands = {
            "runAsNonRoot": pod.get("runAsNonRoot") is True,
            "seccompProfile": pod.get("seccompProfile", {}).get("type") == "RuntimeDefault",
            "automountServiceAccountToken: false": spec.get("automountServiceAccountToken") is False,
            "no host's namespaces": not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")),
            "volumes of the standard": all(
                {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"} & volume.keys()
                for volume in spec.get("volumes", [])
            ),
        }
        for container in spec["containers"] + spec.get("initContainers", []):
            own = container.get("securityContext", {})
            demands |= {
                "allowPrivilegeEscalation: false": own.get("allowPrivilegeEscalation") is False,
                "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
                "capabilities dropped": own.get("capabilities") == {"drop": ["ALL"]},
                "a memory limit": "memory" in container.get("resources", {}).get("limits", {}),
                "requests": {"cpu", "memory"} <= container.get("resources", {}).get("requests", {}).keys(),
            }
        yield from (f"{name_of(document)} lacks {what}" for what, met in demands.items() if not met)


def of_workers(documents: list[dict]) -> Iterator[str]:
    """Probes, grace periods, secrets and configuration of the workers' Deployments."""
    by_name = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    for worker in workers():
        deployment = by_name.get(("Deployment", worker.name))
        if not deployment:
            yield f"there is no Deployment {worker.name}"
            continue
        spec = deployment["spec"]["template"]["spec"]
        container = spec["containers"][0]
        env = {one["name"]: one.get("value", "") for one in container["env"]}
        drain = (
            seconds(env["JM_CONSUMER__DRAIN_TIMEOUT"]) if "JM_CONSUMER__DRAIN_TIMEOUT" in env else worker.drain_timeout
        )
        if spec["terminationGracePeriodSeconds"] < drain + CLOSING:
            yield f"{worker.name}: terminationGracePeriodSeconds is not {CLOSING} s above drain_timeout ({drain:.0f} s)"
        for probe, path in (("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")):
            if container.get(probe, {}).get("httpGet", {}).get("path") != path:
                yield f"{worker.name}: its {probe} does not ask {path}"
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        yield from (f"{worker.name}: {name} is mounted and is no volume" for name in mounted.keys() - volumes.keys())
        config = by_name.get(("ConfigMap", volumes["config"]["configMap"]["name"]), {}).get("data", {})
        if config.keys() != {"default.yaml", f"{worker.name}.yaml"}:
            yield f"{worker.name}: its ConfigMap has {sorted(config)}"
        sources = {source["secret"]["name"] for source in volumes["secrets"]["projected"]["sources"]}
        if sources != {worker.name, f"{worker.name}-rabbitmq"}:
            yield f"{worker.name}: its secrets are {sorted(sources)}"
        for variable, value in env.items():
            if variable.endswith("_FILE") and not value.startswith(mounted["secrets"] + "/"):
                yield f"{worker.name}: {variable} is outside of the mounted secrets"


def operators(documents: list[dict]) -> Iterator[str]:
    """Who mends by `jm` may put back and take out every worker's dead letters, and no task; who looks may do nothing."""
    of_users = {
        one["spec"]["userReference"]["name"]: one["spec"]["permissions"]
        for one in documents
        if one["kind"] == "Permission"
    }
    tagged = {one["metadata"]["name"]: one["spec"].get("tags") for one in documents if one["kind"] == "User"}
    for user in ("jm", "jm-viewer"):
        if user not in of_users:
            yield f"there is no Permission for {user}"
            return
        if tagged.get(user) != ["monitoring"]:
            yield f"{user}: its tags are {tagged.get(user)}"
    mends, looks = of_users["jm"], of_users["jm-viewer"]
    for worker in workers():
        if not re.search(mends["write"], worker.queue):
            yield f"jm may not publish to {worker.queue}"
        if not re.search(mends["read"], f"{worker.queue}.dead"):
            yield f"jm may not take from {worker.queue}.dead"
        for right, name in (("configure", worker.queue), ("configure", f"{worker.queue}.dead"), ("read", worker.queue)):
            if re.search(mends[right], name):
                yield f"jm may {right} {name}"
        for right, allowed in looks.items():
            if re.search(allowed, worker.queue) or re.search(allowed, f"{worker.queue}.dead"):
                yield f"jm-viewer may {right} what belongs to {worker.queue}"


def components() -> Iterator[str]:
    """Every worker is in every component, and each autoscaler knows its queue."""
    scalers = {
        one["metadata"]["name"]: one
        for path in (_K8S / "components/keda").glob("*.yaml")
        for one in _documents(path, "ScaledObject")
    }
    pods = {
        one["metadata"]["name"]: one
        for one in _documents(_K8S / "components/hpa/autoscalers.yaml", "HorizontalPodAutoscaler")
    }
    users = {
        one["metadata"]["name"]: one
        for path in (_K8S / "components/rabbitmq").glob("*.yaml")
        for one in _documents(path, "User")
    }
    dashboards = {path.stem for path in (_K8S / "components/monitoring/dashboards").glob("*.json")}
    for worker in workers():
        for what, known in (("keda", scalers), ("hpa", pods), ("rabbitmq", users), ("monitoring", dashboards)):
            if worker.name not in known:
                yield f"k8s/components/{what} does not know {worker.name}"
        if worker.name not in scalers:
            continue
        trigger = scalers[worker.name]["spec"]["triggers"][0]["metadata"]
        if trigger["queueName"] != worker.queue:
            yield f"keda: {worker.name} is scaled by {trigger['queueName']}"
        if trigger["protocol"] != "http" or trigger["excludeUnacknowledged"] != "false":
            yield f"keda: {worker.name}: messages in work are not counted"
        if float(trigger["value"]) <= worker.concurrency * worker.prefetch:
            yield f"keda: {worker.name}: its threshold is what one replica always holds"


def _documents(path: Path, kind: str) -> Iterator[dict]:
    return (one for one in yaml.safe_load_all(path.read_text()) if isinstance(one, dict) and one.get("kind") == kind)


def sixth_worker() -> Iterator[str]:
    """One more folder, a line in the base and its file in config/ are a whole worker."""
    with tempfile.TemporaryDirectory(prefix="jm-ops-") as folder:
        copy = Path(folder)
        shutil.copytree(_K8S, copy / "k8s")
        shutil.copytree(ROOT / "config", copy / "config")
        _rename(copy / "k8s/base/llm-worker", copy / "k8s/base/ocr-worker")
        (copy / "config/ocr-worker.yaml").write_text("consumer: { queue: jm.ocr }\n")
        with (copy / "config/kustomization.yaml").open("a") as file:
            file.write("  - name: ocr-worker-config\n    files: [default.yaml, ocr-worker.yaml]\n")
        base = copy / "k8s/base/kustomization.yaml"
        base.write_text(base.read_text().replace("  - llm-worker\n", "  - llm-worker\n  - ocr-worker\n"))
        documents = build(copy / "k8s/base")
    found = {one["kind"] for one in documents if one["metadata"]["name"].startswith("ocr-worker")}
    missing = {"Deployment", "PodDisruptionBudget", "ServiceAccount", "ConfigMap"} - found
    if missing:
        yield f"a sixth worker's folder does not make {sorted(missing)}"
    yield from selectors(documents)
    yield from hardened(documents)


def _rename(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    for path in target.iterdir():
        path.write_text(re.sub(r"\bllm-", "ocr-", path.read_text()))


def main() -> int:
    wrong: list[str] = [*components(), *sixth_worker(), *patches()]
    count = 0
    with _with_storage(_K8S) as tree:
        built = {"production with storage": build(tree / "overlays/production")}
    for overlay in sorted((_K8S / "overlays").iterdir()):
        built[overlay.name] = build(overlay)
    for name, documents in built.items():
        count += len(documents)
        wrong += [f"{name}: {mistake}" for mistake in secrets(documents, _PAGE.read_text())]
        for check in (schemas, selectors, reached, scaled, hardened):
            wrong += [f"{name}: {mistake}" for mistake in check(documents)]
        if name != "dev":
            for check in (of_workers, operators, brokers, encrypted, discovered):
                wrong += [f"{name}: {mistake}" for mistake in check(documents)]
    # The other autoscaler is in no overlay.
    hpa = list(_documents(_K8S / "components/hpa/autoscalers.yaml", "HorizontalPodAutoscaler"))
    wrong += [f"hpa: {mistake}" for mistake in (*schemas(hpa), *scaled([*build(_K8S / "base"), *hpa]))]
    for mistake in wrong:
        print(mistake, file=sys.stderr)
    if not wrong:
        print(f"kubernetes: {count} resources of all overlays have known fields only, and hold what the checks demand")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
