"""What happens to the workers: a calm minute, and then one failure after the other, each of them healed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jm_ops.scenario.broker import Broker
from jm_ops.scenario.engine import USUAL, Engine
from jm_ops.scenario.fleet import CONSUMER_TIMEOUT, One
from jm_ops.scenario.load import Load, Producer
from jm_ops.scenario.machine import until
from jm_ops.workers import workers

RANDOM_TYPES = 10_000
_ASR, _EMBED, _LLM, _RECORDS = "asr-worker", "embed-worker", "llm-worker", "record-event-worker"


@dataclass(frozen=True)
class Phase:
    title: str
    begin: float
    end: float


class Story:
    def __init__(self, broker: Broker, engine: Engine, fleet: dict[str, One], load: Load, database: Path, audio: str):
        self.broker, self.engine, self.fleet, self.load = broker, engine, fleet, load
        self.database, self.audio = database, audio
        self.phases: list[Phase] = []
        self.series: dict[str, int] = {}
        self.codes: dict[str, int] = {}

    def play(self) -> None:
        self.load.start()
        for title, scene in [
            ("calm", self._calm),
            ("the database is locked", self._database_locked),
            ("the language model answers 500", self._engine_fails),
            ("connections are closed", self._connections_closed),
            ("more arrives than is finished", self._backlog),
            ("the broker has a memory alarm", self._alarm),
            ("an exchange loses its queue", self._unroutable),
            ("a queue exists with other arguments", self._refused),
            (f"{RANDOM_TYPES} messages of unknown types, connections closed meanwhile", self._unknown_types),
            ("speech recognition hangs, its worker is drained and gone", self._hangs_and_drains),
            ("a process starts again and again", self._restarts),
            ("all are drained and gone", self._all_stop),
        ]:
            begin = time.time()
            print(f"  {title} …", flush=True)
            scene()
            self.phases.append(Phase(title, begin, time.time()))
            time.sleep(2)

    def _calm(self) -> None:
        time.sleep(40)

    def _engine_fails(self) -> None:
        self.engine.fails = {"chat"}
        time.sleep(35)
        self.engine.usual()
        time.sleep(6)

    def _connections_closed(self) -> None:
        for _ in range(6):
            self.broker.close_connections()
            self.fleet[_RECORDS].wait_ready()
            time.sleep(2)

    def _alarm(self) -> None:
        self.broker.control("set_vm_memory_high_watermark", "0.0000001")
        time.sleep(9)
        self.broker.control("set_vm_memory_high_watermark", "0.5")
        time.sleep(5)

    def _database_locked(self) -> None:
        with self._locked():
            time.sleep(15)
        time.sleep(5)

    def _unroutable(self) -> None:
        path = "bindings/%2F/e/jm.coreRecordEvent/q/jm.coreRecordEvent"
        self.broker.api("DELETE", f"{path}/jm.coreRecordEvent")
        time.sleep(6)
        self.broker.api("POST", path, {"routing_key": "jm.coreRecordEvent"})
        time.sleep(3)

    def _refused(self) -> None:
        queue = "queues/%2F/jm.embed"
        self.broker.api("DELETE", queue)
        self.broker.api("PUT", queue, {"durable": True, "arguments": {"x-queue-type": "quorum", "x-max-length": 9}})
        time.sleep(18)
        self.broker.api("DELETE", queue)
        self.fleet[_EMBED].wait_ready()

    def _unknown_types(self) -> None:
        before = self._count(_LLM)
        producer = Producer(self.broker)
        for worker in workers():
            producer.send(worker.queue, "x.y", {})
        producer.random_types(RANDOM_TYPES)
        producer.close()
        while self._dead("jm.llm.dead") < RANDOM_TYPES // 2:
            self.broker.close_connections()
            self.fleet[_LLM].wait_ready()
        until("end of the unknown types", 300, lambda: self._dead("jm.llm.dead") >= RANDOM_TYPES)
        time.sleep(4)
        self.series = {"before": before, "after": self._count(_LLM)}

    def _hangs_and_drains(self) -> None:
        self.engine.takes = USUAL | {"transcriptions": 60}
        producer = Producer(self.broker)
        for _ in range(20):
            producer.send("jm.asr", "asr.transcribe", {"audio": {"url": self.audio}})
        producer.close()
        time.sleep(CONSUMER_TIMEOUT + 3)
        self.fleet[_ASR].terminate()
        self.fleet[_ASR].wait(40)
        time.sleep(6)
        self.engine.usual()
        self.fleet[_ASR].start()
        self.fleet[_ASR].wait_ready()

    def _restarts(self) -> None:
        for _ in range(5):
            self.fleet[_EMBED].kill()
            self.fleet[_EMBED].start()
            self.fleet[_EMBED].wait_ready()
            time.sleep(3)

    def _backlog(self) -> None:
        self.engine.takes = USUAL | {"chat": 10}
        producer = Producer(self.broker)
        for _ in range(5):
            producer.chats(1500)
            time.sleep(4)
        producer.close()
        self.broker.api("DELETE", "queues/%2F/jm.llm/contents")
        self.engine.usual()

    def _all_stop(self) -> None:
        # Everybody holds work that does not end before the drain's deadline.
        self.fleet[_RECORDS].end()
        self.fleet[_RECORDS].start(JM_DATABASE__LOCK_TIMEOUT="1m")
        self.fleet[_RECORDS].wait_ready()
        time.sleep(6)
        self.engine.takes = dict.fromkeys(USUAL, 60)
        time.sleep(4)
        with self._locked():
            time.sleep(6)
            for one in self.fleet.values():
                one.terminate()
            self.codes = {name: one.wait(40) for name, one in self.fleet.items()}
        self.load.stop()
        time.sleep(10)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Somebody else writes into the database, and does not end."""
        connection = sqlite3.connect(self.database, timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")
            connection.close()

    def _count(self, name: str) -> int:
        return sum(1 for line in self.fleet[name].metrics().splitlines() if line and not line.startswith("#"))

    def _dead(self, queue: str) -> int:
        return self.broker.queue(queue).get("messages", 0)
