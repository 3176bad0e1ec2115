"""Row optimizers: equal to a float64 reference; sparse and dense alike; others' rows stay."""

import pytest
import torch
from torch import nn

import bitfold
from bitfold import BitfoldError
from bitfold.optim import OPTIMIZERS, SGD, Adagrad, LazyAdam, RowWiseAdagrad

WORDS = {
    "sgd": {"lr": 0.1, "weight_decay": 0.01, "l2": 0.2},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "adagrad": {"lr": 0.1, "initial": 0.1, "weight_decay": 0.02},
    "rowwise-adagrad": {"lr": 0.1, "initial": 0.1, "l2": 0.05},
    "lazy-adam": {"lr": 0.01, "weight_decay": 0.1, "l2": 0.3},
}
KINDS = {**OPTIMIZERS, "momentum": SGD}
ROWS, DIM, STEPS = 30, 5, 7


def gradients(seed=0):
    """For each step, some rows and their gradients."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        rows = torch.randperm(ROWS, generator=generator)[:9].sort().values
        yield rows, torch.randn(9, DIM, generator=generator, dtype=torch.float64)


def reference(name, weight):
    """Each optimizer by its formula, in float64 and row by row."""
    words = {"weight_decay": 0.0, "l2": 0.0, "momentum": 0.0, "initial": 0.0, **WORDS[name]}
    lr, weight = words["lr"], weight.double().clone()
    one = torch.full((ROWS, DIM), float(words["initial"]), dtype=torch.float64)
    two = torch.zeros(ROWS, DIM, dtype=torch.float64)
    for step, (rows, grads) in enumerate(gradients(), 1):
        for row, grad in zip(rows.tolist(), grads, strict=True):
            grad = grad + words["l2"] * weight[row]
            weight[row] *= 1 - lr * words["weight_decay"]
            if name in ("sgd", "momentum"):
                one[row] = words["momentum"] * one[row] + grad
                weight[row] -= lr * one[row]
            elif name == "adagrad":
                one[row] += grad**2
                weight[row] -= lr * grad / (one[row].sqrt() + 1e-10)
            elif name == "rowwise-adagrad":
                one[row] += (grad**2).mean()
                weight[row] -= lr * grad / (one[row].sqrt() + 1e-10)
            else:
                one[row] = 0.9 * one[row] + 0.1 * grad
                two[row] = 0.999 * two[row] + 0.001 * grad**2
                mean, square = one[row] / (1 - 0.9**step), two[row] / (1 - 0.999**step)
                weight[row] -= lr * mean / (square.sqrt() + 1e-8)
    return weight


def start(dtype=torch.float32):
    drawn = torch.randn(ROWS, DIM, generator=torch.Generator().manual_seed(9))
    return nn.Parameter(drawn.to(dtype))


def sparse(rows, grads):
    return torch.sparse_coo_tensor(rows[None], grads, (ROWS, DIM), check_invariants=True)


def train(name, weight, form, optimizer=None):
    optimizer = optimizer or KINDS[name]([weight], **WORDS[name])
    for rows, grads in gradients():
        grads = grads.to(weight.dtype)
        if form == "dense":
            weight.grad = torch.zeros_like(weight).index_copy(0, rows, grads)
        elif form == "sparse":
            weight.grad = sparse(rows, grads)
        else:  # out of order, one row in two parts
            order = torch.randperm(len(rows))
            rows = torch.cat([rows[order], rows[:1]])
            grads = torch.cat([grads[order], grads[:1]])
            grads[-1] /= 2
            grads[order.argsort()[0]] /= 2
            weight.grad = sparse(rows, grads)
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("form", ["dense", "sparse", "shuffled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernel", "plain"])
@pytest.mark.parametrize("name", WORDS)
def test_equal_to_the_reference(name, dtype, form):
    weight = start(dtype)
    expected = reference(name, weight.detach())
    train(name, weight, form)
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
    torch.testing.assert_close(weight.detach().double(), expected, **tolerance)


@pytest.mark.parametrize("name", WORDS)
def test_rows_without_gradient_stay_as_they_are(name):
    weight = start()
    before = weight.detach().clone()
    optimizer = KINDS[name]([weight], **WORDS[name])
    for _ in range(3):
        weight.grad = torch.zeros_like(weight)
        weight.grad[4] = 1.0
        optimizer.step()
    others = torch.arange(ROWS) != 4
    assert torch.equal(weight[others], before[others])
    assert not torch.equal(weight[4], before[4])


@pytest.mark.parametrize("name", WORDS)
def test_a_state_dict_goes_on_where_it_was_left(name):
    one, other = start(), start()
    first = train(name, one, "sparse")
    train(name, one, "sparse", first)
    second = train(name, other, "sparse")
    again = KINDS[name]([other], **{**WORDS[name], "lr": 7.0})
    again.load_state_dict(second.state_dict())
    train(name, other, "sparse", again)
    assert torch.equal(one, other)


@pytest.mark.parametrize("name", WORDS)
def test_state_has_the_bytes_it_says(name):
    weight = start()
    optimizer = train(name, weight, "dense")
    kept = sum(v.nbytes for k, v in optimizer.state[weight].items() if k != "step")
    assert kept == ROWS * KINDS[name].bytes_per_row(DIM, **WORDS[name])


@pytest.mark.parametrize("name", WORDS)
def test_a_schedule_sets_the_rate(name):
    weight = start()
    optimizer = KINDS[name]([weight], **WORDS[name])
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    schedule.step()
    before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2, 2), (0, 5)])
@pytest.mark.parametrize("kind", [SGD, Adagrad, RowWiseAdagrad, LazyAdam])
def test_weights_of_any_shape(kind, shape):
    weight = nn.Parameter(torch.ones(shape))
    weight.grad = torch.ones(shape)
    before = weight.detach().clone()
    kind([weight], lr=0.1).step()
    assert (weight < before).all()


@pytest.mark.parametrize("name", WORDS)
def test_many_rows_on_many_threads_equal_plain_torch(name):
    rows = 20_000
    weights = [nn.Parameter(torch.ones(rows, 8, dtype=d)) for d in (torch.float32, torch.float64)]
    for weight in weights:
        optimizer = KINDS[name]([weight], **WORDS[name])
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            weight.grad = torch.randn(rows, 8, generator=generator).to(weight.dtype)
            optimizer.step()
    torch.testing.assert_close(weights[0].double(), weights[1], rtol=1e-4, atol=1e-5)


def test_training_with_sparse_and_dense_gradients_gives_the_same_table():
    tables = []
    for sparse in (False, True):
        embedding = bitfold.Embedding(1000, 8, budget="10x", sparse=sparse, seed=0)
        optimizer = LazyAdam(embedding.parameters(), lr=0.01)
        for seed in range(3):
            ids = torch.randint(0, 1000, (64,), generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            embedding(ids).pow(2).sum().backward()
            optimizer.step()
        tables.append(embedding.weight.detach())
    torch.testing.assert_close(*tables)


def test_a_step_after_the_forward_is_seen_by_the_backward():
    """The kernel writes in place: autograd must know, or it would use weights that are gone."""
    embedding = bitfold.Embedding(1000, 8, budget="10x")
    ids = torch.tensor([1, 2, 3])
    embedding(ids).sum().backward()
    optimizer = SGD(embedding.parameters(), lr=0.1)
    late = embedding(ids).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        late.backward()


@pytest.mark.parametrize("words", [{"lr": -1.0}, {"weight_decay": -0.1}])
def test_impossible_words(words):
    with pytest.raises(BitfoldError, match="out of range"):
        SGD([start()], **words)
    with pytest.raises(BitfoldError, match="out of range"):
        LazyAdam([start()], betas=(1.0, 0.9))


def stepped(kind, weight, **options):
    """An optimizer of a weight after a step."""
    optimizer = kind([weight], lr=0.1, **options)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernel", "plain"])
@pytest.mark.parametrize("kind", [SGD, Adagrad, RowWiseAdagrad, LazyAdam])
def test_a_state_of_another_size_is_refused(kind, dtype):
    options = {"momentum": 0.9} if kind is SGD else {}
    small, large = (nn.Parameter(torch.ones(rows, 4, dtype=dtype)) for rows in (5, 50_000))
    saved = stepped(kind, small, **options).state_dict()
    other = kind([large], lr=0.1, **options)
    other.load_state_dict(saved)
    large.grad = torch.ones_like(large)
    before = large.detach().clone()
    with pytest.raises(BitfoldError, match="another size"):
        other.step()
    assert torch.equal(large, before)
    for rows in (3, 9):  # a table that shrank, or grew, under its optimizer
        weight = nn.Parameter(torch.ones(5, 4, dtype=dtype))
        optimizer = stepped(kind, weight, **options)
        weight.data, weight.grad = torch.ones(rows, 4, dtype=dtype), None
        weight.grad = torch.ones_like(weight)
        with pytest.raises(BitfoldError, match="another size"):
            optimizer.step()


@pytest.mark.parametrize("kind", [SGD, Adagrad, RowWiseAdagrad, LazyAdam])
@pytest.mark.parametrize("other", [SGD, Adagrad, RowWiseAdagrad, LazyAdam])
def test_the_state_of_another_optimizer_is_refused(kind, other):
    if kind is other:
        return
    options = {"momentum": 0.9} if kind is SGD else {}
    weight = start()
    saved = stepped(kind, weight, **options).state_dict()
    optimizer = other([weight], lr=0.1)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    with pytest.raises(BitfoldError, match="another optimizer"):
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", WORDS)
def test_a_state_of_another_type_or_layout_is_taken(name, dtype):
    one, other = start(), start()
    first, second = (train(name, weight, "dense") for weight in (one, other))
    for key, value in second.state[other].items():
        if key != "step":
            rounded = first.state[one][key].to(dtype)
            first.state[one][key] = rounded.to(torch.float32)
            second.state[other][key] = rounded.t().contiguous().t() if value.dim() > 1 else rounded
    train(name, one, "dense", first)
    train(name, other, "dense", second)
    assert torch.equal(one, other)


def test_momentum_may_be_raised_after_the_first_step():
    weight, expected = start(), start()
    optimizer, reference = SGD([weight], lr=0.1), torch.optim.SGD([expected], lr=0.1)
    for step in range(4):
        for each, group in ((weight, optimizer), (expected, reference)):
            each.grad = torch.full_like(each, 1.0 + step)
            group.param_groups[0]["momentum"] = 0.9 if step else 0.0
            group.step()
    torch.testing.assert_close(weight, expected)


@pytest.mark.parametrize("kind", [SGD, LazyAdam])
def test_a_schedule_that_cycles_momentum(kind):
    weight = start()
    optimizer = kind([weight], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.5, total_steps=6, cycle_momentum=kind is LazyAdam
    )
    for _ in range(5):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("form", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["kernel", "plain"])
@pytest.mark.parametrize("name", WORDS)
def test_maximize_goes_up_the_gradient(name, dtype, form):
    down, up = start(dtype), start(dtype)
    optimizers = (
        KINDS[name]([down], **WORDS[name]),
        KINDS[name]([{"params": [up], "maximize": True}], **WORDS[name]),
    )
    for _ in range(2):
        for weight, optimizer, sign in zip((down, up), optimizers, (1, -1), strict=True):
            grad = torch.ones_like(weight).mul_(sign)
            weight.grad = grad.to_sparse(1) if form == "sparse" else grad
            optimizer.step()
    assert torch.equal(down, up)


def test_maximize_within_the_backward_pass():
    tables = []
    for sign in (1, -1):
        embedding = bitfold.Embedding(50, 8, method="full", seed=3)
        optimizer = SGD(embedding.parameters(), lr=0.1, maximize=sign < 0)
        optimizer.into_backward(embedding)
        (sign * embedding(torch.tensor([1, 2]))).sum().backward()
        tables.append(embedding.weight.detach())
    assert torch.equal(*tables)


@pytest.mark.parametrize("kind", [SGD, Adagrad, RowWiseAdagrad, LazyAdam])
def test_options_of_torch_are_taken_or_refused_by_name(kind):
    neutral = {"foreach": True, "fused": None, "capturable": False, "differentiable": False}
    neutral |= {"amsgrad": False, "nesterov": False, "dampening": 0, "lr_decay": 0}
    kind([start()], lr=0.1, **neutral)
    kind([{"params": [start()], **neutral}], lr=0.1)
    for name, value in (("capturable", True), ("differentiable", True), ("amsgrad", True)):
        with pytest.raises(BitfoldError, match=name):
            kind([start()], lr=0.1, **{name: value})
        with pytest.raises(BitfoldError, match=name):
            kind([{"params": [start()], name: value}], lr=0.1)
    with pytest.raises(BitfoldError, match="unknown option"):
        kind([start()], lr=0.1, learning_rate=1.0)
    with pytest.raises(BitfoldError, match="out of range"):
        kind([{"params": [start()], "lr": -1.0}])


@pytest.mark.parametrize(
    ("theirs", "ours", "options"),
    [
        (torch.optim.SGD, SGD, {"momentum": 0.9}),
        (torch.optim.Adagrad, Adagrad, {}),
        (torch.optim.Adam, LazyAdam, {}),
    ],
    ids=["SGD", "Adagrad", "Adam"],
)
def test_the_state_of_torchs_own_optimizer_goes_on(theirs, ours, options):
    weights = start(), start()
    first = stepped(theirs, weights[0], **options)
    second = stepped(theirs, weights[1], **options)
    again = ours([weights[1]], lr=7.0, **options)
    again.load_state_dict(second.state_dict())
    for weight, optimizer in zip(weights, (first, again), strict=True):
        weight.grad = torch.full_like(weight, 0.5)
        optimizer.step()
    torch.testing.assert_close(*weights)


def test_gradients_that_are_no_table_are_taken_or_refused():
    weight, expected = start(), start()
    grad = torch.zeros_like(weight)
    grad[2, 1] = grad[4] = 3.0
    for each, given in ((weight, grad.to_sparse()), (expected, grad)):
        each.grad = given
        SGD([each], lr=0.1).step()
    assert torch.equal(weight, expected)
    for wrong in (torch.tensor([0, ROWS]), torch.tensor([-1, 2])):
        weight.grad = torch.sparse_coo_tensor(
            wrong.unsqueeze(0), torch.ones(2, DIM), weight.shape, check_invariants=False,
            is_coalesced=True,
        )  # fmt: skip
        with pytest.raises(BitfoldError, match="rows that the weight does not have"):
            SGD([weight], lr=0.1).step()


def test_a_wrapped_weight_is_refused():
    from torch.distributed.tensor import DTensor

    class Wrapped(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise NotImplementedError

    assert DTensor.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    weight = torch.Tensor._make_wrapper_subclass(Wrapped, (4, 4), dtype=torch.float32)
    optimizer = SGD([start()], lr=0.1)
    with pytest.raises(BitfoldError, match="plain tensors"):
        optimizer._apply(weight, torch.ones(4, 4), optimizer.param_groups[0])
