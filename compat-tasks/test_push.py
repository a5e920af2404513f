"""What only push mode has."""

import urllib.request

import grpc
import pytest
from conftest import until
from sentry_protos.taskbroker.v1 import taskbroker_pb2 as pb
from sentry_protos.taskbroker.v1.taskbroker_pb2_grpc import ConsumerServiceStub


def metrics(server):
    with urllib.request.urlopen(server.url + "/metrics") as page:
        lines = [line.split() for line in page.read().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


@pytest.mark.ways("push", "spawn", "open")
def test_workers_come_and_go_and_share_what_there_is(server, shop, workers, done):
    shop.send.delay("early")
    assert metrics(server)['forebay_push_endpoints{state="away"}'] == 2
    workers.start()
    until("it was done once there was a worker", lambda: done("send", "early"))
    workers.start()
    until("both are there", lambda: metrics(server)['forebay_push_endpoints{state="away"}'] == 0)
    for number in range(60):
        shop.who.delay(number)
    until("all are done", lambda: len(done("who")) == 60)
    until("nothing is left", server.is_idle)
    assert {int(number) for _, _, number, _ in done("who")} == set(range(60))
    assert {int(worker) for *_, worker in done("who")} == {worker.pid for worker in workers.running}


@pytest.mark.ways("push", "spawn", "open")
def test_what_is_pushed_is_not_handed_out(server, shop):
    with grpc.insecure_channel(server.broker) as channel:
        with pytest.raises(grpc.RpcError) as error:
            ConsumerServiceStub(channel).GetTask(pb.GetTaskRequest(application="shop"))
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "Cannot call while broker is in PUSH mode"
