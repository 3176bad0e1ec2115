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
