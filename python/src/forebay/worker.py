"""A worker of Forebay's tasks, on a stream: attempts come as soon as they are there, results go in batches,
and what takes long keeps its lease.

    from forebay.worker import Worker, tasks_of
    Worker("127.0.0.1:50051", tasks_of(app), sources=[("shop", None)], concurrency=8).run()

``tasks_of`` runs the functions that a taskbroker application has registered; any callable that takes an
``Attempt`` does. It needs ``grpcio``, and nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

__all__ = ["Attempt", "Retry", "Worker", "tasks_of"]

PATH = "/forebay.tasks.v1.Tasks/Work"
FAILURE, RETRY, COMPLETE = 3, 4, 5
# What another try does not change.
FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
)
# A broker that vanished is noticed; a task may be as large as it takes.
OPTIONS = [
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]
# Leases and reports of one message.
WORDS_MAX = 5_000
# Ids of one line of the log.
UNTOLD_MAX = 20

log = logging.getLogger(__name__)


class Retry(Exception):
    """Raised by a task: the attempt failed, and shall be followed by another one. What is not said is as
    the task has it."""

    def __init__(self, delay: float | None = None, max_attempts: int | None = None) -> None:
        super().__init__("the task is to be tried again")
        self.delay, self.max_attempts = delay, max_attempts


class Attempt:
    """An attempt of a task. ``activation`` is the serialized ``TaskActivation``."""

    def __init__(self, activation: bytes, lease: bytes, lease_seconds: float | None) -> None:
        self.activation, self.lease, self.lease_seconds = activation, lease, lease_seconds
        self.id = self.namespace = self.task = ""
        self.parameters = b""
        for number, value in _fields(activation):
            if number == 1:
                self.id = value.decode()
            elif number == 2:
                self.namespace = value.decode()
            elif number == 3:
                self.task = value.decode()
            elif number == 13:
                self.parameters = value
        self._renew_at = _third(lease_seconds)
        self._is_lost = False


class Worker:
    """Runs attempts in threads, until it is stopped.

    ``run`` is called with each ``Attempt``. Its return completes the task, ``Retry`` has it tried again, and
    any other exception fails it. ``sources`` are pairs of an application and a namespace, where ``None`` is
    any; without sources, any task is taken. ``prefetch`` attempts wait here while ``concurrency`` run. One that
    is stopped, and has nothing more to do, waits for a broker that does not answer for ``patience`` seconds.
    """

    def __init__(
        self,
        broker: str,
        run: Callable[[Attempt], Any],
        *,
        sources: Iterable[tuple[str | None, str | None]] = (),
        concurrency: int = 1,
        prefetch: int | None = None,
        patience: float = 5.0,
        secret: str | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._broker, self._call, self._credentials = broker, run, credentials
        self._hello = b"".join(_part(1, _source(*source)) for source in sources)
        self._room = concurrency + (concurrency if prefetch is None else prefetch)
        self._patience = patience
        self._metadata = []
        if secret is not None:
            signature = hmac.new(secret.encode(), PATH.encode() + b":", hashlib.sha256).hexdigest()
            self._metadata.append(("sentry-signature", signature))
        # Guards all below, and says that there is something new.
        self._news = threading.Condition()
        self._held: dict[bytes, Attempt] = {}
        self._waiting: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        self._credit = 0
        self._reports: list[tuple[Attempt, bytes]] = []
        self._put_back: list[Attempt] = []
        self._unanswered: dict[int, tuple[list[tuple[Attempt, bytes]], list[bytes], list[Attempt]]] = {}
        self._number = 0
        self._stopping = False
        # It was stopped, and what the broker has not heard by now it will not hear.
        self._is_over = False
        # The stream that is open: what gathers messages for another one is to end.
        self._stream: object = None
        self._call_open: Any = None
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(concurrency)]

    def run(self) -> None:
        """Works until it is stopped; a broker that is away is asked again. On the main thread, SIGTERM and SIGINT
        stop it; the second signal does what it did before. Raises ``grpc.RpcError`` where asking again would
        not help."""
        heeded = self._heed_signals()
        for thread in (*self._threads, threading.Thread(target=self._see_to_the_end, daemon=True)):
            thread.start()
        pause = 0.05
        try:
            while not self._is_over:
                begun = time.monotonic()
                try:
                    self._serve()
                except grpc.RpcError as error:
                    if error.code() in FINAL:
                        raise
                    log.info("the broker %s is away: %s", self._broker, error.details())
                pause = 0.05 if time.monotonic() - begun > 5 else min(2 * pause, 5.0)
                with self._news:
                    # What came while it was stopped goes back on another stream.
                    if self._is_done():
                        break
                    hurry = self._stopping
                    self._news.wait_for(
                        lambda: self._is_over or self._is_done() or self._stopping != hurry,
                        min(pause, 0.2) if hurry else pause,
                    )
        finally:
            for number, handler in heeded.items():
                signal.signal(number, handler)
            with self._news:
                self._stopping = self._is_over = True
                self._news.notify_all()
            for _ in self._threads:
                self._waiting.put(None)
            self._tell_what_is_untold()

    def stop(self) -> None:
        """Has it take no more, put back what it has not begun, finish the rest, and return once the broker
        has heard of all that, or does not answer for as long as it has patience."""
        with self._news:
            self._stopping = True
            self._news.notify_all()

    # The end.

    def _heed_signals(self) -> dict[int, Any]:
        """Has signals stop it that nobody else cares for; what they did before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        defaults = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
        heeded = {number: what for number, what in defaults.items() if signal.getsignal(number) is what}

        def heed(*_: Any) -> None:
            for number, handler in heeded.items():
                signal.signal(number, handler)
            self.stop()

        for number in heeded:
            signal.signal(number, heed)
        return heeded

    def _see_to_the_end(self) -> None:
        """A thread: breaks off what a broker does not answer."""
        with self._news:
            self._news.wait_for(lambda: self._is_over or self._stopping and not self._held)
            # Not until all is said: what was on its way may still come.
            self._news.wait_for(lambda: self._is_over, self._patience)
            self._is_over = True
            self._news.notify_all()
            call = self._call_open
        if call is not None:
            call.cancel()

    def _is_done(self) -> bool:
        unsaid = self._held or self._reports or self._put_back or self._unanswered
        return self._stopping and not unsaid

    def _tell_what_is_untold(self) -> None:
        with self._news:
            said = list(self._unanswered.values())
            ended = [attempt.id for attempt, _ in self._reports]
            ended += [attempt.id for reports, _, _ in said for attempt, _ in reports]
            put_back = [attempt.id for attempt in self._put_back]
            put_back += [attempt.id for _, _, attempts in said for attempt in attempts]
        for what, ids in (("how these tasks ended", ended), ("that these tasks were not begun", put_back)):
            if ids:
                shown = ", ".join(ids[:UNTOLD_MAX]) + (", ..." if len(ids) > UNTOLD_MAX else "")
                log.warning(
                    "the broker %s has not answered, so it may not know %s, and hand them out again after "
                    "their deadline (%d): %s",
                    self._broker,
                    what,
                    len(ids),
                    shown,
                )

    # The stream.

    def _serve(self) -> None:
        """One stream, from its beginning to its end."""
        if self._credentials is None:
            channel = grpc.insecure_channel(self._broker, OPTIONS)
        else:
            channel = grpc.secure_channel(self._broker, self._credentials, OPTIONS)
        with channel:
            with self._news:
                # What was not answered is said again.
                for reports, _, put_back in self._unanswered.values():
                    self._reports += reports
                    self._put_back += put_back
                self._unanswered.clear()
                self._credit = self._room - len(self._held)
                if self._is_over:
                    return
                mine = self._stream = object()
                call = channel.stream_stream(PATH)(self._said(mine), metadata=self._metadata)
                self._call_open = call
            try:
                for message in call:
                    self._hear(message)
            finally:
                with self._news:
                    self._stream = self._call_open = None
                    self._news.notify_all()

    def _said(self, mine: object) -> Iterator[bytes]:
        """The messages of one stream. Called by grpc, on a thread of its own."""
        yield _part(1, self._hello)
        while True:
            with self._news:
                while True:
                    if self._stream is not mine:
                        return
                    renewed = self._due()
                    if self._stopping:
                        self._give_up_waiting()
                        self._credit = 0
                    if renewed or self._reports or self._put_back or self._credit:
                        break
                    if self._stopping and not self._held and not self._unanswered:
                        return
                    self._news.wait(0.2 if self._held else None)
                message = self._message(renewed)
            yield message

    def _message(self, renewed: list[bytes]) -> bytes:
        reports, self._reports = self._reports[:WORDS_MAX], self._reports[WORDS_MAX:]
        put_back, self._put_back = self._put_back[:WORDS_MAX], self._put_back[WORDS_MAX:]
        credit, self._credit = self._credit, 0
        parts = [_number(2, credit)]
        if reports or renewed or put_back:
            self._number += 1
            self._unanswered[self._number] = (reports, renewed, put_back)
            parts.append(_number(3, self._number))
        parts += [_part(4, _part(1, attempt.lease) + report) for attempt, report in reports]
        parts += [_part(5, lease) for lease in renewed]
        parts += [_part(6, attempt.lease) for attempt in put_back]
        return b"".join(parts)

    def _due(self) -> list[bytes]:
        """Leases of which a third is over."""
        now, due = time.monotonic(), []
        for lease, attempt in self._held.items():
            if attempt._renew_at is not None and attempt._renew_at <= now and len(due) < WORDS_MAX:
                attempt._renew_at = _third(attempt.lease_seconds)
                due.append(lease)
        return due

    def _hear(self, message: bytes) -> None:
        for number, value in _fields(message):
            if number == 1:
                attempt = _attempt(value)
                with self._news:
                    self._held[attempt.lease] = attempt
                    # Who waits for results only does not look at leases.
                    self._news.notify_all()
                self._waiting.put(attempt)
            elif number == 2:
                self._answered(value)

    def _answered(self, answer: bytes) -> None:
        said, stale = 0, {2: [], 3: [], 4: []}
        for number, value in _fields(answer):
            if number == 1:
                said = value
            elif number in stale:
                stale[number] += _numbers(value) if isinstance(value, bytes) else [value]
        with self._news:
            reports, renewed, put_back = self._unanswered.pop(said, ([], [], []))
            for place in stale[3]:
                # Another worker has it, or will.
                attempt = self._held.get(renewed[place])
                if attempt is not None:
                    attempt._is_lost, attempt._renew_at = True, None
            self._news.notify_all()
        if stale[2]:
            log.info("%d of %d results were of attempts that are over", len(stale[2]), len(reports))

    # The threads.

    def _work(self) -> None:
        while True:
            attempt = self._waiting.get()
            if attempt is None:
                return
            with self._news:
                if attempt._is_lost:
                    self._let_go(attempt)
                    continue
                if self._stopping:
                    self._put_back.append(attempt)
                    self._let_go(attempt)
                    continue
            report = self._ended(attempt)
            with self._news:
                self._reports.append((attempt, report))
                self._let_go(attempt)

    def _ended(self, attempt: Attempt) -> bytes:
        """Runs it; its result."""
        try:
            self._call(attempt)
        except Retry as retry:
            report = _number(2, RETRY)
            if retry.max_attempts is not None:
                report += _number(3, retry.max_attempts)
            if retry.delay is not None:
                report += _number(4, round(retry.delay * 1000))
            return report
        except Exception:
            log.exception("%s %s failed", attempt.task, attempt.id)
            return _number(2, FAILURE)
        return _number(2, COMPLETE)

    def _let_go(self, attempt: Attempt) -> None:
        del self._held[attempt.lease]
        self._credit += 1
        self._news.notify_all()

    def _give_up_waiting(self) -> None:
        """What no thread has begun goes back at once."""
        while True:
            try:
                attempt = self._waiting.get_nowait()
            except queue.Empty:
                return
            if attempt is not None:
                del self._held[attempt.lease]
                self._put_back.append(attempt)


def tasks_of(app: Any) -> Callable[[Attempt], None]:
    """What runs the functions that a ``TaskbrokerApp`` has registered. They run in threads: their deadline
    is not enforced here, but by the broker, if their worker dies."""
    import msgpack
    from sentry_protos.taskbroker.v1.taskbroker_pb2 import TaskActivation

    app.load_modules()

    def run(attempt: Attempt) -> None:
        activation = TaskActivation.FromString(attempt.activation)
        task = app.get_task(activation.namespace, activation.taskname)
        if activation.retry_state.at_most_once and not app.should_attempt_at_most_once(activation):
            return
        parameters = activation.parameters_bytes
        if activation.headers.get("compression-type") == "zstd":
            import zstandard

            parameters = zstandard.decompress(parameters)
        said = msgpack.unpackb(parameters) if parameters else {}
        try:
            task(*said.get("args", ()), **said.get("kwargs", {}))
        except Exception as error:
            if task.should_retry(activation.retry_state, error):
                raise Retry() from error
            raise

    return run


# The wire: protocol buffers, as far as these messages need them.


def _varint(value: int) -> bytes:
    said = bytearray()
    while value > 0x7F:
        said.append(value & 0x7F | 0x80)
        value >>= 7
    said.append(value)
    return bytes(said)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _part(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _source(application: str | None, namespace: str | None) -> bytes:
    parts = [(1, application), (2, namespace)]
    return b"".join(_part(field, name.encode()) for field, name in parts if name is not None)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message, a number or bytes each."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == 0:
            value, at = _read_varint(message, at)
        else:
            size, at = _read_varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = message[at : at + size], at + size
        yield key >> 3, value


def _numbers(packed: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(packed):
        number, at = _read_varint(packed, at)
        numbers.append(number)
    return numbers


def _attempt(message: bytes) -> Attempt:
    activation = lease = b""
    lease_ms = None
    for number, value in _fields(message):
        if number == 1:
            activation = value
        elif number == 2:
            lease = value
        elif number == 3:
            lease_ms = value
    return Attempt(activation, lease, None if lease_ms is None else lease_ms / 1000)


def _third(seconds: float | None) -> float | None:
    return None if seconds is None else time.monotonic() + seconds / 3
