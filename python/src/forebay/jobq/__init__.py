"""A durable job queue in one SQLite file, in the format and with the calls of jobq.

>>> queue = JobQueue(":memory:")
>>> job = queue.create({"msg": "hello"}, ["created"])
>>> queue.poll("json_extract(j.state, '$[0]') = 'created'", ["assigned", "host-1"]).id
1
>>> queue.cas_state(job.id, ["assigned", "host-1"], ["done"]).state
['done']

A queue may be used from many threads; calls made at the same time share a commit, and no call
holds the interpreter's lock while it works. Other processes may have the same file open.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import Any, NamedTuple, Optional, Sequence, Union

from . import _native
from ._native import Busy, Closed, JobQueueError, LeaseEnded, NoSuchQueue

__all__ = [
    "Busy",
    "Closed",
    "Job",
    "JobQueue",
    "JobQueueError",
    "Lease",
    "LeaseEnded",
    "NoSuchJob",
    "NoSuchQueue",
    "Query",
    "QueryError",
]

#: One SQL expression over ``j.id``, ``j.payload``, ``j.events``, ``j.state`` and ``j.modified``, or
#: a list of expressions and ``[op, path, value]`` triples that must all hold.
Query = Union[str, Sequence[Union[str, Sequence[Any]]]]


class NoSuchJob(_native.NoSuchJob, LookupError, AssertionError):
    """There is no job of this id. The original fails with an ``AssertionError``."""


class QueryError(_native.BadQuery, ValueError, AssertionError):
    """The query is outside the grammar. The original fails with an ``AssertionError``."""


class Job(NamedTuple):
    """One job, as it was when the call that returned it was committed."""

    id: int
    payload: Any
    events: Any
    state: Any
    modified: datetime


class Lease(NamedTuple):
    """A job on lease: it goes back to the state that it had when the lease ends."""

    job: Job
    attempt: int
    until: datetime


class JobQueue:
    """A queue of jobs in a file, or in memory with ``":memory:"``.

    With ``durability="power"`` a call returns when what it did is synced to disk; with
    ``"process"`` it survives the end of the process, and power loss takes at most the last tenth
    of a second. With ``events="table"`` a new file keeps its events in a table, so that
    ``log_event`` costs the same however long the log is; the original cannot open such a file.
    """

    def __init__(
        self,
        path: Union[str, "os.PathLike[str]"],
        *,
        durability: str = "power",
        events: str = "column",
    ) -> None:
        if durability not in ("power", "process"):
            raise ValueError(f"durability is 'power' or 'process', not {durability!r}")
        if events not in ("column", "table"):
            raise ValueError(f"events is 'column' or 'table', not {events!r}")
        self._queue = _native.Queue(path, durability == "process", events == "table")

    def __enter__(self) -> JobQueue:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish the calls in progress and close the file; closing twice is fine."""
        self._queue.close()

    def create(
        self,
        job: Any,
        new_state: Any = None,
        *,
        priority: int = 0,
        delay: float = 0.0,
        retries: Optional[int] = None,
    ) -> Job:
        """Create a job, optionally in a state.

        Jobs of a higher ``priority`` are polled first; a job is not polled before ``delay``
        seconds have passed; after ``retries`` ended leases a job is in the state ``["dead"]``.
        """
        return _job(
            self._queue.create(
                json.dumps(job), json.dumps(new_state), priority, delay, retries
            )
        )

    def get(self, job_id: int) -> Job:
        """The job of this id."""
        try:
            return _job(self._queue.get(job_id))
        except _native.NoSuchJob as error:
            raise NoSuchJob(*error.args) from None

    def query(self, query: Query, limit: Optional[int] = None) -> list[Job]:
        """The jobs that match, the longest untouched first."""
        try:
            # As in the original, a limit of 0 is none.
            rows = self._queue.query(_terms(query), int(limit) if limit else None)
        except _native.BadQuery as error:
            raise QueryError(*error.args) from None
        return [_job(row) for row in rows]

    def poll(self, query: Query, new_state: Any) -> Optional[Job]:
        """Move the longest untouched job that matches to a state; ``None`` if there is none."""
        jobs = self.poll_many(query, new_state, 1)
        return jobs[0] if jobs else None

    def poll_many(self, query: Query, new_state: Any, limit: int) -> list[Job]:
        """Move up to ``limit`` jobs that match to a state in one commit."""
        return self._poll(query, new_state, limit, 0.0)

    def poll_wait(self, query: Query, new_state: Any, timeout: float) -> Optional[Job]:
        """Poll, and wait up to ``timeout`` seconds for a job that matches."""
        jobs = self._poll(query, new_state, 1, timeout)
        return jobs[0] if jobs else None

    def _poll(self, query: Query, new_state: Any, limit: int, timeout: float) -> list[Job]:
        try:
            rows = self._queue.poll(_terms(query), json.dumps(new_state), limit, timeout)
        except _native.BadQuery as error:
            raise QueryError(*error.args) from None
        return [_job(row) for row in rows]

    def lease(
        self,
        query: Query,
        new_state: Any,
        lease: float,
        *,
        limit: int = 1,
        timeout: float = 0.0,
    ) -> list[Lease]:
        """Poll jobs on a lease of ``lease`` seconds, waiting up to ``timeout`` for the first.

        A job whose lease ends goes back to the state that it had. Moving it ends its lease.
        """
        try:
            rows = self._queue.lease(
                _terms(query), json.dumps(new_state), lease, limit, timeout
            )
        except _native.BadQuery as error:
            raise QueryError(*error.args) from None
        return [
            Lease(_job(row), attempt, datetime.fromtimestamp(until / 1000))
            for row, attempt, until in rows
        ]

    def renew(self, lease: Lease, seconds: float) -> None:
        """Make a lease last ``seconds`` from now."""
        try:
            self._queue.renew(lease.job.id, lease.attempt, seconds)
        except _native.NoSuchJob as error:
            raise NoSuchJob(*error.args) from None

    def finish(self, lease: Lease, new_state: Any) -> Job:
        """Move a job on lease to its next state."""
        try:
            return _job(
                self._queue.finish(lease.job.id, lease.attempt, json.dumps(new_state))
            )
        except _native.NoSuchJob as error:
            raise NoSuchJob(*error.args) from None

    def cas_state(self, job_id: int, old_state: Any, new_state: Any) -> Optional[Job]:
        """Move a job from one state to another; ``None`` if its state was not ``old_state``."""
        row = self._queue.cas_state(job_id, json.dumps(old_state), json.dumps(new_state))
        return _job(row) if row else None

    def append_event(self, job_id: int, event: Any) -> Job:
        """Append an event of the user's to a job's log."""
        try:
            return _job(self._queue.append_event(job_id, json.dumps(event)))
        except _native.NoSuchJob as error:
            raise NoSuchJob(*error.args) from None

    def log_event(self, job_id: int, event: Any) -> None:
        """Append an event without reading the job back."""
        try:
            self._queue.log_event(job_id, json.dumps(event))
        except _native.NoSuchJob as error:
            raise NoSuchJob(*error.args) from None

    def delete_job(self, job_id: int) -> None:
        """Delete a job, whatever its state."""
        self._queue.delete(job_id)

    delete = delete_job

    def queue(self, name: str) -> JobQueue:
        """Another queue in the same file, with its own jobs."""
        other = JobQueue.__new__(JobQueue)
        other._queue = self._queue.queue(name)
        return other

    def queues(self) -> list[str]:
        """The names of the other queues in the file."""
        return self._queue.queues()

    def drop_queue(self, name: str) -> bool:
        """Remove another queue with all its jobs; ``False`` if there was none."""
        return self._queue.drop_queue(name)


def _job(row: tuple[int, str, str, str, int]) -> Job:
    id, payload, events, state, modified = row
    return Job(
        id,
        json.loads(payload),
        json.loads(events),
        json.loads(state),
        datetime.fromtimestamp(modified),
    )


def _terms(query: Query) -> str:
    return json.dumps(query if isinstance(query, str) else list(query))
