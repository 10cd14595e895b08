"""`python -m tests.benchmarks` measures every row of the README's table of speeds."""

import os
import sys

from helpers.errors import UserError
from tests.benchmarks import benchmarks

if __name__ == "__main__":
    if not benchmarks.ALLOCATOR.keys() <= os.environ.keys():  # read by the C library when a process starts
        os.environ.update(benchmarks.ALLOCATOR, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
        os.execv(sys.executable, [sys.executable, "-m", "tests.benchmarks", *sys.argv[1:]])
    try:
        benchmarks.main()
    except UserError as error:
        sys.exit(str(error))
