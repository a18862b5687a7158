"""`kubectl` as far as a test without a cluster can have it: it knows what the manifests of the overlay `production` have, refuses
what they have not, and runs in the pods what the scenario has in their place.

`Stand` writes the program `kubectl` into a folder; each call of it reads what there is from a file beside it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMESPACE = "jm-mq"
_PLURALS = {"pod": "pods", "scaledobject": "scaledobjects", "deployment": "deployments"}


class RefusedError(Exception):
    """What a cluster would not do."""


class Stand:
    """The program, what it knows, and what it was told."""

    def __init__(self, folder: Path, documents: list[dict]):
        self.folder = folder
        self._state: dict[str, Any] = {
            "documents": [
                {
                    "kind": one["kind"],
                    "name": one["metadata"]["name"],
                    "pods": _labels(one),
                    "replicas": one.get("spec", {}).get("replicas", 1),
                    "target": one.get("spec", {}).get("scaleTargetRef", {}).get("name"),
                }
                for one in documents
                if one["kind"] in ("Deployment", "ScaledObject", "RabbitmqCluster")
            ],
            "programs": {},
            "logs": {},
        }
        (folder / "bin").mkdir()
        program = folder / "bin" / "kubectl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jm_ops.scenario.cluster {folder} "$@"\n')
        program.chmod(0o755)
        self._save()

    def program(self, pod: str, name: str, command: list[str], env: dict[str, str], folder: str = "") -> None:
        """What runs where `name` is executed in a pod, or in a pod of the Deployment; /var/lib/jm is `folder` there."""
        self._state["programs"][f"{pod} {name}"] = {"command": command, "env": env, "folder": folder}
        self._save()

    def logs(self, deployment: str, path: Path) -> None:
        self._state["logs"][deployment] = str(path)
        self._save()

    def told(self) -> list[list[str]]:
        """Annotations that were set since the last time: scaled object, annotation."""
        path = self.folder / "annotations"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.split(" ", 1) for line in lines]

    def _save(self) -> None:
        (self.folder / "state.json").write_text(json.dumps(self._state))


def _labels(document: dict) -> dict[str, str]:
    if document["kind"] == "Deployment":
        return dict(document["spec"]["template"]["metadata"]["labels"])
    return {"app.kubernetes.io/name": document["metadata"]["name"]} if document["kind"] == "RabbitmqCluster" else {}


class Cluster:
    def __init__(self, folder: Path):
        self._folder = folder
        state = json.loads((folder / "state.json").read_text())
        self._documents, self._programs, self._logs = state["documents"], state["programs"], state["logs"]

    def run(self, arguments: list[str]) -> int:
        if arguments[:2] != ["-n", NAMESPACE]:
            raise RefusedError(f"the namespace is {NAMESPACE}")
        verb, *rest = arguments[2:]
        if verb == "exec":
            return self._exec(rest)
        selector = re.search(r"(?:^| )-l (\S+)", " ".join(rest))
        names = [word for word in rest if not word.startswith("-") and word != "wide"]
        if selector:
            names.remove(selector[1])
            self._select(selector[1])
        match verb, names:
            case "logs", []:
                print(Path(self._logs[self._select(selector[1] if selector else "")]).read_text())
            case "get", ["pods" | "events" | "scaledobject"]:
                pass
            case "describe", ["pod"] | ["scaledobject", _]:
                self._known(names)
            case "rollout", ["restart" | "undo" | "status", one]:
                self._one("Deployment", one.removeprefix("deployment/"))
            case "scale", [one]:
                name = one.removeprefix("deployment/")
                self._one("Deployment", name)
                if any(one["target"] == name for one in self._documents):
                    raise RefusedError(f"KEDA undoes the scaling of {name} at its next poll")
            case "annotate", ["scaledobject", name, annotation]:
                self._one("ScaledObject", name)
                if not annotation.startswith("autoscaling.keda.sh/paused-replicas"):
                    raise RefusedError(f"KEDA knows no annotation {annotation}")
                with (self._folder / "annotations").open("a") as file:
                    file.write(f"{name} {annotation}\n")
            case _:
                raise RefusedError(f"no runbook has needed `{verb} {' '.join(rest)}` yet")
        return 0

    def _known(self, names: list[str]) -> None:
        if names[0] == "scaledobject":
            self._one("ScaledObject", names[1])

    def _one(self, kind: str, name: str) -> dict:
        for one in self._documents:
            if (one["kind"], one["name"]) == (kind, name):
                return dict(one)
        raise RefusedError(f"there is no {kind} {name}")

    def _select(self, selector: str) -> str:
        """The Deployment, or the broker, whose pods a selector finds."""
        wanted = dict(part.split("=", 1) for part in selector.split(","))
        for one in self._documents:
            if wanted.items() <= one["pods"].items():
                return str(one["name"])
        raise RefusedError(f"no pod has {selector}")

    def _exec(self, rest: list[str]) -> int:
        separator = rest.index("--")
        (target,) = [word for word in rest[:separator] if word != "-i"]
        program, *arguments = rest[separator + 1 :]
        if target.startswith("deployment/"):
            pod = str(self._one("Deployment", target.removeprefix("deployment/"))["name"])
        else:
            cluster, number = re.fullmatch(r"(.+)-server-(\d)", target).groups()  # type: ignore[union-attr]
            if int(number) >= self._one("RabbitmqCluster", cluster)["replicas"]:
                raise RefusedError(f"there is no pod {target}")
            pod = cluster
        known = self._programs.get(f"{pod} {program}")
        if not known:
            raise RefusedError(f"the image of {pod} has no {program}")
        arguments = [word.replace("/var/lib/jm", known["folder"]) for word in arguments]
        return subprocess.run([*known["command"], *arguments], env=known["env"], check=False).returncode


def main() -> int:
    try:
        return Cluster(Path(sys.argv[1])).run(sys.argv[2:])
    except RefusedError as error:
        print(f"kubectl: {shlex.join(sys.argv[2:])}: {error}", file=sys.stderr)
        return os.EX_UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
