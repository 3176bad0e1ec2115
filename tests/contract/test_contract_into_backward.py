"""Every method's rows, moved within the backward pass, end where `step` would have moved them."""

import copy
import io

import pytest
import torch

import bitfold
from bitfold import BitfoldError
from bitfold.kernels import gradients, packing, sharing
from bitfold.optim import OPTIMIZERS, SGD, LazyAdam, RowWiseAdagrad
from bitfold.testing.cases import Case, bags_by_field, random_bags

STEPS = 4
FEW = [Case("full"), Case("binary-code"), Case("binary-code", {"fusion": "weighted"})]
few = pytest.mark.parametrize("form", FEW, ids=str)


@pytest.fixture(params=["private", "listed", "listed, some few", "listed, all few"])
def sums(request, monkeypatch):
    """Small and large pools take different ways to the sums of their rows, and so do small slices
    of large ones: every thread has sums of the few rows."""
    if request.param != "private":
        monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    rows = {"listed": 0, "listed, some few": 40}.get(request.param, packing.FEW_ROWS)
    monkeypatch.setattr(packing, "FEW_ROWS", rows)
    return request.param


def train(module, optimizer, inputs):
    """Some steps on the same loss; the gradients that are left of the last one."""
    for step in range(STEPS):
        optimizer.zero_grad()
        out = module(*inputs[step % len(inputs)])
        goal = torch.randn(out.shape, generator=torch.Generator().manual_seed(step))
        (out - goal).square().sum().backward()
        optimizer.step()


def check(module, inputs, kind="lazy-adam", **words):
    other = copy.deepcopy(module)
    plain = OPTIMIZERS[kind](other.parameters(), lr=0.05, **words)
    train(other, plain, inputs)
    optimizer = OPTIMIZERS[kind](module.parameters(), lr=0.05, **words)
    optimizer.into_backward(module)
    train(module, optimizer, inputs)
    for got, expected in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    pools = [part.weight for part in module.modules() if hasattr(part, "moved_by")]
    assert [weight.grad for weight in pools] == [None]


@few
def test_single_ids(form, sums, threads):
    check(form.collection(), [(form.ids(300, seed=seed),) for seed in range(2)])


@few
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer(form, kind, sums):
    more = {"momentum": 0.9} if kind == "sgd" else {}
    check(form.collection(), [(form.ids(200),), (form.ids(5, seed=1),)], kind, **more)


@few
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(form, mode, sums, threads):
    module = form.collection(mode=mode)
    with torch.no_grad():
        for weight in module.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(3))
    check(module, [bags_by_field(random_bags(form, 9))], "rowwise-adagrad", initial=0.1)


def test_rows_that_nobody_asked_for_stay_and_slots_are_freed(sums, threads):
    embedding = bitfold.Embedding(5000, 6, method="full")
    before = embedding.weight.detach().clone().clone()
    RowWiseAdagrad(embedding.parameters(), lr=0.1).into_backward(embedding)
    for low in (0, 100, 50, 4000, 0):
        embedding(torch.arange(low, low + 700)).sum().backward()
    moved = (embedding.weight.detach() != before).any(1)
    assert moved.nonzero().squeeze(1).tolist() == [*range(800), *range(4000, 4700)]


def test_the_few_rows_are_those_of_the_smallest_slices_that_nothing_else_reads():
    sizes = {"day": 7, "shop": 900, "user": 100_000}
    fields = [bitfold.Field(name, size) for name, size in sizes.items()]
    program = bitfold.plan(fields, 8, budget="10x", method="binary-code").program
    few, number = packing._few(program)
    spans = {lookup.base: lookup.span for lookup in program}
    assert set(few) == {base for base, span in spans.items() if span <= 900}
    assert len(few) == 3  # day, shop, and the user's second digit
    assert number == sum(spans[base] for base in few) <= packing.FEW_ROWS
    starts = sorted((place, spans[base]) for base, place in few.items())
    assert [place for place, _ in starts] == [0, starts[0][1], starts[0][1] + starts[1][1]]
    assert packing._few(bitfold.plan(fields, 8, method="full").program)[1] == 907
    one_pool = bitfold.plan(fields, 8, budget="10x", sharing="fields", blocks=2).program
    assert packing._few(one_pool)[1] <= 907


def test_an_interrupted_step_leaves_no_slot_behind(monkeypatch):
    monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    embedding = bitfold.Embedding(500, 6, method="full")
    optimizer = SGD(embedding.parameters(), lr=1.0)
    optimizer.into_backward(embedding)

    def interrupted(*words):
        raise KeyboardInterrupt

    loss = embedding(torch.arange(9)).sum()
    with monkeypatch.context() as patch:
        patch.setattr(gradients, "update_lists", interrupted)
        with pytest.raises(KeyboardInterrupt):
            loss.backward()
    before = embedding.weight.detach().clone().clone()
    embedding(torch.arange(3, 12)).sum().backward()
    torch.testing.assert_close(embedding.weight.detach()[3:12], before[3:12] - 1.0)
    assert torch.equal(embedding.weight.detach()[:3], before[:3])


def test_the_rate_of_the_moment_counts():
    embedding = bitfold.Embedding(50, 6, method="full")
    optimizer = SGD(embedding.parameters(), lr=1.0)
    optimizer.into_backward(embedding)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    steps = []
    for _ in range(3):
        before = embedding.weight.detach().clone().clone()
        embedding(torch.tensor([7])).sum().backward()
        optimizer.step()
        schedule.step()
        steps.append(float((before - embedding.weight.detach())[7, 0]))
    assert steps == pytest.approx([1.0, 0.5, 0.25], rel=1e-4)


def test_the_state_is_the_optimizers():
    embedding = bitfold.Embedding(50, 6, method="full")
    optimizer = LazyAdam(embedding.parameters())
    optimizer.into_backward(embedding)
    for _ in range(3):
        embedding(torch.tensor([7])).sum().backward()
    (state,) = optimizer.state_dict()["state"].values()
    assert state["step"] == 3
    assert state["exp_avg"][7].abs().sum() > 0
    assert state["exp_avg"][8].abs().sum() == 0


@few
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_lookups_of_one_table_are_one_step(form, kind, sums):
    def loss(module):
        vectors = module(form.ids(9)) * module(form.ids(9, seed=1)).sin()
        return (vectors + module(form.ids(9, seed=2))).square().sum()

    module, other = form.collection(), form.collection()
    optimizer = OPTIMIZERS[kind](module.parameters(), lr=0.05)
    optimizer.into_backward(module)
    plain = OPTIMIZERS[kind](other.parameters(), lr=0.05)
    for _ in range(2):
        loss(module).backward()
        optimizer.step()
        optimizer.zero_grad()
        loss(other).backward()
        plain.step()
        plain.zero_grad()
    for got, expected in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_a_table_that_others_read_moves_after_they_have():
    """A tied output layer reads the weight in its own backward pass, after the lookup's."""
    embedding = bitfold.Embedding(50, 6, method="full")
    SGD(embedding.parameters(), lr=0.1).into_backward(embedding)
    before = embedding.weight.detach().clone()
    hidden = embedding(torch.tensor([1, 2]))
    torch.nn.functional.linear(hidden.tanh(), embedding.weight).square().sum().backward()
    moved = (embedding.weight.detach() != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == [1, 2]


def test_a_backward_pass_that_fails_moves_nothing():
    embedding = bitfold.Embedding(50, 6, method="full")
    SGD(embedding.parameters(), lr=0.1).into_backward(embedding)
    before = embedding.weight.detach().clone()

    def fail(grad):
        raise ZeroDivisionError

    first, second = embedding(torch.tensor([1])), embedding(torch.tensor([2]))
    first.register_hook(fail)
    with pytest.raises(ZeroDivisionError):
        (first.sum() + second.sum()).backward()
    assert torch.equal(embedding.weight.detach(), before)
    embedding(torch.tensor([3])).sum().backward()
    moved = (embedding.weight.detach() != before).any(1).nonzero().squeeze(1)
    assert moved.tolist() == [3]


def test_copies_and_pickles_have_no_optimizer():
    embedding = bitfold.Embedding(500, 6, budget="4x")
    SGD(embedding.parameters(), lr=1.0).into_backward(embedding)
    file = io.BytesIO()
    torch.save(embedding, file)
    file.seek(0)
    for copied in (copy.deepcopy(embedding), torch.load(file, weights_only=False)):
        copied(torch.tensor([1])).sum().backward()
        assert next(copied.parameters()).grad is not None


def test_another_optimizer_takes_the_place_of_the_first():
    embedding = bitfold.Embedding(50, 6, method="full")
    first, second = (SGD(embedding.parameters(), lr=lr) for lr in (1.0, 0.25))
    first.into_backward(embedding)
    second.into_backward(embedding)
    before = embedding.weight.detach().clone().clone()
    embedding(torch.tensor([7])).sum().backward()
    torch.testing.assert_close(embedding.weight.detach()[7], before[7] - 0.25)


def test_plain_torch_leaves_the_rows_to_step():
    moved = []
    for plain in (False, True):
        embedding = bitfold.Embedding(500, 6, budget="4x", seed=0)
        optimizer = SGD(embedding.parameters(), lr=0.1)
        optimizer.into_backward(embedding)
        if plain:
            with bitfold.plain_torch():
                embedding(torch.tensor([1, 499])).square().sum().backward()
        else:
            embedding(torch.tensor([1, 499])).square().sum().backward()
        optimizer.step()
        moved.append(embedding.weight.detach())
    torch.testing.assert_close(*moved)


def test_under_a_compiler_the_rows_are_left_to_step():
    embedding = bitfold.Embedding(500, 6, budget="4x", seed=0)
    optimizer = SGD(embedding.parameters(), lr=0.1)
    optimizer.into_backward(embedding)
    before = embedding.weight.detach().clone()
    torch.compile(embedding, backend="aot_eager", fullgraph=True)(
        torch.tensor([1])
    ).sum().backward()
    assert torch.equal(embedding.weight.detach(), before)
    optimizer.step()
    assert not torch.equal(embedding.weight.detach(), before)


def test_what_cannot_be_moved_is_refused():
    embedding = bitfold.Embedding(500, 6, budget="4x")
    optimizer = SGD(embedding.parameters(), lr=0.1)
    with pytest.raises(BitfoldError, match="no table to move"):
        optimizer.into_backward(torch.nn.Linear(2, 2))
    with pytest.raises(BitfoldError, match="not among this optimizer's parameters"):
        optimizer.into_backward(bitfold.Embedding(500, 6, budget="4x"))
    double = bitfold.Embedding(500, 6, budget="4x", dtype=torch.float64)
    with pytest.raises(BitfoldError, match="only float32"):
        SGD(double.parameters(), lr=0.1).into_backward(double)


def test_processes_that_train_together_are_refused(monkeypatch):
    embedding = bitfold.Embedding(500, 6, budget="4x")
    optimizer = SGD(embedding.parameters(), lr=0.1)
    optimizer.into_backward(embedding)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.raises(BitfoldError, match="2 processes"):
        optimizer.into_backward(embedding)
    with pytest.raises(BitfoldError, match="2 processes"):
        embedding(torch.tensor([1])).sum().backward()


def test_lists_of_more_threads_than_this_step_has_are_not_read(monkeypatch):
    """Lists are kept from step to step: a small batch after a large one takes fewer threads."""
    monkeypatch.setattr(gradients, "PRIVATE_BYTES", -1)
    monkeypatch.setattr(sharing, "SERIAL_NUMBERS", 0)
    embedding = bitfold.Embedding(500, 6, method="full")
    RowWiseAdagrad(embedding.parameters(), lr=0.1).into_backward(embedding)
    before = torch.get_num_threads()
    for threads in (3, 1):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            loss = embedding(torch.arange(100 * threads)).sum()
            kept = embedding.weight.detach().clone()
            loss.backward()
    torch.set_num_threads(before)
    assert torch.equal(embedding.weight.detach()[100:], kept[100:])
    assert not torch.equal(embedding.weight.detach()[:100], kept[:100])
