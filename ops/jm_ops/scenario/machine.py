"""Processes and ports of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. They are all open at once, so none comes twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(what: str, limit: float, check: Callable[[], bool]) -> None:
    """Asks again and again, and says what it waited for when the limit has passed."""
    deadline = time.monotonic() + limit
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {limit:.0f} s")
        time.sleep(0.1)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (OSError, urllib.error.HTTPError):
        return False


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


class Process:
    """A program in a process group of its own, with its output in a file."""

    def __init__(
        self, name: str, command: list[str], folder: Path, env: dict[str, str] | None = None, cwd: Path | None = None
    ):
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def runs(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        if self.runs():
            os.killpg(self._process.pid, number)

    def wait(self, limit: float) -> int:
        return self._process.wait(limit)

    def end(self, limit: float = 30) -> int:
        """Asks it to end, and kills it if it does not."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(limit)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            return self.wait(5)
