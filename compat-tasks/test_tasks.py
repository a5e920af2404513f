"""taskbroker's workers, unmodified, on our server: they pull, or are pushed to."""

import json
import signal
import threading
import time

import grpc
import pytest
from conftest import is_at_once, until
from sentry_protos.taskbroker.v1 import taskbroker_pb2 as pb
from sentry_protos.taskbroker.v1.taskbroker_pb2_grpc import ConsumerServiceStub


def test_tasks_are_done_with_their_arguments_and_are_gone(server, shop, workers, done):
    workers.start()
    for number in range(20):
        shop.send.delay(number, text=f"é{number}")
    # On a slow machine a task may be lost before the children are there, and be done twice.
    until("all are done", lambda: len({number for _, _, number, _ in done("send")}) >= 20)
    assert {tuple(what) for _, *what in done("send")} == {("send", str(n), f"é{n}") for n in range(20)}
    until("nothing is left", server.is_idle)
    assert server.counts()["dead_letters"] == 0


def test_a_task_that_fails_is_retried_to_its_limit_and_then_a_dead_letter(server, shop, workers, done):
    workers.start()
    shop.fail.delay(1)
    shop.drop.delay(2)
    until("it is a dead letter", lambda: server.counts().get("dead_letters") == 1)
    until("the other is gone", server.is_idle)
    assert len(done("fail", 1)) == 3
    assert len(done("drop", 2)) == 2
    (dead,) = json.loads(server("dead-letters", "shop", "--json"))
    assert (dead["namespace"], dead["task"], dead["state"]) == ("mail", "fail", "dead_letter")
    server("dead-letters", "shop", "--requeue")
    until("it was tried again", lambda: len(done("fail", 1)) == 6)
    until("it is a dead letter again", lambda: server.counts()["dead_letters"] == 1)


def test_a_delay_a_retry_delay_and_an_expiry_are_kept(server, shop, workers, done):
    begun = time.time()
    shop.send.apply_async(args=[1], countdown=2)
    shop.expire.delay(2)
    shop.later.delay(3)
    until("the one without a worker has expired", lambda: server.counts()["pending"] == 1, 10)
    workers.start()
    until("both came", lambda: done("send", 1) and len(done("later", 3)) == 2)
    assert done("send", 1)[0][0] - begun > 1.9
    first, second = done("later", 3)
    assert second[0] - first[0] > 1.9
    until("nothing is left", server.is_idle)
    assert done("expire") == []


def test_the_task_of_a_worker_that_died_is_done_by_another_and_at_most_once_if_it_says_so(
    server, shop, workers, done
):
    shop.die_once.delay(1)
    died = workers.start()
    died.wait(60)
    workers.start()
    until("another worker did it", lambda: len(done("die", 1)) >= 2)
    until("nothing is left", server.is_idle)
    shop.die.delay(2)
    until("it was begun", lambda: done("die", 2))
    until("it is over", server.is_idle)
    assert len(done("die", 2)) == 1


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_restarted_broker_loses_nothing_and_does_nothing_twice(server, shop, workers, done, how):
    workers.start(concurrency=2)
    for number in range(30):
        shop.slow.delay(number, 0.1)
    until("some are done", lambda: len(done("end")) > 3)
    server.end(how)
    time.sleep(0.3)
    server.start()
    until("all are done", lambda: len(done("end")) >= 30, 90)
    until("nothing is left", server.is_idle)
    # What was reported while nobody listened is said again by the worker.
    assert sorted(int(number) for *_, number in done("end")) == list(range(30))


def test_an_idle_worker_takes_a_task_at_once(server, shop, workers, done):
    workers.start()
    shop.send.delay("warm")
    until("the worker is there", lambda: done("send", "warm"))
    taken = []
    for number in range(15):
        # Long enough that the worker asks for the next one and waits.
        time.sleep(0.4)
        begun = time.time()
        shop.send.delay(number)
        until("it is done", lambda: done("send", number))
        taken.append(done("send", number)[0][0] - begun)
    is_at_once(taken)


def test_a_worker_without_work_and_its_broker_end_soon_after_a_signal(server, shop, workers, done):
    worker = workers.start()
    shop.send.delay("warm")
    until("the worker is there", lambda: done("send", "warm"))
    until("it has said so", server.is_idle)
    # Long enough that a worker that pulls has asked for the next one; its call is held for 2 s.
    time.sleep(1)
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    assert time.monotonic() - begun < 2 + 4
    workers.start()
    shop.send.delay("again")
    until("another worker is there", lambda: done("send", "again"))
    time.sleep(1)
    begun = time.monotonic()
    assert server.end() == 0
    assert time.monotonic() - begun < 2


def test_a_task_waits_for_another_one_as_its_producer_says(server, shop, workers, done):
    first = shop.slow.create_activation(args=[1, 0.5], kwargs={})
    second = shop.send.create_activation(args=[2], kwargs={})
    lost = shop.send.create_activation(args=[3], kwargs={})
    assert shop.tasks.enqueue(first) == first.id
    assert shop.tasks.enqueue(second, depends_on=[first.id], priority=9) == second.id
    with pytest.raises(shop.tasks.EnqueueError, match='there is no task "nobody" to wait for'):
        shop.tasks.enqueue(lost, depends_on=["nobody"])
    shop.tasks.enqueue(lost, depends_on=["nobody", second.id], met_if_gone=True)
    assert server.counts()["waiting"] == 2
    workers.start(concurrency=2)
    until("all are done", lambda: done("send", 3))
    order = [what[0] for _, *what in done()]
    assert order == ["begin", "end", "send", "send"] and done("send", 2) < done("send", 3)
    until("nothing is left", server.is_idle)


def test_many_pullers_get_each_task_once(server, shop):
    count = 10_000
    server("enqueue", "--application", "shop", "--namespace", "mail", "--task", "send", "--count", count, "-q")
    got, lock = {}, threading.Lock()

    def pull():
        with grpc.insecure_channel(server.broker, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub, mine = ConsumerServiceStub(channel), []
            task = stub.GetTask(pb.GetTaskRequest(application="shop")).task
            while task.id:
                mine.append(task.id)
                following = pb.FetchNextTask(application="shop")
                status = pb.SetTaskStatusRequest(id=task.id, status=5, fetch_next_task=following)
                task = stub.SetTaskStatus(status).task
            with lock:
                for id in mine:
                    got[id] = got.get(id, 0) + 1

    pullers = [threading.Thread(target=pull) for _ in range(20)]
    for puller in pullers:
        puller.start()
    for puller in pullers:
        puller.join()
    assert len(got) == count and set(got.values()) == {1}
    assert server.is_idle()


def test_the_codes_and_texts_are_taskbrokers(server, shop):
    with grpc.insecure_channel(server.broker) as channel:
        stub = ConsumerServiceStub(channel)

        def refused(call, request):
            with pytest.raises(grpc.RpcError) as error:
                call(request)
            return error.value.code(), error.value.details()

        none = (grpc.StatusCode.NOT_FOUND, "No pending activations")
        assert refused(stub.GetTask, pb.GetTaskRequest(namespace="mail")) == none
        begun = time.monotonic()
        assert refused(stub.GetTask, pb.GetTaskRequest(application="shop")) == none
        assert 1.5 < time.monotonic() - begun < 4
        assert stub.SetTaskStatus(pb.SetTaskStatusRequest(id="nobody's", status=5)) == pb.SetTaskStatusResponse()
        code, text = refused(stub.SetTaskStatus, pb.SetTaskStatusRequest(id="x", status=1))
        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert text == "Invalid status, expects 3 (Failure), 4 (Retry), or 5 (Complete), but got: Pending"
        code, text = refused(stub.SetTaskStatus, pb.SetTaskStatusRequest(id="x", status=99))
        assert code == grpc.StatusCode.INVALID_ARGUMENT and text.startswith("Unable to deserialize status")
        stub.SetBatchActivationStatus(pb.SetBatchActivationStatusRequest())
        # The bytes come back as they went in.
        activation = shop.send.create_activation(args=[1], kwargs={"text": "x"})
        assert shop.tasks.producer("any").enqueue(activation.SerializeToString()) == activation.id
        assert stub.GetTask(pb.GetTaskRequest()).task == activation
        again = pb.SetTaskStatusRequest(id=activation.id, status=4, max_attempts=3)
        assert stub.SetTaskStatus(again) == pb.SetTaskStatusResponse()
        retried = stub.GetTask(pb.GetTaskRequest(application="shop", namespace="mail")).task
        assert retried.id != activation.id and retried.retry_state.attempts == 1
        assert retried.parameters_bytes == activation.parameters_bytes
        assert retried.headers == activation.headers
        updates = [pb.SetTaskStatusRequest(id=retried.id, status=5)]
        stub.SetBatchActivationStatus(pb.SetBatchActivationStatusRequest(updates=updates))
        assert server.is_idle()


@pytest.mark.ways("secrets", "spawn")
def test_a_worker_that_knows_a_secret_is_served_and_nobody_else(server, shop, workers, done):
    shop.send.delay(1)
    with grpc.insecure_channel(server.broker) as channel:
        for signature in ["", "00", "é".encode().hex()]:
            with pytest.raises(grpc.RpcError) as error:
                ConsumerServiceStub(channel).GetTask(
                    pb.GetTaskRequest(application="shop"), metadata=[("sentry-signature", signature)]
                )
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert error.value.details() == "Authentication failed"
    workers.start()
    until("the worker is served", lambda: done("send", 1))
    until("it has said so", server.is_idle)


@pytest.mark.ways("forkserver", "open")
def test_children_may_be_forked_by_a_server(server, shop, workers, done):
    workers.start(concurrency=2)
    for number in range(10):
        shop.send.delay(number)
    until("nothing is left", server.is_idle)
    # On a slow machine a task may be lost before the children are there, and be done twice.
    assert {number for _, _, number, _ in done("send")} == {str(number) for number in range(10)}


def test_who_lost_an_attempt_is_not_listened_to(server, shop):
    id = server("enqueue", "--application", "shop", "--namespace", "mail", "--task", "t", "--deadline", "0s").strip()
    with grpc.insecure_channel(server.broker, [("grpc.use_local_subchannel_pool", 1)]) as late:
        with grpc.insecure_channel(server.broker, [("grpc.use_local_subchannel_pool", 1)]) as other:
            request = pb.GetTaskRequest(application="shop")
            assert ConsumerServiceStub(late).GetTask(request).task.id == id
            until("its time is over", lambda: server.counts()["pending"] == 1, 20)
            assert ConsumerServiceStub(other).GetTask(request).task.id == id
            complete = pb.SetTaskStatusRequest(id=id, status=5)
            ConsumerServiceStub(late).SetTaskStatus(complete)
            assert server.counts()["processing"] == 1
            ConsumerServiceStub(other).SetTaskStatus(complete)
            assert server.is_idle()
