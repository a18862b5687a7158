"""Producers as the product's services are: content type, type and body, and nothing else."""

from __future__ import annotations

import json
import secrets
import threading
import time
import wave
from pathlib import Path

import pika

from jm_ops.scenario.broker import Broker

_TEXT = "The team met on Monday and moved the release to Thursday."


def recording(folder: Path) -> str:
    """Two seconds of a quiet tone, as the address of a file."""
    folder.mkdir()
    path = folder / "note.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(
            b"".join((2000 * (1 if i // 40 % 2 else -1)).to_bytes(2, "little", signed=True) for i in range(32000))
        )
    return f"file://{path}"


class Producer:
    def __init__(self, broker: Broker):
        credentials = pika.PlainCredentials(*broker.admin)
        self._connection = pika.BlockingConnection(
            pika.ConnectionParameters("127.0.0.1", broker.amqp, credentials=credentials, heartbeat=0)
        )
        self._channel = self._connection.channel()

    def send(self, queue: str, kind: str, body: dict) -> None:
        properties = pika.BasicProperties(content_type="text/plain", type=kind, delivery_mode=2)
        self._channel.basic_publish(queue, queue, json.dumps(body).encode(), properties)

    def chats(self, count: int) -> None:
        for _ in range(count):
            self.send("jm.llm", "llm.chat", {"messages": [{"role": "user", "content": _TEXT}]})

    def random_types(self, count: int) -> None:
        """Types that nobody knows, each another one."""
        for _ in range(count):
            self.send("jm.llm", f"x.{secrets.token_hex(8)}", {})

    def note(self, audio: str | None = None) -> None:
        content = (
            {"audio": {"url": audio}, "language": "en"}
            if audio
            else {"title": "Monday", "text": _TEXT, "language": "en"}
        )
        self.send(
            "jm.coreRecordEvent",
            "record.created",
            {"record_id": secrets.token_hex(8), "revision": 1, "content": content},
        )

    def close(self) -> None:
        self._connection.close()


class Load:
    """Notes at a steady rate, some of them spoken, until it is stopped."""

    def __init__(self, broker: Broker, audio: str, notes_per_second: float, spoken_share: float):
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(broker, audio, 1 / notes_per_second, spoken_share), daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self, broker: Broker, audio: str, pause: float, spoken_share: float) -> None:
        producer, due, spoken = None, time.monotonic(), 0.0
        while not self._stop.wait(max(0, due - time.monotonic())):
            due = max(due + pause, time.monotonic() - 5)
            spoken += spoken_share
            try:
                producer = producer or Producer(broker)
                producer.note(audio if spoken >= 1 else None)
                spoken -= spoken >= 1
            except (pika.exceptions.AMQPError, OSError):
                producer = None  # blocked or cut off: again with the next one
