"""A worker of the application, as it comes with taskbroker's client."""

import sys

from taskbroker_client.worker import TaskWorker

if __name__ == "__main__":
    worker = TaskWorker(
        app_module="shop:app",
        broker_hosts=[sys.argv[1]],
        concurrency=int(sys.argv[2]),
        max_child_task_count=10_000,
        child_tasks_queue_maxsize=2,
        result_queue_maxsize=2,
        rebalance_after=32,
        processing_pool_name="compat",
        process_type="spawn",
    )
    try:
        sys.exit(worker.start())
    except KeyboardInterrupt:
        sys.exit(0)
