"""Every method where something looks on: tracers, modes, transforms of `torch.func`, tangents.

What is recorded with one input must be right for others; nothing may be left out without a word.
"""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

import bitfold
from bitfold import BitfoldError
from bitfold.testing.cases import Case, bags_by_field, random_bags

OUTSIDE = r"outside|out of range"
PATHS = {"kernels": torch.enable_grad, "no grad": torch.no_grad, "plain": bitfold.plain_torch}
FEW = [Case("full"), Case("hash"), Case("binary-code"), Case("binary-code", {"fusion": "weighted"})]
few = pytest.mark.parametrize("form", FEW, ids=str)
paths = pytest.mark.parametrize("path", PATHS)


def traced(module, inputs):
    """What `torch.jit.trace` recorded, as it comes back from a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and warns of Python's numbers
        graph = torch.jit.trace(module, inputs)
        file = io.BytesIO()
        torch.jit.save(graph, file)
        file.seek(0)
        return torch.jit.load(file)


@paths
@few
def test_a_trace_is_right_for_other_ids_and_keeps_the_range_check(form, path):
    case, collection = form, form.collection()
    with PATHS[path]():
        graph = traced(collection, (case.ids(4),))
    for rows in (4, 9, 1):
        ids = case.ids(rows, seed=rows)
        torch.testing.assert_close(graph(ids), collection(ids))
    bad = case.ids(4)
    for outside in (case.fields[0].num_embeddings, -1):
        bad[1, 0] = outside
        with pytest.raises((RuntimeError, IndexError), match=OUTSIDE):
            graph(bad)


@paths
@few
@pytest.mark.parametrize("mode", ["mean", "max"])
def test_a_trace_of_bags(form, path, mode):
    collection = form.collection(mode=mode)
    bags = bags_by_field(random_bags(form, 5))
    with PATHS[path]():
        graph = traced(collection, bags)
    torch.testing.assert_close(graph(*bags), collection(*bags))
    if path != "plain":  # a trace takes a bag's number of rows for a constant there
        others = bags_by_field(random_bags(form, 7))
        torch.testing.assert_close(graph(*others), collection(*others))
    ids, offsets = bags
    wrong = offsets.clone()
    wrong[1:] += 10**6
    with pytest.raises(RuntimeError):
        graph(ids, wrong)


@paths
@few
def test_make_fx(form, path):
    collection = form.collection()
    for mode in ("real", "symbolic"):
        with PATHS[path]():
            graph = make_fx(collection, tracing_mode=mode, _allow_non_fake_inputs=True)(form.ids(4))
        ids = form.ids(4, seed=1)
        torch.testing.assert_close(graph(ids), collection(ids))
        ids[1, 0] = form.fields[0].num_embeddings
        with pytest.raises((RuntimeError, IndexError), match=OUTSIDE):
            graph(ids)


@few
def test_a_default_device_changes_nothing(form):
    collection, ids = form.collection(), form.ids(3)
    expected = collection(ids)
    with torch.device("cpu"):
        assert torch.equal(collection(ids), expected)


def weights_of(module):
    return {name: weight.detach() for name, weight in module.named_parameters()}


@few
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_batch_of_bags(form, mode):
    bag, ids = form.bag(50, mode=mode, padding_idx=3), torch.arange(24).reshape(4, 2, 3)
    torch.testing.assert_close(vmap(bag)(ids), torch.stack([bag(each) for each in ids]))


@few
def test_an_ensemble(form):
    models = [form.collection() for _ in range(3)]
    with torch.no_grad():
        for number, model in enumerate(models):
            for weight in model.parameters():
                weight.add_(number)
    ids = form.ids(5)
    stacked = stack_module_state(models)
    found = vmap(lambda weights, rest: functional_call(models[0], (weights, rest), (ids,)))(
        *stacked
    )
    torch.testing.assert_close(found, torch.stack([model(ids) for model in models]))


@few
@pytest.mark.parametrize("plain", [False, True])
def test_of_equal_numbers_the_first_has_the_gradient(form, plain):
    """As in `nn.EmbeddingBag`: a bag of one id twice, and bags whose vectors tie."""
    bag = form.bag(50, mode="max")
    with torch.no_grad():
        for weight in bag.parameters():
            weight.fill_(1.0)
    weights = torch.ones(4, 3)  # which id of a bag has the gradient shows in the ids' own vectors
    ids = torch.tensor([[7, 7, 9], [11, 30, 2], [4, 4, 4], [1, 0, 1]])
    grads = torch.arange(12.0).reshape(4, 3) + weights
    with bitfold.plain_torch() if plain else torch.enable_grad():
        out = bag(ids)
        (out * grads[:, :1]).sum().backward()
    found = [weight.grad.clone() for weight in bag.parameters()]
    bag.zero_grad()
    single = form.bag(50, mode="sum")
    single.load_state_dict(bag.state_dict())
    (single(ids[:, :1]) * grads[:, :1]).sum().backward()
    for got, weight in zip(found, single.parameters(), strict=True):
        torch.testing.assert_close(got, weight.grad)


@few
@pytest.mark.parametrize("mode", ["sum", "max"])
def test_a_table_may_move_between_a_lookup_and_its_backward_pass(form, mode):
    """As that of `nn.Embedding`, unless the gradient depends on the table's numbers."""
    bag = form.bag(50, mode=mode)
    optimizer = bitfold.optim.SGD(bag.parameters(), lr=0.1)
    ids = torch.tensor([[1, 2], [3, 3]])
    first, second = bag(ids).sum(), (2 * bag(ids)).sum()
    first.backward()
    expected = [2 * weight.grad for weight in bag.parameters()]
    optimizer.step()
    optimizer.zero_grad()
    if bag.plan.fusion in ("product", "weighted"):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            second.backward()
        return
    second.backward()
    for weight, grad_of in zip(bag.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, grad_of)


FORKED = """
import os, sys, threading
import torch, bitfold
from bitfold.optim import LazyAdam
torch.set_num_threads(2)
fields = [bitfold.Field("a", 100_000), bitfold.Field("b", 1000)]
model, network = bitfold.EmbeddingCollection(fields, 16, budget="10x"), torch.nn.Linear(32, 64)
ids = torch.stack([torch.arange(40_000) % field.num_embeddings for field in fields], 1)

def loss():
    return network(model(ids).flatten(1)).square().sum()

expected = loss()
expected.backward()  # OpenMP has threads now
child = os.fork()
if child == 0:
    threading.Timer(100, os._exit, (3,)).start()  # a child that hangs
    found = loss()
    found.backward()
    LazyAdam(model.parameters()).step()
    os._exit(0 if torch.allclose(found, expected, rtol=1e-4) else 4)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_of_a_process_with_threads():
    source = Path(bitfold.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], env=environment, check=False, timeout=200
    )
    assert done.returncode == 0


@few
def test_onnx_of_the_kernels_is_refused_by_name(form):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(BitfoldError, match="ONNX knows no operator of bitfold"):
            torch.onnx.export(form.collection(), (form.ids(3),), io.BytesIO(), dynamo=False)
