"""The server goes away and comes back while torc's runners work."""

import signal
import time

import pytest

JOBS = 40


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_runners_carry_on_and_each_job_has_one_result(server, torc, how):
    spec = {
        "name": "long",
        "jobs": [{"name": f"j{n}", "command": f"echo {n} >> done; sleep 0.3"} for n in range(JOBS)],
    }
    workflow = torc.create(spec)
    torc("workflows", "init", workflow, "--no-prompts")
    runners = [torc.begin("run", workflow, "--poll-interval", "0.2", "--num-cpus", "2") for _ in range(2)]
    done = torc.folder / "done"
    while not done.exists() or len(done.read_text().split()) < 6:
        assert all(runner.poll() is None for runner in runners)
        time.sleep(0.05)
    code = server.end(how)
    assert code == (0 if how == signal.SIGTERM else -signal.SIGKILL)
    server.start()
    for runner in runners:
        output, _ = runner.communicate(timeout=150)
        assert runner.returncode == 0, output
    assert torc.counts(workflow) == {"completed": JOBS}
    results = torc.json("results", "list", workflow, "--all-runs")["items"]
    assert sorted(result["job_id"] for result in results) == sorted({result["job_id"] for result in results})
    assert len(results) == JOBS
    # What a job does, it does once: a claim that was answered is not handed out again.
    assert sorted(map(int, done.read_text().split())) == list(range(JOBS))
