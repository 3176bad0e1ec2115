"""Data parallel and sharded training: our modules where `nn.Embedding` stands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn

import bitfold
from bitfold.testing.cases import first_cases

IDS = torch.tensor([[1, 2, 49], [3, 3, 0]])


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A group of one process, with which DDP builds its reducer all the same."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("sparse", [False, True])
def test_every_method_trains_under_ddp(alone, sparse):
    for case in first_cases():
        for make in (case.embedding, case.bag):
            module, twin = make(50, sparse=sparse), make(50, sparse=sparse)
            parallel = nn.parallel.DistributedDataParallel(module)
            for each in (parallel, twin):
                each(IDS).pow(2).sum().backward()
            for ours, theirs in zip(module.parameters(), twin.parameters(), strict=True):
                assert ours.grad.is_sparse == theirs.grad.is_sparse, case
                torch.testing.assert_close(ours.grad.to_dense(), theirs.grad.to_dense())
        collection = case.collection(sparse=sparse)
        nn.parallel.DistributedDataParallel(collection)(case.ids(3)).sum().backward()
        # What has no rows (`dhe`) or an array in place of rows (`robe`) has dense gradients.
        assert any(p.grad.is_sparse for p in collection.parameters()) == collection.embedder.sparse


def test_rows_of_codes_train_under_ddp_that_sends_no_weights(alone):
    module = bitfold.Embedding(50, 8, budget="4x", bits=4, low_precision=True, seed=0)
    with pytest.raises(RuntimeError, match="memory location"):
        nn.parallel.DistributedDataParallel(module)
    parallel = nn.parallel.DistributedDataParallel(module, init_sync=False)
    before = module.embedder.pool.codes.clone()
    optimizer = bitfold.optim.SGD(module.parameters(), lr=1.0)
    parallel(IDS).sum().backward()
    optimizer.step()
    assert not torch.equal(module.embedder.pool.codes, before)


WORK = """
import functools, json, sys, warnings
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

warnings.simplefilter("ignore")


def tables(nn, bitfold):
    yield "torch", lambda: nn.Embedding(64, 8, padding_idx=0)
    yield "full", lambda: bitfold.Embedding(64, 8, padding_idx=0, method="full")
    yield "bag", lambda: bitfold.EmbeddingBag(64, 8, mode="sum", method="full")
    yield "binary-code", lambda: bitfold.Embedding(64, 8, budget="2x")
    yield "weighted", lambda: bitfold.EmbeddingBag(64, 8, budget="2x", fusion="weighted")


def work(rank, folder):
    from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
    from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

    import bitfold

    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    policy = functools.partial(size_based_auto_wrap_policy, min_num_params=100)
    ids, said = torch.arange(8).reshape(4, 2), {}
    for name, make in tables(nn, bitfold):
        for keep in (False, True) if name == "full" else (False,):
            torch.manual_seed(0)
            model = nn.Sequential(make(), nn.Linear(8, 4))
            outs = []
            for step in range(2):  # alone
                out = model(ids)
                outs.append(out.detach().clone())
                model.zero_grad()
                out.pow(2).mean().backward()
                with torch.no_grad():
                    for p in model.parameters():
                        p -= 0.1 * p.grad
            torch.manual_seed(0)
            model = nn.Sequential(make(), nn.Linear(8, 4))
            cpu = torch.device("cpu")
            words = {"device_id": cpu, "use_orig_params": keep}
            shards = FSDP(model, auto_wrap_policy=policy, **words)
            optimizer = torch.optim.SGD(shards.parameters(), lr=0.1)
            same = True
            for expected in outs:
                optimizer.zero_grad()
                out = shards(ids)
                same = same and torch.allclose(out, expected, atol=1e-6)
                out.pow(2).mean().backward()
                optimizer.step()
            said[f"{name} {keep}"] = same
    # Two processes and sparse gradients: the mean of both, on both.
    for name, make in tables(nn, bitfold):
        torch.manual_seed(rank)  # weights are the first process's
        table = make()
        if name == "weighted":
            continue
        table.sparse = True
        ddp = nn.parallel.DistributedDataParallel(table)
        ddp(ids + rank).pow(2).sum().backward()
        grad = next(table.parameters()).grad
        both = [torch.zeros(grad.shape) for _ in range(2)]
        dist.all_gather(both, grad.to_dense())
        said[f"sparse {name}"] = bool(grad.is_sparse and grad.to_dense().any())
        said[f"sparse {name} alike"] = torch.equal(*both)
    if rank == 0:
        with open(f"{folder}/said.json", "w") as file:
            json.dump(said, file)
    dist.barrier()


if __name__ == "__main__":
    mp.spawn(work, args=(sys.argv[1],), nprocs=2)
"""


def test_two_processes_shard_a_table_and_average_sparse_gradients(tmp_path: Path):
    script = tmp_path / "work.py"
    script.write_text(WORK)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads((tmp_path / "said.json").read_text())
    assert len(said) == 6 + 8
    assert all(said.values()), said
