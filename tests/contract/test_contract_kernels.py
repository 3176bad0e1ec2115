"""Every method by the kernels equals itself in plain torch: vectors, bags, gradients, all types."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch

import bitfold
from bitfold import BitfoldError
from bitfold.fuse.bags import MODES
from bitfold.kernels import gradients
from bitfold.kernels.compiled import kernel, run
from bitfold.kernels.vectors import get, pointer, put
from bitfold.testing.cases import Case, bags_by_field, random_bags

TOLERANCES = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    torch.float64: {"rtol": 1e-12, "atol": 1e-14},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-6},  # of what float32 gives: one rounding
}


# Each type is compiled for each width of a piece: these share one.
FEW = [
    Case("full"),
    Case("binary-code"),
    Case("binary-code", {"fusion": "mean", "strategy": "skip"}),
    Case("binary-code", {"fusion": "weighted", "allocation": 0.0}),
    Case("binary-code", {"fusion": "sum", "sharing": "fields"}),
]
few = pytest.mark.parametrize("form", FEW, ids=str)
types = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)


def results(module, inputs):
    """Vectors, and the gradients of a random sum of them."""
    module.zero_grad()
    out = module(*inputs)
    drawn = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    drawn = drawn.bfloat16().to(out.dtype)
    (out * drawn).sum().backward()
    found = [out.detach()]
    for weight in module.parameters():
        grad = weight.grad
        found.append(grad.to_dense() if grad.is_sparse else grad)
    return found


def compare(module, inputs, dtype=torch.float32, first=None):
    """Kernels against plain torch, which takes float32 where the kernels are to add up in it."""
    by_kernel = results(module, inputs)[:first]
    reference = copy.deepcopy(module).float() if dtype == torch.bfloat16 else module
    with bitfold.plain_torch():
        plain = [each.to(dtype) for each in results(reference, inputs)[:first]]
    for got, expected in zip(by_kernel, plain, strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, expected, **TOLERANCES[dtype])


@pytest.fixture(params=["private", "owned"])
def sums(request, monkeypatch):
    """Small and large pools take different ways to the gradient."""
    if request.param == "owned":
        monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    return request.param


@few
@types
def test_single_ids_in_other_types(form, dtype, sums, threads):
    compare(form.collection().to(dtype), (form.ids(300),), dtype)


@few
@types
@pytest.mark.parametrize("mode", MODES)
def test_bags_in_other_types(form, mode, dtype, sums, threads):
    check_bags(form, mode, dtype)


def check_bags(case, mode, dtype):
    collection = case.collection(mode=mode).to(dtype)
    with torch.no_grad():  # numbers of size one, so that maxima differ by more than rounding
        for weight in collection.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(3))
    # Rounded to bfloat16, more numbers of a bag are its largest.
    first = 1 if mode == "max" and dtype == torch.bfloat16 else None
    compare(collection, bags_by_field(random_bags(case, 9)), dtype, first)


@few
def test_long_bags_go_on_from_block_to_block(form, threads):
    collection = form.collection(mode="sum").double()
    bags = random_bags(form, 3, longest=700)
    compare(collection, bags_by_field(bags), torch.float64)


@few
def test_a_sparse_gradient_is_the_dense_one(form, threads):
    sparse, dense = form.collection(sparse=True), form.collection()
    ids = form.ids(50)
    sparse(ids).pow(2).sum().backward()
    dense(ids).pow(2).sum().backward()
    got, expected = sparse.embedder.pool.weight.grad, dense.embedder.pool.weight.grad
    assert got.is_sparse
    rows = got._indices()[0]
    assert (rows.diff() > 0).all()
    read = sparse.embedder.address.cells(ids)
    present = sparse.embedder.address.present()
    read = read if present is None else read[:, present]
    assert torch.equal(rows, read.unique())
    torch.testing.assert_close(got.to_dense(), expected)


@pytest.mark.parametrize(
    "form", [*FEW, Case("binary-code", {"fusion": "concat", "blocks": 3})], ids=str
)
def test_gradcheck(form):
    collection = form.collection().double()
    inputs = bags_by_field(random_bags(form, 3))
    collection.mode = "mean"
    names = [name for name, _ in collection.named_parameters()]
    with torch.no_grad():
        for weight in collection.parameters():
            weight.add_(0.5)

    for given in ((form.ids(3),), inputs):

        def vectors(*values, given=given):
            named = dict(zip(names, values, strict=True))
            return torch.func.functional_call(collection, named, given)

        values = [weight.detach().clone().requires_grad_() for weight in collection.parameters()]
        assert torch.autograd.gradcheck(vectors, values, fast_mode=True)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_reads_the_same_vectors():
    case = Case("binary-code")
    collection = case.collection()
    ids = case.ids(5000)
    expected = results(collection, (ids,))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        answer = b"bad "
        torch.set_num_threads(1)  # as DataLoader's workers do: torch itself hangs with more
        try:
            found = results(collection, (ids,))
            alike = [torch.allclose(*pair, atol=1e-4) for pair in zip(found, expected, strict=True)]
            answer = b"good" if all(alike) else answer
        finally:
            os.write(write, answer)
            os._exit(0)
    assert os.read(read, 4) == b"good"
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)


def test_second_derivatives_are_refused_and_plain_torch_gives_them():
    embedding = Case("binary-code").embedding(50)
    ids = torch.tensor([1, 2, 3])

    def grad_of_grad():
        out = embedding(ids).pow(3).sum()
        (grad,) = torch.autograd.grad(out, embedding.embedder.pool.weight, create_graph=True)
        return torch.autograd.grad(grad.pow(2).sum(), embedding.embedder.pool.weight)

    with pytest.raises((BitfoldError, RuntimeError), match="second derivatives"):
        grad_of_grad()
    with bitfold.plain_torch():
        assert grad_of_grad()[0].abs().sum() > 0


def test_functions_of_torch_func_take_plain_torch():
    embedding = Case("binary-code").embedding(50)
    ids = torch.tensor([[1, 2], [3, 4]])
    values = dict(embedding.named_parameters())

    def loss(given):
        return torch.func.functional_call(embedding, given, (ids,)).pow(2).sum()

    embedding(ids).pow(2).sum().backward()
    for name, grad in torch.func.grad(loss)(values).items():
        torch.testing.assert_close(grad, embedding.get_parameter(name).grad)


def test_wide_rows():
    """Rows that take several vectors, and widths that no power of two divides."""
    for dim in (33, 64, 67):
        embedding = bitfold.Embedding(500, dim, budget="4x")
        compare(embedding, (torch.randint(0, 500, (100,)),))


def test_torch_keeps_its_number_of_threads():
    """Numba and torch share OpenMP, where a loop of the one sets the number of the other."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        embedding = bitfold.Embedding(1000, 16, budget="10x")
        embedding(torch.randint(0, 1000, (50_000,))).sum().backward()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        embedding(torch.randint(0, 1000, (50_000,))).sum().backward()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


ONE_THREAD = """
import os, torch, bitfold
embedding = bitfold.Embedding(200_000, 6, budget="10x")
optimizer = bitfold.optim.SGD(embedding.parameters(), lr=0.1)
for _ in range(2):
    embedding(torch.arange(100_000)).sum().backward()
    optimizer.step()
    print(torch.get_num_threads(), len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads through /proc")
def test_who_says_one_thread_gets_one():
    """Numba makes threads for all cores, and torch would use them, when it is merely asked."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", ONE_THREAD]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    said = [line.split() for line in done.stdout.splitlines()]
    alone = "import os, torch, numba; print(len(os.listdir('/proc/self/task')))"
    words = [sys.executable, "-c", alone]
    usual = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert said == [["1", usual.stdout.strip()]] * 2


def test_where_nothing_can_be_written_kernels_are_compiled_all_the_same(monkeypatch):
    real = numba.cfunc

    def nowhere(*signature, **words):
        if words.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(*signature, **words)

    monkeypatch.setattr(numba, "cfunc", nowhere)
    words = torch.tensor([21, 0])

    @kernel
    def doubled(address, t):
        told = pointer(address, t)
        put(told, 1, get(told, 0) * 2)

    run(doubled, words.data_ptr(), 1)
    assert words.tolist() == [21, 42]
