"""jobq's documented behaviour, through the old name and the new one."""

import sqlite3
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

import jobq
from forebay.jobq import (
    Busy,
    Closed,
    Job,
    JobQueue,
    JobQueueError,
    LeaseEnded,
    NoSuchJob,
    QueryError,
)

FIXTURE = Path(__file__).parents[2] / "crates" / "jobq" / "tests" / "fixtures" / "original.sql"


@pytest.fixture
def db():
    with JobQueue(":memory:") as queue:
        yield queue


@pytest.fixture
def original(tmp_path):
    path = tmp_path / "original.sqlite3"
    with sqlite3.connect(path) as file:
        file.executescript(FIXTURE.read_text())
    file.close()
    return path


def test_the_old_name_is_the_same_module():
    assert jobq.JobQueue is JobQueue
    assert jobq.Job is Job


def test_a_created_job_is_a_named_tuple(db):
    job = db.create("a basic payload")
    assert isinstance(job, Job) and isinstance(job, tuple)
    assert job._fields == ("id", "payload", "events", "state", "modified")
    assert (job.id, job.payload, job.state) == (1, "a basic payload", None)
    assert isinstance(job.modified, datetime)
    ((name, event),) = job.events
    assert name == "job_created"
    assert datetime.fromtimestamp(int(event["timestamp"])) == job.modified


def test_get_after_create_returns_the_same_value(db):
    job = db.create({"b": [1.5, None, "é"], "a": {}}, ["created"])
    assert list(job.payload) == ["b", "a"]
    assert db.get(job.id) == job


def test_getting_a_job_that_is_not_there_fails(db):
    for error in (NoSuchJob, JobQueueError, LookupError, AssertionError):
        with pytest.raises(error):
            db.get(7)
    with pytest.raises(NoSuchJob):
        db.append_event(7, "x")


def test_the_oldest_job_wins_a_poll(db):
    first, second = db.create("payload 1"), db.create("payload 2")
    job = db.poll("true", ["assigned"])
    assert job.id == first.id
    assert job.state == ["assigned"]
    assert job.events[1][0] == "job_state_advanced"
    assert job.events[1][1]["old"] is None and job.events[1][1]["new"] == ["assigned"]
    assert db.poll("j.state = json('null')", ["assigned"]).id == second.id


def test_a_poll_can_return_nothing(db):
    db.create("payload 1")
    assert db.poll("false", ["assigned"]) is None


def test_appending_an_event_keeps_the_state(db):
    job = db.create("x", ["state"])
    after = db.append_event(job.id, {"some": "event"})
    assert after.state == job.state
    assert after.events[:-1] == job.events
    assert after.events[-1][1]["event"] == {"some": "event"}


def test_cas_moves_from_the_state_that_the_job_has(db):
    job = db.create("job2", ["state", 2])
    moved = db.cas_state(job.id, ["state", 2], ["state", 3])
    assert moved.state == ["state", 3]
    assert moved.events[:-1] == job.events
    assert db.cas_state(job.id, ["state", 2], ["state", 4]) is None


def test_a_state_is_compared_as_json(db):
    job = db.create("x", {"b": "é", "a": 1e16})
    assert db.cas_state(job.id, {"b": "é", "a": 1e16}, None).state is None


@pytest.mark.parametrize("name", ["delete", "delete_job"])
def test_a_deleted_job_is_gone(db, name):
    job = db.create("x", ["running"])
    assert getattr(db, name)(job.id) is None
    with pytest.raises(NoSuchJob):
        db.get(job.id)


def test_queries_take_expressions_lists_and_triples(db):
    for n in range(6):
        db.create({"n": n}, ["even" if n % 2 == 0 else "odd"])

    def ids(query, limit=None):
        return [job.id for job in db.query(query, limit)]

    assert ids("true") == [1, 2, 3, 4, 5, 6]
    assert ids("true", limit=2) == [1, 2]
    assert ids([]) == [1, 2, 3, 4, 5, 6]
    assert ids(["json_extract(state, '$[0]') = 'odd'", "id > 2"]) == [4, 6]
    assert ids([["=", "json_extract(state, '$[0]')", "odd"], ["<", "id", 5]]) == [2, 4]
    assert ids([("=", "j.state", ["even"])]) == [1, 3, 5]


@pytest.mark.parametrize("query", ["true; drop table job", "id in (select 1)", "", 7 * ["x"], "?"])
def test_a_query_outside_the_grammar_is_refused(db, query):
    for error in (QueryError, ValueError, AssertionError):
        with pytest.raises(error):
            db.query(query)
        with pytest.raises(error):
            db.poll(query, None)


def test_what_is_no_json_is_refused(db):
    with pytest.raises(ValueError):
        db.create("x", float("nan"))
    with pytest.raises(TypeError):
        db.create(object())


def test_closing_twice_is_fine_and_a_closed_queue_takes_no_calls(db):
    db.close()
    db.close()
    with pytest.raises(Closed):
        db.create("x")


def test_the_originals_file_opens(original):
    with JobQueue(original) as queue:
        assert queue.get(1).payload == {"a": 1, "b": "é"}
        assert queue.get(3).payload == [1.5, 1e16, None]
        assert queue.cas_state(3, ["done"], ["again"]).state == ["again"]


def test_what_we_write_python_reads_as_the_original_does(tmp_path):
    path = tmp_path / "ours.sqlite3"
    with JobQueue(str(path), durability="process") as queue:
        queue.create({"a": "é"}, ["created"])
    with sqlite3.connect(path) as file:
        rows = file.execute("SELECT id, payload, state, typeof(modified) FROM job").fetchall()
    file.close()
    assert rows == [(1, '{"a": "\\u00e9"}', '["created"]', "integer")]


def test_another_process_may_write_while_we_have_the_file_open(tmp_path):
    path = tmp_path / "shared.sqlite3"
    insert = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as file:
    file.execute(
        "INSERT INTO job (payload, state, events, modified) VALUES ('1', '[\\"new\\"]', '[]', 1)"
    )
"""
    with JobQueue(path) as queue:
        subprocess.run([sys.executable, "-c", insert, str(path)], check=True)
        job = queue.poll("json_extract(state, '$[0]') = 'new'", ["taken"])
        assert job.payload == 1 and [event[0] for event in job.events] == ["job_state_advanced"]


def test_each_job_is_polled_by_one_thread(tmp_path):
    with JobQueue(tmp_path / "many.sqlite3", durability="process") as queue:
        polled = []

        def work(n):
            for _ in range(20):
                queue.create(n, ["new"])
            while job := queue.poll("json_extract(state, '$[0]') = 'new'", ["taken"]):
                polled.append(job.id)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(polled) == list(range(1, 161))


def test_a_waiting_poll_does_not_hold_the_interpreter(db):
    found = []
    waiter = threading.Thread(target=lambda: found.append(db.poll_wait("true", ["taken"], 60.0)))
    waiter.start()
    job = db.create("x")
    waiter.join()
    assert found[0].id == job.id


def test_leases_end_and_late_reports_are_refused(db):
    db.create("x", ["new"], retries=0)
    (late,) = db.lease("true", ["running"], 0.0)
    assert late.attempt == 1 and late.job.state == ["running"]
    assert db.lease("j.state = '[\"new\"]'", ["running"], 60.0) == []
    assert db.get(1).state == ["dead"]
    with pytest.raises(LeaseEnded):
        db.finish(late, ["done"])
    with pytest.raises(LeaseEnded):
        db.renew(late, 60.0)


def test_priorities_delays_and_many_at_once(db):
    db.create("late", priority=-1)
    db.create("first", priority=1)
    db.create("hidden", delay=3600.0)
    assert [job.payload for job in db.poll_many("true", 1, 9)] == ["first", "late"]


def test_queues_in_one_file_have_their_own_jobs(db):
    mail = db.queue("mail")
    mail.create("x")
    assert (len(mail.query("true")), len(db.query("true")), db.queues()) == (1, 0, ["mail"])
    assert db.drop_queue("mail") and not db.drop_queue("mail")
    with pytest.raises(ValueError):
        db.queue("a b")


def test_events_in_a_table(tmp_path):
    with JobQueue(tmp_path / "log.sqlite3", events="table") as queue:
        job = queue.create("x")
        for n in range(3):
            queue.log_event(job.id, n)
        assert [event[1].get("event") for event in queue.get(job.id).events] == [None, 0, 1, 2]


def test_options_are_checked():
    with pytest.raises(ValueError):
        JobQueue(":memory:", durability="none")
    with pytest.raises(ValueError):
        JobQueue(":memory:", events="none")
    assert issubclass(Busy, JobQueueError)
