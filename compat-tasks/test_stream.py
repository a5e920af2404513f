"""Our own worker, on its stream."""

import json
import signal
import subprocess
import sys
import threading
import time

import grpc
import pytest
from conftest import HERE, is_at_once, until
from forebay import tasks
from forebay.worker import Retry, Worker, tasks_of
from sentry_protos.taskbroker.v1.taskbroker_pb2 import RetryState, TaskActivation


class Running:
    """A worker in a thread."""

    def __init__(self, server, run, **options):
        self.worker = Worker(server.broker, run, **options)
        self.thread = threading.Thread(target=self.worker.run, daemon=True)
        self.thread.start()

    def end(self):
        self.worker.stop()
        self.thread.join(30)
        assert not self.thread.is_alive(), "the worker does not end"


@pytest.fixture
def start(server):
    running = []

    def start(run, **options):
        running.append(Running(server, run, **options))
        return running[-1]

    yield start
    for one in running:
        one.end()


def enqueue(server, count, *more):
    base = ["enqueue", "--application", "shop", "--namespace", "mail", "--task", "t", "--count", count]
    return server(*base, *more).split()


class Log:
    """Which attempts were begun."""

    def __init__(self):
        self.ids, self._lock = [], threading.Lock()

    def __call__(self, attempt):
        with self._lock:
            self.ids.append(attempt.id)


def test_it_runs_the_tasks_of_an_application_and_retries_them(server, shop, start, done):
    start(tasks_of(shop.app), sources=[("shop", None)], concurrency=2)
    for number in range(20):
        shop.send.delay(number, text=f"é{number}")
    shop.fail.delay(1)
    shop.drop.delay(2)
    until("all are done", lambda: len(done("send")) == 20)
    assert {tuple(what) for _, *what in done("send")} == {("send", str(n), f"é{n}") for n in range(20)}
    until("it is a dead letter", lambda: server.counts().get("dead_letters") == 1)
    until("nothing is left", server.is_idle)
    assert (len(done("fail", 1)), len(done("drop", 2))) == (3, 2)


def test_many_workers_run_each_task_once(server, start):
    ids, log = set(enqueue(server, 5_000)), Log()
    for source in [(None, None), ("shop", None), ("shop", "mail"), ("shop", "mail")]:
        start(log, sources=[source], concurrency=4, prefetch=60)
    until("all are done", server.is_idle)
    assert len(log.ids) == 5_000 and set(log.ids) == ids


def test_an_idle_worker_gets_a_task_at_once(server, start):
    log, taken = Log(), []
    start(log)
    for number in range(15):
        activation = TaskActivation(id=str(number), application="shop")
        begun = time.monotonic()
        tasks.producer("any").enqueue(activation.SerializeToString())
        until("it is there", lambda: str(number) in log.ids)
        taken.append(time.monotonic() - begun)
    is_at_once(taken)


def test_what_takes_longer_than_its_deadline_is_renewed(server, start):
    log = Log()

    def run(attempt):
        log(attempt)
        time.sleep(6)

    start(run, prefetch=2)
    (id,) = enqueue(server, 1, "--deadline", "1s")
    until("it is done", lambda: log.ids and server.is_idle())
    assert log.ids == [id]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_broker_loses_nothing_and_does_nothing_twice(server, start, how):
    ids, log = set(enqueue(server, 600, "--deadline", "1s")), Log()

    def run(attempt):
        log(attempt)
        time.sleep(0.005)

    start(run, concurrency=4, prefetch=16)
    until("some are done", lambda: len(log.ids) > 100)
    server.end(how)
    time.sleep(0.3)
    server.start()
    until("all are done", lambda: len(log.ids) >= 600)
    until("nothing is left", server.is_idle)
    assert len(log.ids) == 600 and set(log.ids) == ids


def test_what_a_killed_worker_had_is_done_by_another(server, start):
    enqueue(server, 4, "--deadline", "1s")
    script = "import sys, time; sys.path.append(sys.argv[2])\n"
    script += "from forebay.worker import Worker; Worker(sys.argv[1], lambda _: time.sleep(60)).run()"
    source = str(HERE.parent / "python" / "src")
    killed = subprocess.Popen([sys.executable, "-c", script, server.broker, source])
    until("it has two", lambda: server.counts()["processing"] == 2)
    killed.kill()
    killed.wait()
    log = Log()
    start(log)
    until("all are done", server.is_idle)
    assert len(log.ids) == 4


def test_a_worker_that_is_stopped_ends_what_it_began_and_puts_the_rest_back(server, start):
    ids, log, go_on = enqueue(server, 9), Log(), threading.Event()

    def run(attempt):
        log(attempt)
        go_on.wait(30)

    running = start(run, concurrency=2, prefetch=3)
    until("it has five", lambda: server.counts()["processing"] == 5 and len(log.ids) == 2)
    running.worker.stop()
    until("three are back", lambda: server.counts()["pending"] == 7)
    go_on.set()
    running.end()
    assert (server.counts()["pending"], server.counts()["processing"]) == (7, 0)
    assert log.ids == ids[:2]
    start(log)
    until("the others are done", server.is_idle)
    assert sorted(log.ids) == sorted(ids)


class Apart:
    """A worker in a process of its own, that says what it begins once it has so many attempts."""

    SCRIPT = """
import logging, signal, sys, time
# What is started behind a shell's back is told to ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
broker, source, holds, seconds, patience = sys.argv[1:]
sys.path.append(source)
from forebay.worker import Worker
def run(attempt):
    while len(worker._held) < int(holds):
        time.sleep(0.01)
    print(attempt.id, flush=True)
    time.sleep(float(seconds))
logging.basicConfig(level=logging.WARNING, format="%(message)s")
worker = Worker(broker, run, concurrency=1, prefetch=2, patience=float(patience))
worker.run()
print("ended", flush=True)
"""

    def __init__(self, server, holds=1, seconds=0.0, patience=1.0):
        source = str(HERE.parent / "python" / "src")
        command = [sys.executable, "-c", self.SCRIPT, server.broker, source, holds, seconds, patience]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.process = subprocess.Popen(list(map(str, command)), **pipes)

    def begins(self):
        return self.process.stdout.readline().strip()

    def stop(self, how=signal.SIGTERM):
        """What it says, and how long that took."""
        begun = time.monotonic()
        self.process.send_signal(how)
        out, said = self.process.communicate(timeout=60)
        return out.split(), said, time.monotonic() - begun


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_worker_end_what_it_began(server, how):
    first, *others = enqueue(server, 4)
    worker = Apart(server, holds=3, seconds=1)
    assert worker.begins() == first
    out, said, took = worker.stop(how)
    assert (out, said, worker.process.returncode) == (["ended"], "", 0)
    assert took < 5
    assert [server.counts()[state] for state in ("pending", "processing")] == [3, 0]


def test_a_worker_without_work_is_stopped_at_once_while_the_broker_is_away(server):
    (id,) = enqueue(server, 1)
    worker = Apart(server, patience=60)
    assert worker.begins() == id
    until("it is done", server.is_idle)
    server.end(signal.SIGKILL)
    # Long enough that it pauses before it asks again.
    time.sleep(3)
    out, said, took = worker.stop()
    assert (out, said) == (["ended"], "")
    assert took < 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_stopped_while_the_broker_is_away_ends_and_tells_what_the_broker_does_not_know(
    server, how
):
    first, *others = enqueue(server, 3)
    worker = Apart(server, holds=3, seconds=2, patience=1)
    assert worker.begins() == first
    server.process.send_signal(how)
    out, said, took = worker.stop()
    server.process.send_signal(signal.SIGCONT)
    assert out == ["ended"]
    assert took < 2 + 1 + 2, "what it runs, its patience, and some more"
    told = {line.rsplit(": ", 1)[0].rsplit("know ", 1)[1]: line.rsplit(": ", 1)[1] for line in said.splitlines()}
    assert told == {
        "how these tasks ended, and hand them out again after their deadline (1)": first,
        "that these tasks were not begun, and hand them out again after their deadline (2)": ", ".join(others),
    }


def test_a_broker_that_comes_back_hears_what_a_worker_that_is_stopped_has_to_say(server):
    first, *others = enqueue(server, 3)
    worker = Apart(server, holds=3, seconds=1, patience=30)
    assert worker.begins() == first
    server.end(signal.SIGKILL)
    worker.process.send_signal(signal.SIGTERM)
    time.sleep(2)
    server.start()
    out, said = worker.process.communicate(timeout=30)
    assert (out, said) == ("ended\n", "")
    assert [server.counts()[state] for state in ("pending", "processing")] == [2, 0]


def test_workers_that_are_stopped_at_any_moment_leave_nothing_with_nobody(server, start):
    ids, log, all_are_there = [], Log(), threading.Event()

    def produce():
        once = RetryState(at_most_once=True)
        while not all_are_there.is_set():
            task = TaskActivation(application="shop", processing_deadline_duration=600, retry_state=once)
            ids.append(tasks.producer("any").enqueue(task))

    producing = threading.Thread(target=produce)
    producing.start()
    for round in range(40):
        worker = start(log, sources=[("shop", None)], concurrency=2, prefetch=20)
        seen = len(log.ids)
        until("it works", lambda: len(log.ids) > seen + round)
        worker.end()
    all_are_there.set()
    producing.join()
    assert server.counts()["processing"] == 0, "it was sent, and neither done nor put back"
    start(log)
    until("nothing is left", server.is_idle)
    assert sorted(log.ids) == sorted(ids)


def test_a_retry_is_delayed_as_it_says(server, start):
    enqueue(server, 1, "--max-attempts", "5", "--dead-letter")
    begun = []

    def run(attempt):
        begun.append(time.monotonic())
        raise Retry(delay=0.5, max_attempts=2)

    start(run)
    until("it is a dead letter", lambda: server.counts()["dead_letters"] == 1)
    assert len(begun) == 2 and begun[1] - begun[0] >= 0.45
    (dead,) = json.loads(server("dead-letters", "shop", "--json"))
    assert dead["failures"] == 2


class TestSecrets:
    @pytest.fixture
    def flags(self, tmp_path):
        (tmp_path / "secrets").write_text("new\nold\n")
        return ["--grpc-secrets", "secrets"]

    def test_a_worker_that_knows_a_secret_is_served_and_nobody_else(self, server, start):
        enqueue(server, 1)
        for secret in [None, "other"]:
            with pytest.raises(grpc.RpcError) as error:
                Worker(server.broker, print, secret=secret).run()
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        log = Log()
        start(log, secret="old")
        until("it is served", server.is_idle)
        assert len(log.ids) == 1
