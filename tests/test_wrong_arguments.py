"""No argument, whatever it is, has a kernel read or write what is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

import bitfold
from bitfold import BitfoldError

SCRIPT = Path(__file__).parent / "wrong_arguments.py"


def tried(count, first):
    """Wrong arguments, one after another, in a process of their own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(bitfold.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(count), str(first)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    last = "\n".join(done.stdout.splitlines()[-3:])
    assert done.returncode == 0, f"died ({done.returncode}) after\n{last}\n{done.stderr[-500:]}"
    assert f"done: {count} tried" in last
    return int(last.split("tried, ")[1].split()[0])


def test_a_sample_of_wrong_arguments():
    assert tried(160, 100_000) > 80


@pytest.mark.slow
def test_two_thousand_wrong_arguments():
    assert tried(2000, 0) > 1000


@pytest.mark.parametrize("method", ["full", "hash", "binary-code"])
@pytest.mark.parametrize("how", ["functional_call", "data", "assign", "resize_"])
def test_a_weight_smaller_than_the_plan_is_refused(method, how):
    budget = None if method == "full" else "4x"
    module, ids = bitfold.Embedding(1000, 8, method=method, budget=budget), torch.arange(1000)
    module(ids)
    small, pool = torch.zeros(3, 8), module.embedder.pool

    def read():
        if how == "functional_call":
            return functional_call(module, {"embedder.pool.weight": small}, (ids,))
        if how == "data":
            pool.weight.data = small
        elif how == "resize_":
            pool.weight.detach_().requires_grad_(False).resize_(3, 8)
        else:
            pool.weight = nn.Parameter(small)
            state = {**module.state_dict(), "embedder.pool.weight": small}
            module.load_state_dict(state, assign=True)
        return module(ids)

    with pytest.raises(BitfoldError, match="the weight is not what this lookup needs"):
        read()
