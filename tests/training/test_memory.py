"""Freed memory is kept while training needs it again, and given back when asked: in a process of its own, for good."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from pathlib import Path
from pipeline_lib.training.memory import give_back_freed_memory, keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

keep_freed_memory()
allocate = ctypes.CDLL(None).malloc
allocate.restype, free = ctypes.c_void_p, ctypes.CDLL(None).free
free.argtypes = [ctypes.c_void_p]
before = resident()
blocks = [allocate(2**20) for _ in range(100)]
for block in blocks:
    ctypes.memset(block, 1, 2**20)
for block in blocks[:-1]:  # the last one keeps the others from the end of the heap
    free(block)
kept = resident()
give_back_freed_memory()
print((kept - before) / 1e6, (resident() - before) / 1e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_freed_stays_until_it_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 90 and left < 10
