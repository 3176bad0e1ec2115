"""Pools of few bits: trained rounded, refreshed at times, packed to serve the same numbers."""

import copy
import io

import pytest
import torch
from torch import nn

import bitfold
from bitfold import BitfoldError
from bitfold.kernels.reading import row_bytes
from bitfold.optim import SGD, LazyAdam
from bitfold.pool import LowBitPool, PackedPool
from bitfold.pool.rounding import FEW_BITS, rounded, scales_of

FIELDS = [bitfold.Field("user", 900), bitfold.Field("day", 7), bitfold.Field("page", distinct=400)]
IDS = torch.stack(
    [
        torch.randint(0, 900, (64,), generator=torch.Generator().manual_seed(0)),
        torch.randint(0, 7, (64,), generator=torch.Generator().manual_seed(1)),
        torch.randint(-(2**63), 2**63 - 1, (64,), generator=torch.Generator().manual_seed(2)),
    ],
    1,
)
scales = pytest.mark.parametrize("scale", ["slice", "row"])


def pool_of(bits=4, rows=50, width=6, slices=(0, 20), **more):
    made = LowBitPool(rows, width, bits, slices, **more)
    with torch.no_grad():
        made.weight.normal_(generator=torch.Generator().manual_seed(bits))
        made.weight[20:] += 1
    made.refresh()
    return made


def collection(bits=4, **more):
    return bitfold.EmbeddingCollection(FIELDS, 8, budget="6x", bits=bits, seed=0, **more)


def steps_of(module, count, optimizer=None):
    """Steps of training; the embedder's pool, and the optimizer."""
    optimizer = optimizer or LazyAdam(module.parameters(), lr=0.02)
    for step in range(count):
        optimizer.zero_grad()
        out = module(IDS)
        goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(step))
        (out - goal).square().sum().backward()
        optimizer.step()
    return module.embedder.pool, optimizer


def test_a_read_is_rounded_by_its_slice():
    pool, cells = pool_of().eval(), torch.tensor([[3, 19], [20, 49]])
    for number, part in enumerate((slice(0, 20), slice(20, 50))):
        centre, step = scales_of(pool.weight[part], 4)
        assert torch.equal(pool.centres[number], centre)
        expected = rounded(pool.weight[cells[number]], centre, step, 4)
        assert torch.equal(pool(cells)[number], expected)
    assert len(pool(torch.arange(50)).detach()[:20, 0].unique()) <= 16


@scales
@pytest.mark.parametrize("bits", FEW_BITS)
def test_a_packed_pool_reads_the_same_numbers(bits, scale):
    pool = pool_of(bits, scale=scale).eval()
    packed, cells = pool.serving(), torch.arange(50)
    assert torch.equal(packed(cells), pool(cells))
    state = packed.state_dict()
    assert list(state) == ["weight", "centres", "steps"]
    assert state["weight"].shape == (50, row_bytes(6, bits))
    assert state["weight"].dtype == torch.uint8
    assert state["steps"].shape == ((2, 6) if scale == "slice" else (50,))
    assert not list(packed.parameters())


@scales
def test_gradients_pass_straight_through(scale):
    pool, plain = pool_of(scale=scale).eval(), nn.Embedding(50, 6)
    cells, drawn = torch.tensor([3, 3, 40]), torch.randn(3, 6)
    (pool(cells) * drawn).sum().backward()
    (plain(cells) * drawn).sum().backward()
    assert torch.equal(pool.weight.grad, plain.weight.grad)
    sparse = pool_of(scale=scale, sparse=True).eval()
    assert isinstance(sparse, nn.Embedding)
    (sparse(cells) * drawn).sum().backward()
    assert sparse.weight.grad.is_sparse
    assert torch.equal(sparse.weight.grad.to_dense(), plain.weight.grad)


def test_the_last_layer_of_rounding_is_not_differentiated():
    """The factor of a product has the rounded value of the other, as it is read."""
    pool = pool_of().eval()
    one, other = pool(torch.tensor([3])), pool(torch.tensor([40]))
    (one * other).sum().backward()
    assert torch.equal(pool.weight.grad[3], other.detach()[0])
    assert torch.equal(pool.weight.grad[40], one.detach()[0])


def test_scales_follow_the_rows_at_some_forwards_of_training_alone():
    pool, cells = pool_of(every=8), torch.tensor([1])
    refreshed = []
    for number in range(20):
        with torch.no_grad():
            pool.weight.mul_(1.1)
        before = pool.steps.clone()
        pool(cells)
        if not torch.equal(before, pool.steps):
            refreshed.append(number)
        before = pool.steps.clone()
        pool.eval()(cells)
        pool.train()
        assert torch.equal(pool.steps, before)
    assert refreshed == [0, 1, 2, 4, 8, 16]
    assert int(pool.forwards) == 20


def test_a_refresh_between_a_forward_and_its_backward_changes_no_gradient():
    module = collection(4, fusion="product")
    pool = module.embedder.pool
    pool.steps.mul_(2)
    kept = pool.steps.clone()
    pool.forwards += pool.every - 1  # the next forward but one refreshes
    first = module(IDS)
    alone = torch.autograd.grad(first.sum(), pool.weight, retain_graph=True)[0]
    assert torch.equal(pool.steps, kept)
    module(IDS)
    assert not torch.equal(pool.steps, kept)
    assert torch.equal(torch.autograd.grad(first.sum(), pool.weight)[0], alone)


@scales
def test_a_training_that_goes_on_is_the_one_that_never_stopped(scale):
    whole = collection(2, scale=scale)
    steps_of(whole, 7)
    part, rest = collection(2, scale=scale), collection(2, scale=scale)
    _, optimizer = steps_of(part, 3)
    saved = io.BytesIO()
    torch.save((part.state_dict(), optimizer.state_dict()), saved)
    saved.seek(0)
    state, steps = torch.load(saved)
    rest.load_state_dict(state)
    again = LazyAdam(rest.parameters(), lr=0.02)
    again.load_state_dict(steps)
    for number in range(3, 7):
        again.zero_grad()
        out = rest(IDS)
        goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(number))
        (out - goal).square().sum().backward()
        again.step()
    for name, value in whole.state_dict().items():
        assert torch.equal(rest.state_dict()[name], value), name


def test_a_training_state_without_its_count_is_refused():
    module = collection()
    state = module.state_dict()
    assert int(state.pop("embedder.pool.forwards")) == 0
    with pytest.raises(RuntimeError, match="forwards"):
        module.load_state_dict(state)
    module.load_state_dict(state, strict=False)


@scales
@pytest.mark.parametrize("bits", FEW_BITS)
def test_serving_is_of_the_plans_bytes_and_scores_the_same(bits, scale):
    module = collection(bits, scale=scale)
    steps_of(module, 3)
    module.eval()
    expected, served = module(IDS), module.serving()
    assert torch.equal(served(IDS), expected)
    assert sum(each.nbytes for each in served.state_dict().values()) == module.plan.bytes
    with bitfold.plain_torch():
        torch.testing.assert_close(served(IDS), expected)


def test_packed_rows_are_loaded_into_a_module_without_memory():
    module = collection()
    steps_of(module, 2)
    served = module.eval().serving()
    empty = collection(device="meta").serving()
    assert empty.embedder.pool.weight.is_meta
    empty.load_state_dict(served.state_dict(), assign=True)
    assert torch.equal(empty(IDS), served(IDS))
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing|Unexpected"):
        empty.load_state_dict(module.state_dict())


def test_rows_in_training_are_loaded_into_a_module_without_memory():
    module = collection()
    steps_of(module, 2)
    empty = collection(device="meta")
    empty.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(empty.eval()(IDS), module.eval()(IDS))
    assert int(empty.embedder.pool.forwards) == 2


def test_casts_leave_scales_and_codes_as_they_are():
    module = collection().eval()
    expected, served = module(IDS), module.serving()
    for cast in (torch.float64, torch.bfloat16, torch.float16):
        moved = copy.deepcopy(module).to(cast)
        assert moved.embedder.pool.steps.dtype == torch.half
        assert moved(IDS).dtype == cast
        back = copy.deepcopy(served).to(cast)
        assert back(IDS).dtype == cast
        torch.testing.assert_close(back(IDS), expected.to(cast))
        assert torch.equal(back.float()(IDS), expected)
    assert torch.equal(module.double()(IDS).float(), expected)


def test_a_served_pool_can_be_trained_on():
    module = collection(2)
    steps_of(module, 3)
    served = module.eval().serving()
    again = served.resume()
    assert isinstance(again.embedder.pool, LowBitPool)
    assert torch.equal(again(IDS), served(IDS))
    steps_of(again, 3)
    assert not torch.equal(again(IDS), served(IDS))
    rows = collection(2, scale="row").serving()
    for part in (rows, rows.embedder.pool):
        with pytest.raises(BitfoldError, match="checkpoint"):
            part.resume()


def test_weights_that_are_not_numbers_are_not_packed():
    pool = pool_of()
    pool.weight.data[3, 2] = float("nan")
    assert pool.eval()(torch.tensor([3])).isnan().tolist() == [[False] * 2 + [True] + [False] * 3]
    with pytest.raises(BitfoldError, match="1 of"):
        pool.serving()


@pytest.mark.parametrize("path", ["kernels", "plain"])
@scales
def test_training_learns(path, scale):
    """Four bits find vectors that lie within their reach."""
    module = collection(4, scale=scale, fusion="sum")
    goal = torch.randn(64, 3, 8, generator=torch.Generator().manual_seed(5))
    optimizer, losses = LazyAdam(module.parameters(), lr=0.05), []
    for _ in range(60):
        optimizer.zero_grad()
        if path == "plain":
            with bitfold.plain_torch():
                out = module(IDS)
        else:
            out = module(IDS)
        loss = (out - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("kind", [SGD, LazyAdam])
def test_rows_moved_within_the_backward_pass_are_those_of_step(kind):
    module = collection(4)
    other = copy.deepcopy(module)
    steps_of(other, 4, kind(other.parameters(), lr=0.02))
    inside = kind(module.parameters(), lr=0.02)
    inside.into_backward(module)
    steps_of(module, 4, inside)
    pools = module.embedder.pool, other.embedder.pool
    assert pools[0].weight.grad is None
    torch.testing.assert_close(pools[0].weight, pools[1].weight, rtol=1e-4, atol=1e-5)
    assert torch.equal(pools[0].steps, pools[1].steps)


@scales
def test_a_compiled_training_is_the_eager_one(scale):
    eager, traced = collection(4, scale=scale), collection(4, scale=scale)
    steps_of(eager, 6, SGD(eager.parameters(), lr=0.02))
    module = torch.compile(traced, backend="aot_eager", fullgraph=True)
    optimizer = SGD(traced.parameters(), lr=0.02)
    for step in range(6):
        optimizer.zero_grad()
        out = module(IDS)
        goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(step))
        (out - goal).square().sum().backward()
        optimizer.step()
    assert int(traced.embedder.pool.forwards) == 6
    for one, two in zip(traced.state_dict().items(), eager.state_dict().items(), strict=True):
        assert one[0] == two[0]
        torch.testing.assert_close(one[1], two[1], rtol=1e-3, atol=1e-4)


def test_functions_of_torch_func_count_nothing():
    module = collection(4)
    values = dict(module.named_parameters())

    def loss(given):
        return torch.func.functional_call(module, given, (IDS,)).square().sum()

    grads = torch.func.grad(loss)(values)
    assert int(module.embedder.pool.forwards) == 0
    module.eval()(IDS).square().sum().backward()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, module.get_parameter(name).grad)


def test_a_lookup_that_reads_several_slices_is_run_by_plain_torch():
    from dataclasses import replace

    plan = bitfold.plan([bitfold.Field("user", 900)], 8, budget="4x", bits=4, method="hash")
    pool = plan.groups[0].pools[0]
    group = replace(plan.groups[0], pools=(replace(pool, slices=(0, pool.rows // 2)),))
    module = bitfold.EmbeddingCollection.from_plan(replace(plan, groups=(group,)))
    assert not module.embedder.by_kernels
    expected = module.eval()(IDS[:, :1])
    assert torch.equal(module.serving()(IDS[:, :1]), expected)
    assert torch.equal(
        module.embedder.pool(module.embedder.address.cells(IDS[:, :1]))[:, :, 0, 0], expected
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"bits": 5}, "bits"),
        ({"slices": (1,)}, "slices"),
        ({"slices": (0, 9, 9)}, "slices"),
        ({"slices": ()}, "slices"),
        ({"slices": (0, 50)}, "slices"),
        ({"scale": "column"}, "scale"),
    ],
)
def test_pools_that_cannot_be(words, message):
    for kind in (LowBitPool, PackedPool):
        with pytest.raises(BitfoldError, match=message):
            kind(50, 6, **{"bits": 4, **words})
