"""Kernels are compiled once for all processes, not once for each."""

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch

import bitfold
from bitfold.kernels import held
from bitfold.kernels.compiled import kernel
from bitfold.kernels.ready import ready_by_program

SCRIPT = """
import numpy as np
from bitfold.kernels.compiled import STAMP, kernel
from bitfold.kernels.vectors import get, pointer, put

def made(more):
    stamp = STAMP
    @kernel
    def walk(address, t):
        told = pointer(address, np.int64(stamp))
        put(told, t, get(told, t) + more)
    return walk

found = [made(more) for more in (2, 3)]
told = np.zeros(1, np.int64)
for each in found:
    each.call(told.ctypes.data, 0)
assert told[0] == 5
print([each.compiled.cache_hits for each in found])
"""


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    script = tmp_path / "kernels_of_mine.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    for hits in ("[0, 0]", "[1, 1]"):
        done = subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == hits


def test_a_kernel_closes_over_no_compiled_function() -> None:
    one = numba.njit(lambda: 1)

    def walk(address: int, t: int) -> None:
        one()

    with pytest.raises(AssertionError, match="never found on disk"):
        kernel(walk)


def test_a_kernel_is_compiled_when_it_is_needed() -> None:
    module = bitfold.EmbeddingBag(50, 4, mode="sum", method="full")
    ids = torch.arange(6)
    module(ids, torch.tensor([0, 3]))
    packed = module.embedder.packed
    found = ready_by_program[packed.data_ptr()]
    assert found.ids is None
    assert found.bags is not None


def test_a_program_that_left_its_memory_is_not_taken_for_another() -> None:
    """One that goes to another process moves to shared memory, and others get its place."""
    one, two = bitfold.Embedding(500, 4, budget="4x"), bitfold.Embedding(900, 4, budget="9x")
    packed, other = one.embedder.packed, two.embedder.packed
    assert packed.shape == other.shape
    held._facts[other.data_ptr()] = held.facts_of(packed)._replace(version=other._version)
    assert held.facts_of(other).rows == two.plan.program.rows
    assert two(torch.tensor([899])).shape == (1, 4)
