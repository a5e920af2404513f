"""Tasks of a taskbroker application, enqueued on a Forebay server: no Kafka, no change to task code.

    app = TaskbrokerApp(name="shop", producer_factory=forebay.tasks.producer)

What ``delay()`` cannot say is said of an activation, such as that it waits for another task:

    paid = forebay.tasks.enqueue(pay.create_activation(args=[7], kwargs={}))
    forebay.tasks.enqueue(ship.create_activation(args=[7], kwargs={}), depends_on=[paid])

The server's address is ``FOREBAY_URL``, or what ``Producer`` is told; ``FOREBAY_CREDENTIALS`` holds
``user:password``, or a token. It needs nothing but the standard library.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

__all__ = ["EnqueueError", "Producer", "enqueue", "producer"]

URL = "http://127.0.0.1:8080"
PATH = "/tasks/v1/tasks"


class EnqueueError(Exception):
    """A task was not enqueued; the text says why."""


def producer(topic: str) -> Producer:
    """A ``producer_factory``: the same producer for every topic, as Forebay has none."""
    with _lock:
        global _producer
        if _producer is None:
            _producer = Producer()
        return _producer


def enqueue(activation: Any, **more: Any) -> str:
    """As ``Producer.enqueue``, with the producer that applications have."""
    return producer("").enqueue(activation, **more)


class Producer:
    """Enqueues activations. Threads may share one."""

    def __init__(
        self,
        url: str | None = None,
        *,
        credentials: str | None = None,
        priority: int = 0,
        timeout: float = 30.0,
    ) -> None:
        parts = urlsplit(url or os.environ.get("FOREBAY_URL") or URL)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a server")
        self._connection = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._at = (parts.hostname, parts.port)
        self._headers = {"content-type": "application/json"}
        credentials = credentials or os.environ.get("FOREBAY_CREDENTIALS")
        if credentials and ":" in credentials:
            word = base64.b64encode(credentials.encode()).decode()
            self._headers["authorization"] = f"Basic {word}"
        elif credentials:
            self._headers["authorization"] = f"Bearer {credentials}"
        self._priority = priority
        self._timeout = timeout
        self._local = threading.local()

    def produce(self, dest: Any, payload: Any, *_: Any, **__: Any) -> Future[str]:
        """Enqueues the activation that is the payload's value. What it answers is done already: the
        task's id, or an ``EnqueueError``."""
        done: Future[str] = Future()
        try:
            done.set_result(self.enqueue(payload.value))
        except EnqueueError as error:
            done.set_exception(error)
        return done

    def enqueue(
        self,
        activation: Any,
        *,
        depends_on: Iterable[str] = (),
        met_if_gone: bool = False,
        priority: int | None = None,
        delay_ms: int | None = None,
        expires_ms: int | None = None,
    ) -> str:
        """Enqueues an activation, or its bytes. Answers the task's id.

        It waits until the tasks of its application with the ids ``depends_on`` are completed; one that is not
        there is an error, or with ``met_if_gone`` counts as completed. ``delay_ms`` and ``expires_ms`` hold in
        the place of what the activation says."""
        said = activation if isinstance(activation, bytes) else activation.SerializeToString()
        task: dict[str, Any] = {
            "activation": base64.b64encode(said).decode(),
            "priority": self._priority if priority is None else priority,
        }
        if isinstance(depends_on, str):
            raise TypeError("depends_on is a list of ids, not a single one")
        if on := list(depends_on):
            task.update(depends_on=on, met_if_gone=met_if_gone)
        for name, ms in (("delay_ms", delay_ms), ("expires_ms", expires_ms)):
            if ms is not None:
                task[name] = ms
        answer = self._post(json.dumps({"tasks": [task]}).encode())
        return str(answer["tasks"][0]["id"])

    def close(self) -> Future[None]:
        """Closes this thread's connection."""
        connection = self.__dict__["_local"].__dict__.pop("connection", None)
        if connection is not None:
            connection.close()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def flush(self, timeout: float | None = None) -> int:
        """There is nothing that waits."""
        return 0

    def _post(self, body: bytes) -> Any:
        # A connection that the server has closed meanwhile shows only when it is used. A task's id
        # makes the second try harmless.
        for is_last in (False, True):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                host, port = self._at
                connection = self._connection(host, port, timeout=self._timeout)
                self._local.connection = connection
            try:
                connection.request("POST", PATH, body, self._headers)
                response = connection.getresponse()
                said = response.read()
                break
            except (HTTPException, OSError) as error:
                self.close()
                if is_last:
                    raise EnqueueError(f"the server cannot be reached: {error}") from error
        try:
            answer = json.loads(said)
        except ValueError:
            answer = {"error": said.decode(errors="replace")}
        if response.status != 200:
            raise EnqueueError(f"{answer.get('error', answer)} (HTTP {response.status})")
        return answer


_lock = threading.Lock()
_producer: Producer | None = None
