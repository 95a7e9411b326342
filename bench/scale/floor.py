"""The floor: N times /bin/true by posix_spawn and wait, in two processes. Prints the seconds. ARGUMENTS: N."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time


def spawn(count: int) -> None:
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/true", ["/bin/true"], {}), 0)


def main(count: int) -> None:
    begun = time.perf_counter()
    both = [multiprocessing.Process(target=spawn, args=(count // 2,)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
