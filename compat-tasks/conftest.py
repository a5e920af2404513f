"""A server of ours, and taskbroker's own workers beside it."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "python" / "src"))

from forebay import tasks  # noqa: E402


# How workers get tasks, how they start their children, and whether calls are signed.
WAYS = [
    (mode, start, secrets)
    for secrets in ("open", "secrets")
    for start in ("spawn", "forkserver")
    for mode in ("pull", "push")
]
FIRST = [("pull", "spawn", "open"), ("push", "spawn", "open")]


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="each test with workers in every way")


def pytest_configure(config):
    config.addinivalue_line("markers", "ways(*names): a part of every way in which this is tested always")


def pytest_generate_tests(metafunc):
    """Each test with workers pulls and is pushed to; with --all in every way. One without them, once."""
    if "way" not in metafunc.fixturenames:
        return
    ways = FIRST if "workers" in metafunc.fixturenames else FIRST[:1]
    marker = metafunc.definition.get_closest_marker("ways")
    if marker:
        ways = [way for way in WAYS if all(name in way for name in marker.args)]
    elif metafunc.config.getoption("--all") and "workers" in metafunc.fixturenames:
        ways = WAYS
    metafunc.parametrize("way", ways, ids=["-".join(way) for way in ways])


def until(what, look, limit=60):
    """Waits until something is so; answers it."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"this does not come: {what}"
        time.sleep(0.005)


def is_at_once(taken):
    """These seconds are those of somebody who is told at once. On a busy machine many are late by some
    hundredths; who asks again after a pause is never in time, and half are late by a second or more."""
    taken = sorted(taken)
    assert taken[0] < 0.05 and taken[len(taken) // 2] < 0.5, f"seconds from delay() to the task: {taken}"


class Server:
    """`forebay serve` on a database of its own."""

    def __init__(self, folder, *flags):
        self.folder, self.flags = folder, flags
        self.ports = {"http": 0, "grpc": 0}
        self.start()

    def start(self):
        command = [os.environ["FOREBAY"], "serve", "--db", "server.db", "--durability", "process"]
        for name, port in self.ports.items():
            command += [f"--{name}", f"127.0.0.1:{port}"]
        command += self.flags
        self.log = open(self.folder / "server.log", "a")
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        assert "grpc=" in line, f"the server did not listen: {line}"
        for word in line.split()[1:]:
            name, address = word.split("=")
            self.ports[name] = int(address.rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.ports['http']}"
        self.broker = f"127.0.0.1:{self.ports['grpc']}"

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)
        self.log.close()
        return self.process.returncode

    def __call__(self, *arguments):
        command = [os.environ["FOREBAY"], "tasks", *map(str, arguments), "--url", self.url]
        said = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert said.returncode == 0, f"{command}: {said.stderr}"
        return said.stdout

    def counts(self):
        """How many tasks are in each state."""
        found = json.loads(self("applications", "--json"))
        return next((one for one in found if one["name"] == "shop"), {})

    def is_idle(self):
        counts = self.counts()
        return not any(counts.get(state) for state in ("pending", "processing", "delayed"))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def listening():
    """Where workers listen that tasks are pushed to."""
    return [free_port(), free_port()]


@pytest.fixture
def flags():
    return []


@pytest.fixture
def server(tmp_path, monkeypatch, way, listening, flags):
    mode, _, secrets = way
    flags = list(flags)
    if mode == "push":
        flags += ["--push", "shop=" + ",".join(f"127.0.0.1:{port}" for port in listening)]
    if secrets == "secrets":
        # Workers know the first one as their second, so both sides look at all of theirs.
        (tmp_path / "secrets").write_text("# the next one\nnew\nold\n")
        monkeypatch.setenv("SHOP_SECRETS", '["old", "new"]')
        flags += ["--grpc-secrets", "secrets"]
    server = Server(tmp_path, *flags)
    monkeypatch.setenv("SHOP", str(tmp_path))
    monkeypatch.setenv("FOREBAY_URL", server.url)
    monkeypatch.setattr(tasks, "_producer", None)
    yield server
    if server.process.poll() is None:
        assert server.end() == 0


@pytest.fixture
def shop(server, monkeypatch):
    # An application keeps its producers: each test has one of its own.
    monkeypatch.delitem(sys.modules, "shop", raising=False)
    return importlib.import_module("shop")


class Workers:
    def __init__(self, server, way, listening):
        self.server, self.way, self.listening, self.running = server, way, listening, []

    def start(self, concurrency=1):
        environment = dict(os.environ, SHOP=str(self.server.folder), PYTHONPATH=str(HERE))
        log = open(self.server.folder / "worker.log", "a")
        mode, start, _ = self.way
        command = [sys.executable, str(HERE / "work.py"), self.server.broker, str(concurrency), start]
        if mode == "push":
            command.append(str(self.listening[len(self.running) % len(self.listening)]))
        worker = subprocess.Popen(command, cwd=HERE, env=environment, stdout=log, stderr=log)
        log.close()
        self.running.append(worker)
        return worker

    def end(self):
        for worker in self.running:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        for worker in self.running:
            worker.wait(30)
        self.running.clear()


@pytest.fixture
def workers(server, way, listening):
    workers = Workers(server, way, listening)
    yield workers
    workers.end()


class Done:
    """What tasks noted, as (when, what, number and so on)."""

    def __init__(self, folder):
        self.path = folder / "done"

    def __call__(self, *what):
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        words = [line.split() for line in lines]
        wanted = list(map(str, what))
        return [(float(when), *rest) for when, *rest in words if rest[: len(wanted)] == wanted]


@pytest.fixture
def done(server):
    return Done(server.folder)
