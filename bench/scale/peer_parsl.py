"""N times /bin/true through Parsl's HighThroughputExecutor, two workers on this machine. Prints the seconds."""

import json
import os
import sys
import tempfile
import time

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider


@parsl.python_app
def run_true():
    import subprocess

    return subprocess.run(["/bin/true"], check=False).returncode


def main(count):
    place = tempfile.mkdtemp(prefix="batchferry-bench-parsl-")
    os.chdir(place)
    executor = HighThroughputExecutor(
        label="two", max_workers_per_node=2, address="127.0.0.1", provider=LocalProvider()
    )
    with parsl.load(Config(executors=[executor], run_dir=place, usage_tracking=0)):
        assert all(each.result() == 0 for each in [run_true() for _ in range(20)])
        begun = time.perf_counter()
        assert all(each.result() == 0 for each in [run_true() for _ in range(count)])
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
