"""`python -m jm_ops.scenario.migration --workers FOLDER --rabbitmq ROOT`: the steps of docs/operations.md, Move a classic
queue to a quorum queue, on a real broker, with a producer that does not stop. Every confirmed task has to be worked on.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import pika

from jm_ops.scenario.broker import Broker
from jm_ops.scenario.engine import Engine
from jm_ops.scenario.fleet import One, fleet
from jm_ops.scenario.load import recording
from jm_ops.scenario.machine import until

_QUEUE, _ASIDE = "jm.llm", "jm.llm.aside"


class Numbered:
    """Publishes tasks with a number each, mandatory and confirmed, until it is stopped."""

    def __init__(self, broker: Broker):
        self.confirmed: set[str] = set()
        self._broker, self._stop = broker, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        credentials = pika.PlainCredentials(*self._broker.admin)
        channel = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", self._broker.amqp, credentials=credentials)
        ).channel()
        channel.confirm_delivery()
        properties = pika.BasicProperties(content_type="text/plain", type="llm.chat", delivery_mode=2)
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            body = {"messages": [{"role": "user", "content": f"task {number}"}]}
            channel.basic_publish(
                _QUEUE, _QUEUE, json.dumps(body).encode(), properties, mandatory=True
            )  # raises unless it is routed
            self.confirmed.add(f"task {number}")


def _until_empty(broker: Broker, queue: str) -> None:
    """Neither ready nor unacked ones. A quorum queue tells its figures every five seconds: they have to stay at zero."""
    zeros = 0

    def stays_empty() -> bool:
        nonlocal zeros
        lines = broker.control("list_queues", "--quiet", "--no-table-headers", "name", "messages").splitlines()
        zeros = zeros + 1 if dict(line.split("\t") for line in lines)[queue] == "0" else 0
        time.sleep(2)
        return zeros > 6

    until(f"empty {queue}", 120, stays_empty)


def _move(broker: Broker, worker: One) -> None:
    def bind(queue: str) -> None:
        broker.api("POST", f"bindings/%2F/e/{_QUEUE}/q/{queue}", {"routing_key": _QUEUE})

    def unbind(queue: str) -> None:
        broker.api("DELETE", f"bindings/%2F/e/{_QUEUE}/q/{queue}/{_QUEUE}")

    quorum = {"durable": True, "arguments": {"x-queue-type": "quorum"}}
    broker.api("PUT", f"queues/%2F/{_ASIDE}", quorum)
    bind(_ASIDE)
    time.sleep(1)
    unbind(_QUEUE)
    _until_empty(broker, _QUEUE)
    worker.end()
    broker.control("delete_queue", "--if-empty", "--if-unused", _QUEUE)
    broker.api("PUT", f"queues/%2F/{_QUEUE}", quorum)
    bind(_QUEUE)
    unbind(_ASIDE)
    user, password = broker.admin
    address = f"amqp://{user}:{password}@127.0.0.1:{broker.amqp}"
    shovel = {"src-protocol": "amqp091", "src-uri": address, "src-queue": _ASIDE, "ack-mode": "on-confirm"}
    shovel |= {"dest-protocol": "amqp091", "dest-uri": address, "dest-queue": _QUEUE}
    broker.api("PUT", "parameters/shovel/%2F/aside", {"value": shovel})
    worker.start()
    worker.wait_ready()
    _until_empty(broker, _ASIDE)
    broker.api("DELETE", "parameters/shovel/%2F/aside")
    # Quorum queues know no "only if empty", so somebody has to look.
    _until_empty(broker, _ASIDE)
    broker.api("DELETE", f"queues/%2F/{_ASIDE}")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--workers", type=Path, required=True)
    arguments.add_argument("--rabbitmq", type=Path, required=True)
    chosen = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="jm-ops-"))
    done: list[str] = []

    def hear(_: str, body: bytes) -> None:
        done.append(json.loads(body)["messages"][-1]["content"])

    engine, producer, worker = Engine(hear), None, None
    engine.takes = {"chat": 0.05}
    # As it is before: new queues are classic ones.
    broker = Broker(chosen.rabbitmq, folder, without=("default_queue_type",))
    try:
        broker.start()
        recording(folder / "recordings")
        worker = fleet(chosen.workers, broker, engine.url, folder, folder / "recordings")["llm-worker"]
        worker.start()
        worker.wait_ready()
        before = broker.queue(_QUEUE)["type"]
        producer = Numbered(broker)
        producer.start()
        time.sleep(3)
        _move(broker, worker)
        time.sleep(2)
        producer.stop()
        _until_empty(broker, _QUEUE)
        lost = producer.confirmed - set(done)
        print(
            f"moved from {before} to {broker.queue(_QUEUE)['type']}: {len(producer.confirmed)} tasks confirmed, {len(lost)} lost, {len(done) - len(set(done))} worked on twice"
        )
        return 1 if lost or not producer.confirmed else 0
    finally:
        if producer:
            producer.stop()
        if worker:
            worker.end(5)
        engine.stop()
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
