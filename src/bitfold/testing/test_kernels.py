"""Every method by the kernels equals itself in plain torch: vectors, bags, gradients, all types.

A program that no kernel runs is plain torch on both sides: the numbers of threads, the types and
several threads at once still hold for it.
"""

import copy
import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bitfold.errors import BitfoldError
from bitfold.fuse.bags import MODES
from bitfold.kernels import gradients
from bitfold.kernels.choice import plain_torch
from bitfold.testing.cases import DIM, Case, bags_by_field, random_bags
from bitfold.testing.checks import (
    TOLERANCES,
    coded,
    embedders,
    narrow,
    need_kernels,
    of_size_one,
    results,
    same,
)

types = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)


def compare(
    module: nn.Module,
    inputs: Sequence[Tensor],
    dtype: torch.dtype = torch.float32,
    first: int | None = None,
) -> None:
    """Kernels against plain torch, which takes float32 where the kernels are to add up in it."""
    by_kernel = results(module, inputs)[:first]
    reference = copy.deepcopy(module).float() if dtype == torch.bfloat16 else module
    with plain_torch():
        plain = [each.to(dtype) for each in results(reference, inputs)[:first]]
    assert all(got.dtype == dtype for got in by_kernel)
    if dtype == torch.bfloat16 and any(part.multiplies for part in embedders(module)):
        for got, expected in zip(by_kernel, plain, strict=True):  # what is summed was rounded
            near = 0.02 * float(expected.abs().max())
            torch.testing.assert_close(got, expected, rtol=0, atol=near)
        return
    same(by_kernel, plain, **TOLERANCES[dtype])


@pytest.fixture(params=["private", "owned"])
def sums(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small and large pools take different ways to the gradient."""
    if request.param == "owned":
        monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    return str(request.param)


def test_single_ids(case: Case, sums: str, threads: int) -> None:
    collection = case.collection()
    need_kernels(collection)
    for rows in (1, 7, 300):
        compare(collection, (case.ids(rows),))


@pytest.mark.first_form
@types
def test_single_ids_in_other_types(case: Case, dtype: torch.dtype) -> None:
    collection = case.collection().to(dtype)
    need_kernels(collection)
    if dtype == torch.bfloat16 and narrow(collection):
        pytest.skip("of a row that was rounded before, another code may be nearer")
    compare(collection, (case.ids(300),), dtype)


@pytest.mark.parametrize("mode", MODES)
def test_bags(case: Case, mode: str, threads: int) -> None:
    check_bags(case, mode, torch.float32)


@pytest.mark.first_form
@pytest.mark.parametrize("mode", MODES)
def test_bags_by_owners_of_rows(
    case: Case, mode: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    check_bags(case, mode, torch.float32)


@pytest.mark.first_form
@types
@pytest.mark.parametrize("mode", MODES)
def test_bags_in_other_types(case: Case, mode: str, dtype: torch.dtype) -> None:
    check_bags(case, mode, dtype)


def check_bags(case: Case, mode: str, dtype: torch.dtype) -> None:
    collection = case.collection(mode=mode).to(dtype)
    need_kernels(collection)
    if dtype == torch.bfloat16 and narrow(collection):
        pytest.skip("of a row that was rounded before, another code may be nearer")
    of_size_one(collection)
    # Rounded to bfloat16, or of few bits, more numbers of a bag are its largest; sums of the same
    # levels in another order differ by a last bit.
    rounded = dtype == torch.bfloat16 or narrow(collection)
    first = 1 if mode == "max" and rounded else None
    compare(collection, bags_by_field(random_bags(case, 9)), dtype, first)


@pytest.mark.first_form
@pytest.mark.parametrize("mode", MODES)
def test_bags_of_one_id_each(case: Case, mode: str) -> None:
    bag = case.bag(50, mode=mode, padding_idx=3)
    need_kernels(bag)
    ids = torch.arange(20)
    compare(bag, (ids, torch.arange(20)))
    # as many bags as ids, and not one each
    compare(bag, (ids, torch.tensor([0, 0, *range(1, 19)])))


def test_weighted_bags_and_the_gradient_of_the_weights(case: Case, threads: int) -> None:
    bag = case.bag(50, mode="sum", padding_idx=3)
    need_kernels(bag)
    ids, offsets = torch.randint(0, 50, (40,)), torch.tensor([0, 5, 5, 30])
    weights = torch.rand(40, requires_grad=True)
    compare(bag, (ids, offsets, weights))
    found: list[Tensor] = []
    for plain in (False, True):
        with plain_torch() if plain else torch.enable_grad():
            out = bag(ids, offsets, weights).pow(2).sum()
            found += torch.autograd.grad(out, [weights])
    torch.testing.assert_close(*found)
    assert found[0][ids == 3].abs().sum() == 0


def test_a_sparse_gradient_names_the_rows_read_once_and_in_order(case: Case, threads: int) -> None:
    sparse, other = case.collection(sparse=True), case.collection()
    need_kernels(sparse)
    ids = case.ids(50)
    sparse(ids).pow(2).sum().backward()
    other(ids).pow(2).sum().backward()
    for part, twin in zip(embedders(sparse), embedders(other), strict=True):
        for table, whole in zip(part.tables(), twin.tables(), strict=True):
            got, expected = table.weight.grad, whole.weight.grad
            assert got is not None
            assert expected is not None
            rows = got._indices()[0]
            assert (rows.diff() > 0).all()
            untouched = torch.ones(len(expected), dtype=torch.bool)
            untouched[rows] = False
            assert not expected[untouched].any()
            torch.testing.assert_close(got.to_dense(), expected)


def test_nan_and_infinity_come_through(case: Case, threads: int) -> None:
    collection = case.collection()
    need_kernels(collection)
    if coded(collection):
        pytest.skip("no code stands for what is not a number")
    with torch.no_grad():
        for part in embedders(collection):
            for table in part.tables():
                table.weight[0], table.weight[-1] = float("nan"), float("inf")
    ids = case.ids(200)
    with plain_torch():
        expected = collection(ids)
    torch.testing.assert_close(collection(ids), expected, equal_nan=True)


@pytest.mark.first_form
def test_the_same_from_several_threads_at_once(case: Case) -> None:
    collection = case.collection()
    batches = [case.ids(3000, seed=seed) for seed in range(4)]
    expected = [collection(ids).detach() for ids in batches]
    wrong: list[int] = []

    def work(ids: Tensor, vectors: Tensor) -> None:
        wrong.extend(1 for _ in range(5) if not torch.equal(collection(ids), vectors))

    workers = [
        threading.Thread(target=work, args=pair) for pair in zip(batches, expected, strict=True)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_the_same_every_time(case: Case, sums: str, threads: int) -> None:
    collection = case.collection()
    if (sums, threads) != ("private", 1):
        need_kernels(collection)
    ids = case.ids(2000)
    first = results(collection, (ids,))
    for _ in range(3):
        again = results(collection, (ids,))
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one, other)


@pytest.mark.first_form
def test_a_padding_id_is_zero(case: Case, threads: int) -> None:
    embedding = case.embedding(50, padding_idx=7)
    need_kernels(embedding)
    ids = torch.tensor([[7, 1, 7], [2, 3, 7]])
    out = embedding(ids)
    assert out[ids == 7].abs().sum() == 0
    compare(embedding, (ids,))
    assert out.shape == (2, 3, DIM)


@pytest.mark.first_form
def test_a_mode_sees_the_lookup(case: Case) -> None:
    class Seen(TorchDispatchMode):
        def __torch_dispatch__(  # type: ignore[no-untyped-def]
            self, func, types, args=(), kwargs=None
        ):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    names: list[str] = []
    collection, ids = case.collection(), case.ids(3)
    need_kernels(collection)
    with Seen():
        found = collection(ids)
        found.sum().backward()
    assert "bitfold.lookup.default" in names
    assert "bitfold.lookup_backward.default" in names
    assert torch.equal(found, collection(ids))


@pytest.mark.first_form
def test_second_derivatives_are_refused_by_the_kernels(case: Case) -> None:
    collection = case.collection()
    need_kernels(collection)
    out = collection(case.ids(3)).square().sum()
    (first, *_) = torch.autograd.grad(out, list(collection.parameters()), create_graph=True)
    with pytest.raises(BitfoldError, match="second derivatives"):
        first.square().sum().backward()
