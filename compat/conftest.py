"""A server of ours, and torc's own tools beside it."""

import json
import os
import signal
import subprocess
import sys

import pytest

from torc.api import make_api


class Server:
    """`forebay serve` on a database of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.port = 0
        self.start()

    def start(self):
        address = f"127.0.0.1:{self.port}"
        command = [os.environ["FOREBAY"], "serve", "--db", "server.db", "--http", address]
        self.log = open(self.folder / "server.log", "a")
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        assert "http=" in line, f"the server did not listen: {line}"
        self.port = int(line.split("http=")[1].split()[0].rsplit(":", 1)[1])
        self.url = f"http://127.0.0.1:{self.port}/torc-service/v1"

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(30)
        self.log.close()
        return self.process.returncode

    def api(self):
        return make_api(self.url)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        assert server.end() == 0


@pytest.fixture
def api(server):
    return server.api()


class Torc:
    """torc's command line."""

    def __init__(self, server, folder):
        self.server, self.folder = server, folder

    def environment(self):
        tools = [os.path.dirname(os.environ["TORC"]), os.path.dirname(sys.executable)]
        path = os.pathsep.join(tools + [os.environ["PATH"]])
        return dict(os.environ, TORC_API_URL=self.server.url, USER="me", PATH=path)

    def begin(self, *arguments):
        command = [os.environ["TORC"], *map(str, arguments)]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __call__(self, *arguments, fails=False, says=None):
        running = self.begin(*arguments)
        output, _ = running.communicate(says, timeout=120)
        assert (running.returncode != 0) == fails, f"torc {arguments}: {output}"
        return output

    def json(self, *arguments):
        return json.loads(self("-f", "json", *arguments))

    def create(self, spec):
        """A workflow of this specification; its id."""
        path = self.folder / f"{spec['name']}.json"
        path.write_text(json.dumps(spec))
        return self.json("create", path)["workflow_id"]

    def counts(self, workflow):
        """How many jobs are in each state in which there are any."""
        counts = self.json("status", workflow)["jobs_by_status"]
        return {state: count for state, count in counts.items() if count}


@pytest.fixture
def torc(server, tmp_path):
    return Torc(server, tmp_path)
