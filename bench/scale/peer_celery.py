"""N times /bin/true through Celery: prefork, acks_late, results by rpc. Prints the seconds. ARGUMENTS: N, broker URL."""

import json
import os
import subprocess
import sys
import time

from celery import Celery

URL = os.environ.get("BENCH_BROKER", "memory://")
app = Celery("peer_celery", broker=URL, backend="rpc://")
app.conf.update(
    task_acks_late=True, worker_prefetch_multiplier=64, task_default_queue=os.environ.get("BENCH_QUEUE", "celery"),
    result_persistent=True, task_ignore_result=False, broker_connection_retry_on_startup=True, worker_send_task_events=False,
)  # fmt: skip


@app.task
def run_true():
    return subprocess.run(["/bin/true"], check=False).returncode


def main(count):
    command = [sys.executable, "-m", "celery", "-A", "peer_celery", "worker", "--pool=prefork", "--concurrency=2",
               "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]  # fmt: skip
    worker = subprocess.Popen(command, cwd=os.path.dirname(os.path.abspath(__file__)), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for result in [run_true.delay() for _ in range(20)]:
            assert result.get(timeout=60) == 0
        begun = time.perf_counter()
        results = [run_true.delay() for _ in range(count)]
        assert all(result.get(timeout=600) == 0 for result in results)
        seconds = time.perf_counter() - begun
    finally:
        worker.terminate()
        worker.wait()
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    # The worker imports this module by its name; so must we, for tasks to have one name.
    import peer_celery

    peer_celery.main(int(sys.argv[1]))
