"""Low-precision training: codes while they are trained, moved by chance, served as they are."""

import copy
import pickle

import pytest
import torch

import bitfold
from bitfold import BitfoldError
from bitfold.kernels.choice import plain_torch
from bitfold.kernels.coding import decode, encode
from bitfold.optim import SGD, Adagrad, LazyAdam, RowWiseAdagrad
from bitfold.pool import LowPrecisionPool
from bitfold.pool.chance import chances
from bitfold.pool.coded import CodedWeight
from bitfold.pool.rounding import FEW_BITS

FIELDS = [bitfold.Field("user", 900), bitfold.Field("day", 7)]
IDS = torch.stack([torch.arange(64) * 13 % 900, torch.arange(64) % 7], 1)


def pool_of(bits=4, width=6, rows=500):
    pool = LowPrecisionPool(rows, width, bits, (0, 20, 300))
    means = torch.linspace(-1, 1, rows)
    pool.draw(means, torch.full((rows,), 0.5), torch.Generator().manual_seed(bits))
    return pool


def collection(**more):
    words = {"budget": "6x", "bits": 4, "low_precision": True, "seed": 0, **more}
    return bitfold.EmbeddingCollection(FIELDS, 8, **words)


@pytest.mark.parametrize("bits", FEW_BITS)
@pytest.mark.parametrize("width", [16, 10, 37, 1])
def test_compiled_and_plain_moves_are_equal_to_the_bit(bits, width):
    one, other = pool_of(bits, width), pool_of(bits, width)
    draw = torch.Generator().manual_seed(0)
    for turn in range(6):
        rows = torch.randint(0, 500, (200,), generator=draw).unique()
        noise = torch.randn(len(rows), width, generator=draw) * (1 + turn)
        one.move(rows, one.numbers(rows) * 0.9 + noise * 0.1)
        with plain_torch():
            other.move(rows, other.numbers(rows) * 0.9 + noise * 0.1)
        assert torch.equal(one.codes, other.codes)
        assert torch.equal(one.steps, other.steps)
        assert torch.equal(one.numbers(rows), other.numbers(rows))


KINDS = (
    lambda rows: SGD(rows, lr=0.1, l2=0.01),
    lambda rows: SGD(rows, lr=0.1, momentum=0.9, weight_decay=0.01),
    lambda rows: Adagrad(rows, lr=0.1),
    lambda rows: RowWiseAdagrad(rows, lr=0.1, l2=0.01),
    lambda rows: LazyAdam(rows, lr=0.1, weight_decay=0.01),
)


@pytest.mark.parametrize("kind", KINDS, ids=["sgd", "momentum", "adagrad", "row-wise", "adam"])
@pytest.mark.parametrize(("bits", "width"), [(8, 16), (4, 16), (4, 7), (3, 16), (2, 48), (1, 10)])
def test_a_move_in_one_pass_is_that_of_three(kind, bits, width, monkeypatch):
    """Decoded, moved and encoded a row at a time, by two threads: equal to the bit."""
    found = []
    for passes in (1, 3):
        pool, draw = pool_of(bits, width, rows=3000), torch.Generator().manual_seed(0)
        optimizer = kind(pool.parameters())
        if passes == 3:
            monkeypatch.setattr(LowPrecisionPool, "move_by", lambda *_: False)
        for _ in range(7):
            rows = torch.randint(0, 3000, (2800,), generator=draw).unique()
            grad = torch.randn(len(rows), width, generator=draw)
            optimizer.move_rows(
                pool.weight,
                torch.sparse_coo_tensor(rows[None], grad, (3000, width), check_invariants=True),
            )
        states = [each for kept in optimizer.state.values() for each in kept.values()]
        found.append([pool.codes, pool.centres, pool.steps, *states])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_steps_below_a_level_add_up():
    """A tenth of a level each time: rounding to the nearest would never leave the first one."""
    pool = pool_of(rows=500)
    rows = torch.arange(20, 300)
    before, step = pool.numbers(rows).clone(), pool.steps[1].float()
    pool.every = 1 << 30  # scales stay
    pool.moves += 3
    for _ in range(20):
        pool.move(rows, pool.numbers(rows) + step / 10)
    moved = (pool.numbers(rows) - before) / step
    inside = before < pool.centres[1].float()  # those that the last level does not stop
    assert abs(moved[inside].mean().item() - 2) < 0.1


def test_chances_do_not_depend_on_the_order_of_rows():
    rows = torch.tensor([5, 99, 3])
    drawn = chances(rows, 4, moves=7)
    assert torch.equal(chances(rows.flip(0), 4, moves=7), drawn.flip(0))
    assert not torch.equal(chances(rows, 4, moves=8), drawn)


def test_scales_follow_what_moves_bring():
    pool = pool_of()
    rows = torch.arange(20, 300)
    draw = torch.Generator().manual_seed(1)
    for _ in range(300):
        pool.move(rows, torch.randn(280, 6, generator=draw) * 3 + 5)
    assert ((pool.centres[1] - 5).abs() < pool.steps[1]).all()  # no nearer is worth new codes
    assert ((pool.steps[1] / (3 * 0.335) - 1).abs() < 0.2).all()


@pytest.mark.parametrize("within", [False, True], ids=["step", "within the backward pass"])
def test_it_learns_and_serves_the_very_codes(within):
    module = collection()
    optimizer = RowWiseAdagrad(module.parameters(), lr=0.1)
    if within:
        optimizer.into_backward(module)
    goal = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (module(IDS)[:, 0] - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    served = module.serving()
    assert torch.equal(served(IDS), module.eval()(IDS))
    assert served.embedder.pool.weight.equal(module.embedder.pool.codes)
    again = served.embedder.resume()
    assert isinstance(again.pool, LowPrecisionPool)
    assert torch.equal(again(IDS), served(IDS))


def test_training_takes_the_bytes_of_serving_and_little_more():
    module = collection(sparse=True)
    found, floats = module.bytes("training"), collection(low_precision=False).bytes("training")
    assert found["weights"] < module.plan.by_kind["weights"] + 4096
    assert found["gradients"] == 0
    assert 4 * sum(found.values()) < sum(floats.values())


def test_a_step_is_the_same_after_a_state_dict_a_copy_or_a_pickle():
    def stepped(module):
        optimizer = SGD(module.parameters(), lr=0.05)
        module(IDS).square().sum().backward()
        optimizer.step()
        return module(IDS).detach()

    first = collection()
    stepped(first)
    loaded = collection(seed=0)
    loaded.load_state_dict(first.state_dict())
    copied, unpickled = copy.deepcopy(first), pickle.loads(pickle.dumps(first))
    for each in (first, loaded, copied, unpickled):
        each.zero_grad()
    expected = stepped(first)
    for each in (loaded, copied, unpickled):
        assert each.embedder.pool.weight.pool is each.embedder.pool
        assert torch.equal(stepped(each), expected)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
@pytest.mark.parametrize("foreach", [False, True])
def test_other_optimizers_are_refused(optimizer, foreach):
    module = collection()
    module(IDS).sum().backward()
    before = module.embedder.pool.codes.clone()
    with pytest.raises(BitfoldError, match="kept as codes"):
        optimizer(module.parameters(), lr=0.1, foreach=foreach).step()
    assert torch.equal(module.embedder.pool.codes, before)


def test_a_step_beyond_all_numbers_leaves_codes_as_they_were():
    pool = pool_of()
    pool.moves += 3  # scales are not looked at
    optimizer = SGD(pool.parameters(), lr=1e30)
    grad = torch.zeros(500, 6)
    grad[:2] = torch.tensor([[1e-31], [1e20]])  # the second one overflows
    before = pool.codes.clone()
    with pytest.raises(BitfoldError, match="1 of 2 rows not finite"):
        optimizer.move_rows(pool.weight, grad)
    assert torch.equal(pool.codes[1], before[1])
    assert not torch.equal(pool.codes, before)


def test_what_is_not_a_number_moves_nothing():
    module = collection()
    optimizer = RowWiseAdagrad(module.parameters(), lr=0.1)
    module(IDS).sum().backward()
    optimizer.step()
    kept = module.embedder.pool.codes.clone()
    state = optimizer.state[module.embedder.pool.weight]["row_sum"].clone()
    (module(IDS) * float("nan")).sum().backward()
    with pytest.raises(BitfoldError, match="not numbers"):
        optimizer.step()
    assert torch.equal(module.embedder.pool.codes, kept)
    assert torch.equal(optimizer.state[module.embedder.pool.weight]["row_sum"], state)


@pytest.mark.parametrize(
    "words",
    [
        {"method": "binary-code", "bits": None},
        {"scale": "row"},
        {"method": "pep", "bits": None},
        {"method": "cafe"},
    ],
)
def test_what_makes_no_sense_is_refused(words):
    with pytest.raises(BitfoldError):
        collection(**words)


def test_a_weight_of_another_pool_is_refused():
    one, other = pool_of(), pool_of()
    with pytest.raises(BitfoldError, match="belongs to the pool"):
        one.weight = other.weight
    assert isinstance(one.weight, CodedWeight)


def test_rows_that_are_not_there_never_reach_a_compiled_loop():
    pool = pool_of()
    pool.moves += 3  # scales are not looked at
    before = pool.codes.clone()
    for rows in (torch.tensor([500]), torch.tensor([-1])):
        with pytest.raises(BitfoldError, match="rows"):
            pool.numbers(rows)
        with pytest.raises(BitfoldError, match="rows"):
            pool.move(rows, torch.zeros(1, 6))
    for wrong in (torch.zeros(2, 6), torch.zeros(1, 5), torch.zeros(1, 6).double()):
        with pytest.raises(BitfoldError, match="numbers"):
            encode(pool._coded(pool.centres, pool.steps), torch.tensor([0]), wrong, 0)
    pool.steps = pool.steps[:1].clone()
    with pytest.raises(BitfoldError, match="steps"):
        decode(pool._coded(pool.centres[:2], pool.steps), torch.tensor([0]))
    assert torch.equal(pool.codes, before)
