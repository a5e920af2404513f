"""An application of taskbroker, as its users write them."""

import os
import signal
import sys
import time
from pathlib import Path

from taskbroker_client.app import TaskbrokerApp
from taskbroker_client.retry import LastAction, Retry

sys.path.append(str(Path(__file__).parent.parent / "python" / "src"))
from forebay import tasks  # noqa: E402


class Once:
    """What workers remember of tasks that run at most once."""

    def add(self, key, value, timeout):
        path = os.path.join(os.environ["SHOP"], "once-" + key.replace("/", "_").replace(":", "_"))
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True


app = TaskbrokerApp(name="shop", producer_factory=tasks.producer, at_most_once_store=Once())
app.set_modules(["shop"])
if "SHOP_SECRETS" in os.environ:
    app.set_config({"rpc_secret": os.environ["SHOP_SECRETS"]})
mail = app.create_namespace("mail", processing_deadline_duration=2)


def note(*what):
    """One line for what was done."""
    line = " ".join(map(str, [time.time(), *what])) + "\n"
    with open(os.path.join(os.environ["SHOP"], "done"), "a") as file:
        file.write(line)


def worker():
    """The process of the worker; a child's parent is the server that forks, if there is one."""
    return int(os.environ["SHOP_WORKER"])


@mail.register(name="send")
def send(number, text="none"):
    note("send", number, text)


@mail.register(name="fail", retry=Retry(times=3, on=(ValueError,), times_exceeded=LastAction.Deadletter))
def fail(number):
    note("fail", number)
    raise ValueError("it fails each time")


@mail.register(name="drop", retry=Retry(times=2, on=(ValueError,), times_exceeded=LastAction.Discard))
def drop(number):
    note("drop", number)
    raise ValueError("it fails each time")


@mail.register(name="later", retry=Retry(times=2, on=(ValueError,), delay=2))
def later(number):
    note("later", number)
    raise ValueError("it fails each time")


@mail.register(name="expire", expires=1)
def expire(number):
    note("expire", number)


@mail.register(name="who")
def who(number):
    time.sleep(0.02)
    note("who", number, worker())


# Longer than a worker waits before it speaks again to a broker that was away: 20 s.
@mail.register(name="slow", processing_deadline_duration=60)
def slow(number, seconds):
    note("begin", number)
    time.sleep(seconds)
    note("end", number)


@mail.register(name="die_once", processing_deadline_duration=1)
def die_once(number):
    """Takes its worker along, the first time."""
    note("die", number)
    try:
        os.close(os.open(os.path.join(os.environ["SHOP"], f"died-{number}"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(worker(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


@mail.register(name="die", at_most_once=True, processing_deadline_duration=1)
def die(number):
    note("die", number)
    os.kill(worker(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
