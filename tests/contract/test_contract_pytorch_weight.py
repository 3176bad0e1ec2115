"""`.weight`: the parameter where there is a table; else lazy, and no write is lost."""

import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitfold import BitfoldError, Embedding, EmbeddingBag
from bitfold.testing.cases import DIM, first_cases

V = 50
IDS = torch.tensor([[1, 2, 49], [3, 3, 0]])
COMPUTED = [pytest.param(case, id=str(case)) for case in first_cases() if not case.is_table]
computed = pytest.mark.parametrize("form", COMPUTED)
zeros, ones = torch.zeros(V, DIM), torch.ones(V, DIM)
at = torch.tensor([1])

WRITES = {
    "init.constant_": lambda w: nn.init.constant_(w, 7.0),
    "init.zeros_": nn.init.zeros_,
    "init.uniform_": nn.init.uniform_,
    "init.xavier_uniform_": nn.init.xavier_uniform_,
    "init.orthogonal_": nn.init.orthogonal_,
    "init.eye_": nn.init.eye_,
    "init.normal_ with a mean": lambda w: nn.init.normal_(w, 1.0, 0.5),
    "data.copy_": lambda w: w.data.copy_(ones),
    "data.uniform_": lambda w: w.data.uniform_(-1, 1),
    "data =": lambda w: setattr(w, "data", ones),
    "grad =": lambda w: setattr(w, "grad", ones),
    "grad": lambda w: w.grad,
    "[3] =": lambda w: w.__setitem__(3, 1.0),
    "data[3] =": lambda w: w.data.__setitem__(3, 1.0),
    "[3].fill_": lambda w: w[3].fill_(1.0),
    "[-1].fill_": lambda w: w[-1].fill_(1.0),
    "[2:9].mul_": lambda w: w[2:9].mul_(3),
    "[2:9][1].mul_": lambda w: w[2:9][1].mul_(3),
    "T.mul_": lambda w: w.T.mul_(3),
    "detach().add_": lambda w: w.detach().add_(1),
    "view(-1).add_": lambda w: w.view(-1).add_(1),
    "cpu().add_": lambda w: w.cpu().add_(1),
    "float().add_": lambda w: w.float().add_(1),
    "contiguous().add_": lambda w: w.contiguous().add_(1),
    "+=": lambda w: w.__iadd__(1),
    "*=": lambda w: w.__imul__(2),
    "for row in": lambda w: [row.add_(1) for row in w],
    "unbind": lambda w: w.unbind(0)[0].add_(1),
    "chunk": lambda w: w.chunk(2)[1].add_(1),
    "index_put_": lambda w: w.index_put_((at,), torch.ones(DIM)),
    "index_add_": lambda w: w.index_add_(0, at, torch.ones(1, DIM)),
    "_foreach_mul_": lambda w: torch._foreach_mul_([w], 2.0),
    "out=": lambda w: torch.mul(ones, 2, out=w.detach()),
    "relu(inplace)": lambda w: F.relu(w, inplace=True),
    "embedding_renorm_": lambda w: torch.embedding_renorm_(w, at, 1e-6, 2.0),
    "F.embedding(max_norm)": lambda w: F.embedding(at, w, max_norm=1e-6),
    "set_": lambda w: w.set_(torch.ones(3)),
    "resize_": lambda w: w.resize_(3),
    "share_memory_": lambda w: w.share_memory_(),
    "data_ptr": lambda w: w.data_ptr(),
    "register_hook": lambda w: w.register_hook(print),
    "retain_grad": lambda w: w.retain_grad(),
    "clip_grad_norm_": lambda w: nn.utils.clip_grad_norm_(w, 1.0),
    "clip_grad_value_": lambda w: nn.utils.clip_grad_value_([w], 1.0),
    "vector_to_parameters": lambda w: nn.utils.vector_to_parameters(torch.zeros(V * DIM), [w]),
    "Parameter": nn.Parameter,
}


@computed
def test_no_write_into_a_computed_weight_is_lost(form):
    for make in (form.embedding, form.bag):
        module = make(V)
        before = [p.detach().clone() for p in module.parameters()]
        for what, write in WRITES.items():
            for mode in (torch.enable_grad, torch.no_grad):
                with pytest.raises(BitfoldError, match="computed") as error, mode():
                    write(module.weight)
                assert form.method in str(error.value), what
                assert error.value.fix, what
        assert all(map(torch.equal, before, module.parameters()))


@computed
def test_an_init_that_draws_and_then_writes_is_told_too(form):
    """It begins with a `normal_`, which arrives; the numbers put in afterwards do not."""
    table = form.embedding(V)
    for init in (nn.init.trunc_normal_, lambda w: nn.init.sparse_(w, 0.5)):
        with pytest.raises(BitfoldError, match="computed"):
            init(table.weight)


@computed
def test_a_write_under_inference_mode_is_not_lost_either(form):
    table = form.embedding(V)
    with torch.inference_mode():
        for what in ("init.constant_", "data.copy_", "[3].fill_", "T.mul_"):
            with pytest.raises(BitfoldError, match="computed"):
                WRITES[what](table.weight)


@computed
def test_arrays_of_a_computed_weight_are_read_only(form):
    table = form.embedding(V)
    for array in (table.weight.detach().numpy(), np.asarray(table.weight.detach())):
        assert array.shape == (V, DIM)
        with pytest.raises(ValueError, match="read-only"):
            array[3] = 1


@computed
def test_what_can_arrive_does(form):
    table = form.embedding(V)
    for draw in (
        lambda: nn.init.normal_(table.weight, mean=0.0, std=0.5),
        lambda: table.weight.data.normal_(mean=0.0, std=0.5),
        lambda: table.weight.normal_(0, 0.5),
    ):
        before = table(IDS).detach().clone()
        draw()
        assert not torch.equal(table(IDS), before)
        assert 0.2 < table.weight.std().item() < 1.2
    torch.manual_seed(3)
    again = form.embedding(V)
    nn.init.normal_(again.weight, std=0.5)
    torch.manual_seed(3)
    nn.init.normal_(table.weight, std=0.5)
    assert torch.equal(again(IDS), table(IDS))
    table.weight.requires_grad_(False)
    assert not any(p.requires_grad for p in table.parameters())
    table.weight.requires_grad = True
    assert all(p.requires_grad for p in table.parameters())
    with pytest.raises(BitfoldError, match="computed"):
        table.weight.detach().requires_grad_()


@computed
def test_inits_by_class_reach_the_vectors_and_not_the_rows(form):
    """As language models do it, over all modules: `isinstance(module, nn.Embedding)`."""
    table = form.embedding(V, padding_idx=3)

    def init(module):
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=0.5)
            if module.padding_idx is not None:
                module.weight.data[module.padding_idx].zero_()

    nn.Sequential(table).apply(init)
    assert 0.2 < table.weight.std().item() < 1.2
    assert not table(torch.tensor(3)).any()
    with pytest.raises(BitfoldError, match="computed"):
        table.weight.data[3].fill_(1)
    with pytest.raises(BitfoldError, match="computed"):
        table.weight.data[4].zero_()


@computed
def test_a_computed_weight_reads_as_the_table(form):
    table = form.embedding(V)
    rows = table(torch.arange(V))
    weight, x = table.weight, torch.randn(3, DIM)
    for got, expected in {
        weight: rows,
        weight[3]: rows[3],
        weight[-1]: rows[-1],
        weight[4:9:2]: rows[4:9:2],
        weight[IDS]: rows[IDS],
        weight[rows[:, 0] > 0]: rows[rows[:, 0] > 0],
        weight[3, 2]: rows[3, 2],
        weight[:, 1]: rows[:, 1],
        weight.T: rows.T,
        weight.clone(): rows,
        weight.double(): rows.double(),
        x @ weight.T: x @ rows.T,
        F.linear(x, weight): F.linear(x, rows),
        F.embedding(IDS, weight): rows[IDS],
        torch.cat([weight, weight]): torch.cat([rows, rows]),
        zeros.clone().copy_(weight): rows,
    }.items():
        torch.testing.assert_close(torch.Tensor(got.detach().clone()), expected.detach())
    assert weight.tolist() == rows.tolist()
    assert type(weight.clone()) is torch.Tensor
    with pytest.raises(IndexError):
        _ = weight[torch.tensor([V])]


@computed
def test_gradients_flow_through_a_computed_weight(form):
    table, twin = form.embedding(V), form.embedding(V)
    (table.weight * 2).sum().backward()
    (twin(torch.arange(V)) * 2).sum().backward()
    for one, other in zip(table.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    assert not table.weight.is_leaf
    assert table.weight.detach().is_leaf
    with pytest.raises(ValueError, match="non-leaf"):
        torch.optim.SGD([table.weight], lr=0.1)


@computed
def test_a_computed_weight_is_no_parameter_to_tie(form):
    table, head = form.embedding(V), nn.Linear(DIM, V, bias=False)
    with pytest.raises(TypeError, match="ComputedWeight"):
        head.weight = table.weight
    with pytest.raises(BitfoldError, match="computed") as error:
        table.weight = head.weight
    assert form.method in str(error.value)


@computed
def test_it_is_known_without_being_computed(form, monkeypatch):
    table = form.embedding(V, dtype=torch.float64)

    def never(*given, **words):
        raise AssertionError("the table was computed")

    monkeypatch.setattr(Embedding, "computed", never)
    monkeypatch.setattr(table.embedder, "forward", never)
    assert hasattr(table, "weight")
    weight = table.weight
    assert (weight.device.type, weight.dtype, weight.shape) == ("cpu", torch.float64, (V, DIM))
    assert (weight.requires_grad, weight.is_leaf, weight.ndim, len(weight)) == (True, False, 2, V)
    assert (weight.size(1), weight.numel(), weight.nbytes) == (DIM, V * DIM, V * DIM * 8)
    assert not weight.is_sparse
    assert not weight.is_meta
    assert not isinstance(weight, nn.Parameter)
    assert isinstance(weight, torch.Tensor)
    assert weight.data.shape == weight.detach().shape == (V, DIM)
    assert weight in {weight: 1}
    for text in (repr(weight), str(weight), f"{weight}", repr(table)):
        assert "\n" not in text


def test_the_weight_of_full_is_its_parameter_whatever_is_said():
    for words in ({}, {"padding_idx": 0}, {"sparse": True}, {"max_norm": 1.0}):
        for kind in (Embedding, EmbeddingBag):
            module = kind(V, DIM, method="full", **words)
            assert module.weight is next(module.parameters())
            assert module.get_parameter("weight") is module.weight
            nn.init.constant_(module.weight, 0.25)
            assert (module(IDS + 1 - IDS // 49) == 0.25).all()


def test_full_takes_another_parameter_and_gives_its_own():
    table, head = Embedding(V, DIM, method="full"), nn.Linear(DIM, V, bias=False)
    head.weight = table.weight
    assert len(list(nn.ModuleList([table, head]).parameters())) == 1
    other = Embedding(V, DIM, method="full")
    other.weight = nn.Parameter(ones * 2)
    assert (other(IDS) == 2).all()
    assert other.weight is next(other.parameters())
    other.weight.data = ones * 3
    assert (other(IDS) == 3).all()
    other(IDS).sum().backward()
    assert other.weight.grad is not None
    with pytest.raises(BitfoldError, match="shape"):
        other.weight = nn.Parameter(torch.zeros(V + 1, DIM))
    with pytest.raises(TypeError, match="cannot assign"):
        other.weight = ones


def test_full_and_torch_load_each_others_checkpoints():
    theirs, file = nn.Embedding(V, DIM), io.BytesIO()
    ours = Embedding(V, DIM, method="full")
    assert str(ours.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    assert torch.equal(ours.weight, theirs.weight)
    big = nn.Sequential(
        nn.ModuleDict({"bag": EmbeddingBag(V, DIM, method="full")}), nn.Linear(2, 2)
    )
    small = nn.Sequential(nn.ModuleDict({"bag": nn.EmbeddingBag(V, DIM)}), nn.Linear(2, 2))
    torch.save(small.state_dict(), file)
    file.seek(0)
    big.load_state_dict(torch.load(file))
    assert torch.equal(big[0]["bag"].weight, small[0]["bag"].weight)
    again = nn.Embedding(V, DIM)
    again.load_state_dict({"weight": ours.weight})  # the other way round
    assert torch.equal(again.weight, ours.weight)
    own = Embedding(V, DIM, method="full")
    own.load_state_dict(ours.state_dict())
    assert torch.equal(own.weight, ours.weight)
    with pytest.raises(RuntimeError, match="size mismatch"):
        ours.load_state_dict(nn.Embedding(V + 1, DIM).state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict({})


@computed
def test_a_table_does_not_load_into_a_method_that_computes_its_own(form):
    with pytest.raises(RuntimeError, match="Unexpected key"):
        form.embedding(V).load_state_dict(nn.Embedding(V, DIM).state_dict())
