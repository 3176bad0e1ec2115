"""What PyTorch's users rely on, of folded models: transforms, processes, precision, averages."""

import copy
import multiprocessing
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

import bitfold
from bitfold.folded.joint import Joint

SIZES = (3000, 500, 900)


class Net(nn.Module):
    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, 8, sparse=sparse) for size in SIZES)
        self.top = nn.Linear(24, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.top(torch.cat([table(ids[:, f]) for f, table in enumerate(self.tables)], 1))


def batch(rows: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(0, n, (rows,), generator=generator) for n in SIZES], 1)


@pytest.fixture(params=["4x", "12x", "40x"])
def model(request: pytest.FixtureRequest) -> Net:
    torch.manual_seed(0)
    made = Net()
    bitfold.fold(made, request.param, seed=0)
    made.eval()
    made(batch())  # how batches lie is known now: what follows may read ahead
    return made


def gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.to_dense().clone() for p in model.parameters() if p.grad is not None]


def test_functional_call_grad_and_vmap(model: Net) -> None:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    ids = batch(6)

    def loss(given: dict[str, Tensor], rows: Tensor) -> Tensor:
        return torch.func.functional_call(model, given, (rows,)).square().sum()

    found = torch.func.grad(loss)(parameters, ids)
    model.zero_grad()
    model(ids).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, ids.unsqueeze(1))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(each[name].sum(0), parameter.grad, rtol=1e-4, atol=1e-5)


def test_accumulated_gradients_are_those_of_one_batch(model: Net) -> None:
    ids = batch(40)
    model(ids).sum().backward()
    wanted = gradients(model)
    model.zero_grad()
    for part in ids.split(10):
        model(part).sum().backward()
    for found, each in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(found, each, rtol=1e-4, atol=1e-5)
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    assert norm > 0.1
    assert sum(g.square().sum() for g in gradients(model)).sqrt() <= 0.1001


def test_two_forwards_before_one_backward(model: Net) -> None:
    one, two = batch(10, 1), batch(10, 2)
    model.zero_grad()
    (model(one).sum() + model(two).sum()).backward()
    found = gradients(model)
    model.zero_grad()
    model(torch.cat([one, two])).sum().backward()
    for a, b in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_autocast_and_half_types(model: Net) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = model(batch())
        found.float().square().sum().backward()
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), model(batch()), rtol=0.05, atol=0.05)
    assert copy.deepcopy(model).double()(batch()).dtype == torch.float64


def test_averages_of_weights(model: Net) -> None:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for seed in range(3):
        optimizer.zero_grad()
        model(batch(seed=seed)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
    found = average(batch())
    assert found.isfinite().all()
    assert not torch.equal(found, model(batch()))
    twin = copy.deepcopy(model)
    state = {
        name: (value + twin.state_dict()[name]) / 2 if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    twin.load_state_dict(state)
    assert torch.equal(twin(batch()), model(batch()))


def test_checkpointed_activations_and_anomaly_detection(model: Net) -> None:
    from torch.utils.checkpoint import checkpoint

    ids = batch()
    model(ids).sum().backward()
    wanted = gradients(model)
    model.zero_grad()
    with torch.autograd.set_detect_anomaly(True):
        checkpoint(model, ids, use_reentrant=False).sum().backward()
    for a, b in zip(gradients(model), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_threads_read_what_one_reads(model: Net) -> None:
    from concurrent.futures import ThreadPoolExecutor

    batches = [batch(3, seed) for seed in range(40)]
    with torch.no_grad():
        wanted = [model(ids) for ids in batches]

        def read(ids: Tensor) -> Tensor:
            with torch.no_grad():
                return model(ids)

        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(read, batches))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_meta_then_somewhere() -> None:
    with torch.device("meta"):
        model = Net()
    report = bitfold.fold(model, "12x", seed=0)
    assert all(p.is_meta for p in model.parameters())
    assert report.bytes <= report.budget
    model.to_empty(device="cpu")
    for part in model.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    assert model(batch()).isfinite().all()


class Rows(Dataset):  # type: ignore[type-arg]
    """Rows that a folded model's table reads in a worker."""

    def __init__(self, model: Net) -> None:
        self.model = model

    def __len__(self) -> int:
        return 8

    def __getitem__(self, number: int) -> Tensor:
        with torch.no_grad():
            return self.model(batch(2, number))


@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_workers_read_the_same(way: str) -> None:
    model = bitfold.fold(Net(), "40x", seed=0).model.eval()
    wanted = torch.stack([Rows(model)[n] for n in range(8)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loader = DataLoader(
            Rows(model), batch_size=4, num_workers=1, multiprocessing_context=way
        )
        found = torch.cat(list(loader))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found, wanted)


def _train(model: nn.Module, rows: Tensor, wanted: Tensor, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(rows) - wanted).square().mean().backward()
        optimizer.step()
    return model


def _process(rank: int, folder: str, kind: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/{kind}", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = Net()
    bitfold.fold(model, "40x", seed=0)
    model.eval()
    ids, wanted = batch(32), torch.arange(32.0).unsqueeze(1) / 32
    mine = slice(16 * rank, 16 * rank + 16)
    if kind == "ddp":
        trained: Any = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard

        trained = fully_shard(model)
    _train(trained, ids[mine], wanted[mine])
    if kind == "fsdp":
        for part in model.modules():
            if hasattr(part, "unshard"):
                part.unshard()
    found = {name: p.detach().clone() for name, p in model.named_parameters()}
    if rank == 0:
        torch.save(found, f"{folder}/{kind}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_train_what_one_trains(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Net()
    bitfold.fold(model, "40x", seed=0)
    model.eval()
    _train(model, batch(32), torch.arange(32.0).unsqueeze(1) / 32)
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=_process, args=(rank, str(tmp_path), kind)) for rank in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(300)
    assert [each.exitcode for each in both] == [0, 0]
    found = torch.load(tmp_path / f"{kind}.pt", weights_only=True)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["SGD", "RowWiseAdagrad", "LazyAdam"])
def test_row_optimizers_move_joint_tables_as_those_of_a_collection(optimizer: str) -> None:
    kind = getattr(bitfold.optim, optimizer)
    model = bitfold.fold(Net(), "40x", seed=0).model.eval()
    (joint,) = [part for part in model.modules() if isinstance(part, Joint)]
    twin = copy.deepcopy(joint.embedder)
    ours, theirs = kind(model.tables.parameters(), 0.1), kind(twin.parameters(), 0.1)
    weights = torch.randn(32, 3, 8)
    for step in range(4):
        ids = batch(32, step)
        parts = [ids[:, f] if step < 2 else ids[:, f].clone() for f in range(3)]
        found = torch.stack([t(p) for t, p in zip(model.tables, parts, strict=True)], 1)
        for each, vectors in ((ours, found), (theirs, twin(ids))):
            each.zero_grad()
            (vectors * weights).sum().backward()
            each.step()
    for a, b in zip(joint.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
