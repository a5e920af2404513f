"""What only push mode has."""

import time
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
    both = {str(worker.pid) for worker in workers.running}

    def both_work():
        # A worker takes tasks before its children are there.
        shop.who.delay("warm")
        time.sleep(0.2)
        return {worker for *_, worker in done("who", "warm")} == both

    until("both work", both_work)
    until("nothing is left", server.is_idle)
    assert metrics(server)['forebay_push_endpoints{state="away"}'] == 0
    for number in range(60):
        shop.who.delay(number)
    until("nothing is left", server.is_idle)
    counted = [what for _, *what in done("who") if what[1] != "warm"]
    assert {int(number) for _, number, _ in counted} == set(range(60))
    assert {worker for *_, worker in counted} == both


@pytest.mark.ways("push", "spawn", "open")
def test_what_is_pushed_is_not_handed_out(server, shop):
    with grpc.insecure_channel(server.broker) as channel:
        with pytest.raises(grpc.RpcError) as error:
            ConsumerServiceStub(channel).GetTask(pb.GetTaskRequest(application="shop"))
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert error.value.details() == "Cannot call while broker is in PUSH mode"
