"""jobq's own three measurements from Python, beside sqlite3 at one transaction a call.

    python bench.py [calls] [rounds] [directory]

By default 10 000 calls in 5 rounds in the system's temporary directory. Each measurement is
repeated in turn with the others; the medians over the rounds are printed. What is in memory is
counted in processor time, which others on the machine do not take away.
"""

import json
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from forebay.jobq import JobQueue

PAYLOAD = {"user_id": 2863311530, "msg": "x" * 256}
QUERY = "json_extract(j.state, '$[0]') = 'CREATED'"


def rate(calls, call, clock):
    start = clock()
    for n in range(calls):
        call(n)
    return calls / (clock() - start)


def bare(path, synchronous, calls, clock):
    """The rows that jobq makes, one transaction each, with nothing around."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {synchronous}")
    db.execute(
        "CREATE TABLE job (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT, events TEXT, "
        "state TEXT, modified INTEGER)"
    )
    db.execute("CREATE INDEX job_modified ON job (modified)")
    insert = "INSERT INTO job (payload, events, state, modified) VALUES (?, ?, ?, ?)"
    events = '[["job_created",{"timestamp":"1700000000"}]]'

    def create(_):
        db.execute(insert, (json.dumps(PAYLOAD), events, json.dumps(["CREATED"]), 1700000000))

    yield "create", rate(calls, create, clock)
    db.close()


def ours(path, durability, calls, clock):
    with JobQueue(path, durability=durability) as queue:
        yield "create", rate(calls, lambda _: queue.create(PAYLOAD, ["CREATED"]), clock)
        yield "poll", rate(calls, lambda _: queue.poll(QUERY, ["POLLED"]), clock)

        def append(n):
            # A stride that visits each job once.
            queue.append_event(n * 7919 % calls + 1, {"foo": "bar"})

        yield "append_event", rate(calls, append, clock)


def main(calls=10_000, rounds=5, directory=None):
    rates = defaultdict(list)
    each = -(-calls // rounds)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            scratch = Path(scratch)
            wall, cpu = time.perf_counter, time.thread_time
            runs = [
                ("sqlite3 power", bare(scratch / "a", "FULL", each, wall)),
                ("jobq power", ours(scratch / "b", "power", each, wall)),
                ("sqlite3 process", bare(scratch / "c", "NORMAL", each, wall)),
                ("jobq process", ours(scratch / "d", "process", each, wall)),
                ("sqlite3 memory", bare(":memory:", "OFF", each * 5, cpu)),
                ("jobq memory", ours(":memory:", "power", each * 5, cpu)),
            ]
            for name, run in runs:
                for what, result in run:
                    rates[f"{name}: {what}"].append(result)
    print("calls a second from Python, median")
    for name, results in rates.items():
        print(f"{name:36} {median(results):12.0f}")
    print("\njobq's create, of sqlite3's")
    for mode in ("power", "process", "memory"):
        pairs = zip(rates[f"jobq {mode}: create"], rates[f"sqlite3 {mode}: create"])
        print(f"{mode:36} {median(us / them for us, them in pairs):12.2f}")


if __name__ == "__main__":
    main(*(int(arg) for arg in sys.argv[1:3]), *sys.argv[3:4])
