"""A server that speaks the OpenAI API, answers from the request alone, and fails when it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Seconds for one answer, by what is asked: models differ as much.
USUAL = {"chat": 0.4, "embeddings": 0.1, "transcriptions": 1.2}
_USAGE = {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}


class Engine:
    """`fails` and `takes` say for each kind of work whether it is answered 500, and after how many seconds.

    `hear` is told each request's kind and body once it is answered well.
    """

    def __init__(self, hear: Callable[[str, bytes], None] = lambda *_: None):
        self._hear = hear
        self.takes = dict(USUAL)
        self.fails: set[str] = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def usual(self) -> None:
        self.takes, self.fails = dict(USUAL), set()

    def stop(self) -> None:
        self._server.shutdown()

    def _handler(engine) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the inner class has a self of its own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                kind = "chat" if self.path.endswith("/chat/completions") else self.path.rsplit("/", 1)[1]
                time.sleep(engine.takes.get(kind, 0))
                status, answer = (
                    (500, {"error": {"message": "out of order"}})
                    if kind in engine.fails
                    else (200, _answer(kind, body))
                )
                if status == 200:
                    engine._hear(kind, body)
                text = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(text)))
                    self.end_headers()
                    self.wfile.write(text)
                except OSError:
                    self.close_connection = True  # whoever asked has gone

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _answer(kind: str, body: bytes) -> dict:
    match kind:
        case "chat":
            message = {"role": "assistant", "content": "A note about a meeting."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return {
                "id": "c",
                "object": "chat.completion",
                "created": 0,
                "model": "m",
                "choices": [choice],
                "usage": _USAGE,
            }
        case "embeddings":
            texts = json.loads(body)["input"]
            count = len(texts) if isinstance(texts, list) else 1
            data = [
                {"object": "embedding", "index": index, "embedding": [0.5, -0.5, 0.5, 0.5]} for index in range(count)
            ]
            return {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 8, "total_tokens": 8}}
        case _:
            segment = {
                "id": 0,
                "seek": 0,
                "start": 0.0,
                "end": 2.0,
                "text": "Hello.",
                "tokens": [1],
                "temperature": 0.0,
            }
            segment |= {"avg_logprob": -0.2, "compression_ratio": 1.0, "no_speech_prob": 0.01}
            if b"diarized_json" in body:
                segment = {
                    "type": "transcript.text.segment",
                    "id": "seg_000",
                    "start": 0.0,
                    "end": 2.0,
                    "text": "Hello.",
                    "speaker": "A",
                }
            usage = {"type": "duration", "seconds": 2.0}
            return {
                "task": "transcribe",
                "language": "english",
                "duration": 2.0,
                "text": "Hello.",
                "segments": [segment],
                "usage": usage,
            }
