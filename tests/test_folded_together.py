"""Tables that are read in one call: their vectors and gradients are those of each by itself."""

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitfold
from bitfold.folded.beside import WholeEmbedding, WholeEmbeddingBag
from bitfold.folded.guesses import InMemory, OfInputs
from bitfold.folded.joint import Joint

SIZES = (3000, 2000, 800, 40, 7)


class Net(nn.Module):
    """Three tables to fold and two small ones, called on columns."""

    def __init__(self, kind: str = "ids", width: int = 16, sparse: bool = False) -> None:
        super().__init__()
        maker: Any = nn.Embedding if kind == "ids" else nn.EmbeddingBag
        self.bags = kind == "bags"
        self.tables = nn.ModuleList(maker(size, width, sparse=sparse) for size in SIZES)

    def forward(self, ids: Tensor) -> Tensor:
        """Vectors `[B, 5, D]`."""
        more = (torch.arange(len(ids)),) if self.bags else ()
        columns = zip(self.tables, ids.unbind(1), strict=True)
        return torch.stack([table(column, *more) for table, column in columns], 1)


class Apart(nn.Module):
    """The same, called with a tensor a table, of numbers of any kind."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Net()

    def forward(self, given: dict[str, Tensor], more: Tensor) -> Tensor:
        """Vectors `[B, 5, D]`; the last two columns are in a matrix of floats."""
        tables = self.inner.tables
        found = [table(given[name]) for table, name in zip(tables, "abc", strict=False)]
        found += [tables[3](more[:, 1].long()), tables[4](more[:, 0].long())]
        return torch.stack(found, 1)


def batch(rows: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(size, (rows,), generator=draw) for size in SIZES], 1)


def joint_of(model: nn.Module) -> Joint:
    return next(part for part in model.modules() if isinstance(part, Joint))


def learned(model: Any, *given: Any) -> None:
    """Call a model until it has a guess."""
    for _ in range(3):
        model(*given)


def gradients(model: nn.Module, run: Callable[[], Tensor], weights: Tensor) -> list[Tensor]:
    """The vectors and all gradients, of a loss that weighs each number."""
    model.zero_grad()
    vectors = run()
    (vectors * weights).sum().backward()
    found = [vectors.detach()]
    for parameter in model.parameters():
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found.append(grad.to_dense() if grad.is_sparse else grad.clone())
    return found


def by_itself(model: Any, ids: Tensor) -> Tensor:
    """The same vectors, each table with its column alone in memory, and no inputs to look at."""
    joint_of(model).train(model.training)  # forgets
    more = (torch.arange(len(ids)),) if getattr(model, "bags", False) else ()
    tables = model.tables if hasattr(model, "tables") else model.inner.tables
    return torch.stack([t(ids[:, f].clone(), *more) for f, t in enumerate(tables)], 1)


@pytest.mark.parametrize("rows", [1, 3, 7, 64, 65, 500])
@pytest.mark.parametrize("budget", ["4x", "10x", "60x"])
@pytest.mark.parametrize("kind", ["ids", "bags"])
@pytest.mark.parametrize("sparse", [False, True])
def test_vectors_and_gradients(rows: int, budget: str, kind: str, sparse: bool) -> None:
    torch.manual_seed(rows)
    model = Net(kind, sparse=sparse)
    bitfold.fold(model, budget, seed=0)
    ids, weights = batch(rows), torch.randn(rows, 5, 16)
    wanted = gradients(model, lambda: by_itself(model, ids), weights)
    learned(model, ids)
    found = gradients(model, lambda: model(ids), weights)
    assert isinstance(joint_of(model).states[True].guess, InMemory)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # sums of many rows
    with torch.no_grad():
        learned(model, ids)
        torch.testing.assert_close(model(ids), wanted[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_small_tables_are_torchs_own(sparse: bool) -> None:
    model = Net(sparse=sparse)
    plain = copy.deepcopy(model)
    bitfold.fold(model, "10x", seed=0)
    ids, weights = batch(90), torch.randn(90, 5, 16)
    learned(model, ids)
    gradients(model, lambda: model(ids), weights)
    gradients(plain, lambda: plain(ids), weights)
    for ours, theirs in zip(model.tables[3:], plain.tables[3:], strict=True):
        assert isinstance(ours, WholeEmbedding)
        assert isinstance(ours, nn.Embedding)
        assert torch.equal(ours.weight, theirs.weight)
        one, other = ours.weight.grad, theirs.weight.grad
        assert one.is_sparse == sparse == other.is_sparse
        if sparse:
            assert (one._indices().diff() > 0).all()  # each row once, and in order
        torch.testing.assert_close(one.to_dense(), other.to_dense(), rtol=1e-5, atol=1e-5)
    names = [name for name in model.state_dict() if name.startswith(("tables.3", "tables.4"))]
    assert names == ["tables.3.weight", "tables.4.weight"]


def test_padding_of_small_tables_learns_nothing_and_is_read() -> None:
    model = Net()
    model.tables[4] = nn.Embedding(7, 16, padding_idx=2)
    with torch.no_grad():
        model.tables[4].weight[2] = 5.0
    bitfold.fold(model, "10x", seed=0)
    ids = batch(50)
    ids[::2, 4] = 2
    learned(model, ids)
    vectors = model(ids)
    assert (vectors[::2, 4] == 5.0).all()
    vectors.sum().backward()
    assert (model.tables[4].weight.grad[2] == 0).all()
    assert model.tables[4].weight.grad.abs().sum() > 0


def test_bags_with_padding_keep_to_themselves() -> None:
    model = Net("bags")
    model.tables[4] = nn.EmbeddingBag(7, 16, mode="mean", padding_idx=2)
    bitfold.fold(model, "10x", seed=0)
    assert type(model.tables[3]) is WholeEmbeddingBag
    assert type(model.tables[4]) is nn.EmbeddingBag
    ids = batch(50)
    ids[::2, 4] = 2
    learned(model, ids)
    assert (model(ids)[::2, 4] == 0).all()


@pytest.mark.parametrize("left", [(0,), (3,), (0, 1, 2), (3, 4), (1, 4)])
def test_columns_that_no_loss_needs(left: tuple[int, ...]) -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids, weights = batch(80), torch.randn(80, 5, 16)
    chosen = [f for f in range(5) if f not in left]
    wanted = gradients(model, lambda: by_itself(model, ids)[:, chosen], weights[:, chosen])
    learned(model, ids)

    def some() -> Tensor:
        columns = zip(model.tables, ids.unbind(1), strict=True)
        every = [table(column) for table, column in columns]
        return torch.stack([every[f] for f in chosen], 1)

    found = gradients(model, some, weights[:, chosen])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    # and all of them again, with the lists of jobs that had some left out
    wanted = gradients(model, lambda: by_itself(model, ids), weights)
    learned(model, ids)
    for ours, theirs in zip(gradients(model, lambda: model(ids), weights), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_vectors_may_be_written_to() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(30)
    learned(model, ids)
    found = [table(column) for table, column in zip(model.tables, ids.unbind(1), strict=True)]
    before = [each.detach().clone() for each in found]
    found[0].mul_(2.0)
    found[3].add_(1.0)
    assert torch.equal(found[0], 2 * before[0])
    assert torch.equal(found[1], before[1])
    (found[0].sum() + found[3].sum()).backward()
    assert model.tables[3].weight.grad.sum().item() == pytest.approx(30 * 16)


def test_a_graph_that_is_kept_and_one_of_the_gradient() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids, weights = batch(30), torch.randn(30, 5, 16)
    learned(model, ids)
    loss = (model(ids) * weights).sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    loss.backward()
    twice = [p.grad for p in model.parameters() if p.grad is not None]
    for one, other in zip(once, twice, strict=True):
        torch.testing.assert_close(2 * one, other, rtol=1e-5, atol=1e-6)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    loss = (model(ids) * weights).square().sum()
    grads = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    with pytest.raises(bitfold.BitfoldError, match="no second derivatives"):
        sum(grad.square().sum() for grad in grads).backward()


def test_what_the_model_is_called_with() -> None:
    model = Apart()
    bitfold.fold(model, "10x", seed=0)
    weights = torch.randn(90, 5, 16)
    for seed in range(4):
        ids = batch(90, seed)
        given = dict(zip("abc", (ids[:, f].clone() for f in range(3)), strict=True))
        more = ids[:, [4, 3]].double()
        wanted = gradients(model, lambda ids=ids: by_itself(model, ids), weights)
        for _ in range(2):
            model(given, more)
        assert isinstance(joint_of(model).states[True].guess, OfInputs) == (seed >= 0)
        found = gradients(model, lambda g=given, m=more: model(g, m), weights)
        for ours, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_one_row_learns_its_inputs_from_several() -> None:
    model = Apart().eval()
    bitfold.fold(model, "10x", seed=0)
    rows = [batch(1, seed) for seed in range(12)]
    plain = torch.cat([by_itself(model, ids) for ids in rows]).detach()
    with torch.no_grad():
        for _ in range(2):
            for n, ids in enumerate(rows):
                given = dict(zip("abc", (ids[:, f].clone() for f in range(3)), strict=True))
                found = model(given, ids[:, [4, 3]].float())
                torch.testing.assert_close(found[0], plain[n], rtol=1e-5, atol=1e-6)
    assert isinstance(joint_of(model).states[False].guess, OfInputs)


def test_inputs_that_are_not_the_ids_are_noticed() -> None:
    class Turned(Apart):
        def forward(self, given: dict[str, Tensor], more: Tensor) -> Tensor:
            """The same, of ids turned by what `more` says."""
            turned = {k: (v + int(more[0, 2])) % 800 for k, v in given.items()}
            return super().forward(turned, more)

    model = Turned()
    bitfold.fold(model, "10x", seed=0)
    for seed in range(12):
        ids = batch(70, seed) % 800
        given = dict(zip("abc", (ids[:, f].clone() for f in range(3)), strict=True))
        more = torch.cat([ids[:, [4, 3]], torch.full((70, 1), seed % 3)], 1)
        right = torch.cat([(ids[:, :3] + seed % 3) % 800, ids[:, 3:]], 1)
        found = model(given, more)
        torch.testing.assert_close(found, by_itself(copy.deepcopy(model), right))


def test_ids_out_of_range_are_refused_as_by_each_table() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    good = batch(30)
    for column, bad in ((0, 3000), (1, -1), (3, 40), (4, -1)):
        learned(model, good)
        ids = good.clone()
        ids[17, column] = bad
        with pytest.raises(IndexError):
            model(ids)
        learned(model, good)
        assert joint_of(model).states[True].wrong == 0


def test_large_batches_and_other_numbers_are_read_apart() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(9000)  # more than one thread's
    wanted = by_itself(model, ids)
    learned(model, ids)
    torch.testing.assert_close(model(ids), wanted, rtol=1e-5, atol=1e-6)
    model(ids).sum().backward()
    double = Net().double()
    bitfold.fold(double, "10x", seed=0)
    ids = batch(40)
    wanted = by_itself(double, ids)
    learned(double, ids)
    torch.testing.assert_close(double(ids), wanted)


def test_weights_that_moved_are_held_again() -> None:
    model = Net().eval()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(40)
    learned(model, ids)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():  # new memory, and the old one is given to others
        parameter.data = parameter.data.clone() + 1.0
    gc.collect()
    trash = [torch.full_like(p, 9.0) for p in model.parameters()]
    wanted = by_itself(model, ids)
    learned(model, ids)
    torch.testing.assert_close(model(ids), wanted, rtol=1e-5, atol=1e-6)
    model.load_state_dict(kept, assign=True)
    wanted = by_itself(model, ids)
    learned(model, ids)
    torch.testing.assert_close(model(ids), wanted, rtol=1e-5, atol=1e-6)
    del trash


def test_a_small_table_that_is_changed_in_between_is_read_anew() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(40)
    learned(model, ids)
    model.tables[0](ids[:, 0])  # reads for all
    with torch.no_grad():
        model.tables[3].weight.fill_(3.0)
    assert (model.tables[3](ids[:, 3]) == 3.0).all()
    learned(model, ids)
    model.tables[3].weight = nn.Parameter(torch.full((40, 16), 4.0))
    assert (model(ids)[:, 3] == 4.0).all()
    assert (model(ids)[:, 3] == 4.0).all()


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_copies_read_their_own(way: str) -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(40)
    learned(model, ids)
    twin = copy.deepcopy(model) if way == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert torch.equal(twin(ids), by_itself(model, ids)) or torch.allclose(twin(ids), model(ids))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    learned(twin, ids)
    assert twin(ids).abs().sum() > 0
    learned(model, ids)
    assert model(ids)[:, :3].abs().sum() >= 0
    assert model(ids)[:, 3:].abs().sum() == 0
    loss = twin(ids).sum()
    loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(p.grad is not None for p in twin.parameters())


def test_threads_have_lists_of_their_own() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    batches = [batch(60, seed) for seed in range(4)]
    wanted = [by_itself(model, ids).detach() for ids in batches]
    joint_of(model).train()
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(60):
            found = model(batches[n])
            if not torch.allclose(found, wanted[n], rtol=1e-5, atol=1e-6):
                wrong.append(n)
            torch.autograd.grad(found.sum(), list(model.parameters()))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_packed_model_serves_what_it_trained() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(50)
    model.eval()
    with torch.no_grad():
        learned(model, ids)
        served = bitfold.serving(model)
        learned(served, ids)
        assert served(ids).shape == (50, 5, 16)
        assert torch.equal(served(ids)[:, 3:], model(ids)[:, 3:])
        torch.testing.assert_close(served(ids), by_itself(served, ids), rtol=1e-5, atol=1e-6)


def test_sparse_adam_and_heads() -> None:
    model = Net(sparse=True)
    optimizer = torch.optim.SparseAdam(model.parameters())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(bitfold.BitfoldError, match=r"SparseAdam, which holds table 'tables.0'"):
        bitfold.fold(model, "4x", seed=0, method="mixed-dimensions")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = bitfold.fold(model, "10x", seed=0, method="binary-code")
    assert not any("SparseAdam" in note for note in report.notes)
    model(batch(30)).sum().backward()
    optimizer.step()
    other = bitfold.fold(Net(sparse=True), "4x", seed=0, method="mixed-dimensions")
    assert any("SparseAdam refuses" in note for note in other.notes)


def test_what_autograd_kept_is_held_against_the_kernels() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids, weights = batch(40), torch.randn(40, 5, 16)
    learned(model, ids)
    wanted = gradients(model, lambda: model(ids), weights)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t.clone()):
        for ours, theirs in zip(gradients(model, lambda: model(ids), weights), wanted, strict=True):
            assert torch.equal(ours, theirs)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t[:1], lambda t: t):
        loss = (model(ids) * weights).sum()
    with pytest.raises(bitfold.BitfoldError, match="kept"):
        loss.backward()


def test_a_weight_that_shrank_is_refused() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(40)
    learned(model, ids)
    loss = model(ids).sum()
    weight = next(part for part in model.modules() if type(part).__name__ == "LowBitPool").weight
    whole = weight.data
    weight.data = weight.data[:2]
    with pytest.raises(bitfold.BitfoldError, match="the weight is not what this lookup needs"):
        loss.backward()
    with pytest.raises(bitfold.BitfoldError, match="weight"):
        model(ids)
    weight.data = whole
    learned(model, ids)
    model(ids).sum().backward()


def test_one_id_by_itself() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0)
    ids = batch(1)[0]
    wanted = by_itself(model, ids.unsqueeze(0))[0]
    for _ in range(4):  # ids of no dimension, as `nn.Embedding` takes them
        found = torch.stack([table(each) for table, each in zip(model.tables, ids, strict=True)])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_pre_hooks) for part in model.modules())


def test_a_hook_that_nobody_needs_goes() -> None:
    model, called = Net(), []
    model.register_forward_pre_hook(lambda module, args: called.append(len(args)))
    bitfold.fold(model, "10x", seed=0)
    assert hooks(model) == 3  # the user's; the model's and that of the list of tables
    ids = batch(40)
    for _ in range(40):
        model(ids)
    assert hooks(model) == 2
    assert len(called) == 40
    assert isinstance(joint_of(model).states[True].guess, InMemory)
    apart = Apart()
    bitfold.fold(apart, "10x", seed=0)
    given = dict(zip("abc", (ids[:, f].clone() for f in range(3)), strict=True))
    before = hooks(apart)
    for _ in range(40):
        apart(given, ids[:, [4, 3]].float())
    assert hooks(apart) == before
    assert hooks(bitfold.serving(model)) == 3


@pytest.mark.parametrize("rows", [30, 9000])
@pytest.mark.parametrize("budget", ["10x", "60x"])
def test_vectors_of_any_batch_may_be_written_to(rows: int, budget: str) -> None:
    model = Net()
    bitfold.fold(model, budget, seed=0)
    ids = batch(rows)
    learned(model, ids)
    found = [table(column) for table, column in zip(model.tables, ids.unbind(1), strict=True)]
    before = found[1].detach().clone()
    found[0].mul_(2.0)
    found[0].sum().backward()
    assert torch.equal(found[1], before)


def test_gradients_that_become_sparse() -> None:
    model = Net()
    bitfold.fold(model, "10x", seed=0, method="binary-code")
    ids = batch(40)
    learned(model, ids)
    model.tables[0].sparse = True
    model.zero_grad()
    model(ids).sum().backward()
    grads = [table.weight.grad for table in joint_of(model).embedder.tables()]
    assert grads
    assert all(grad is not None and grad.is_sparse for grad in grads)
