"""N times /bin/true through HyperQueue's local cluster, one worker with two CPUs. Prints the seconds."""

import json
import os
import sys
import tempfile
import time

from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig


def main(count):
    os.chdir(tempfile.mkdtemp(prefix="batchferry-bench-hq-"))
    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=2))
        client = cluster.client()
        for number in (20, count):
            job = Job(max_fails=None)
            begun = time.perf_counter()
            for _ in range(number):
                job.program(["/bin/true"], stdout=None, stderr=None)
            client.wait_for_jobs([client.submit(job)])
            seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
