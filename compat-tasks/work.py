"""A worker of the application, as it comes with taskbroker's client: broker, concurrency, how to start
children, and the port to listen on if tasks are pushed."""

import os
import sys

from taskbroker_client import worker

if __name__ == "__main__":
    broker, concurrency, start, *port = sys.argv[1:]
    # Its children inherit it.
    os.environ["SHOP_WORKER"] = str(os.getpid())
    options = dict(
        app_module="shop:app",
        concurrency=int(concurrency),
        max_child_task_count=10_000,
        child_tasks_queue_maxsize=2,
        result_queue_maxsize=2,
        rebalance_after=32,
        processing_pool_name="compat",
        process_type=start,
    )
    if not port:
        one = worker.TaskWorker(broker_hosts=[broker], **options)
    elif hasattr(worker, "PushTaskWorker"):
        one = worker.PushTaskWorker(broker_service=broker, grpc_port=int(port[0]), **options)
    else:
        one = worker.TaskWorker(broker_hosts=[broker], push_mode=True, grpc_port=int(port[0]), **options)
    try:
        sys.exit(one.start())
    except KeyboardInterrupt:
        sys.exit(0)
