"""What users of `nn.Embedding` and `nn.EmbeddingBag` rely on, over every method.

`docs/compatibility.md` is the table of it: what is equal, different on purpose, refused.
"""

import copy
import inspect
import pickle

import pytest
import torch
from contract_cases import DIM, all_cases
from torch import nn
from torch.nn.utils import parametrizations, prune

import bitfold
from bitfold import BitfoldError, Embedding, EmbeddingBag, IdOutOfRange
from bitfold.method.registry import method_kind

COMPUTED = [pytest.param(case, id=str(case)) for case in all_cases() if case.method != "full"]
computed = pytest.mark.parametrize("form", COMPUTED)
IDS = torch.tensor([[1, 2, 49], [3, 3, 0]])


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Embedding, nn.Embedding), (EmbeddingBag, nn.EmbeddingBag)]
)
def test_arguments_stand_in_torchs_order_with_its_defaults(ours, theirs):
    def positional(kind):
        words = inspect.signature(kind.__init__).parameters.values()
        return [(w.name, w.default) for w in words if w.kind is w.POSITIONAL_OR_KEYWORD]

    assert positional(ours) == positional(theirs)
    for word in list(inspect.signature(theirs.from_pretrained).parameters.values()):
        assert inspect.signature(ours.from_pretrained).parameters[word.name].default == word.default


def test_torchs_defaults_pass_everywhere(case):
    """Said aloud, by place and by name."""
    said = case.said([bitfold.Field("ids", 50)])
    table = Embedding(50, DIM, None, None, 2.0, False, False, None, False, None, None, **said)
    bag = EmbeddingBag(
        50, DIM, None, 2.0, False, "mean", False, None, False, None, None, None, **said
    )
    for module in (table, bag):
        assert (module.num_embeddings, module.embedding_dim) == (50, DIM)
        assert (module.padding_idx, module.max_norm, module.norm_type) == (None, None, 2.0)
        assert (module.scale_grad_by_freq, module.sparse) == (False, False)
    assert (bag.mode, bag.include_last_offset) == ("mean", False)
    assert isinstance(table, nn.Embedding)
    assert isinstance(bag, nn.EmbeddingBag)


def test_attributes_say_what_was_given(case):
    table = case.embedding(50, padding_idx=-2, sparse=True)
    bag = case.bag(50, mode="sum", include_last_offset=True, padding_idx=3)
    assert (table.padding_idx, table.sparse) == (48, True)
    assert (bag.mode, bag.include_last_offset, bag.padding_idx) == ("sum", True, 3)
    table.sparse = False
    table(IDS).sum().backward()
    assert not any(p.grad.is_sparse for p in table.parameters())
    table.sparse = True
    table.zero_grad()
    table(IDS).sum().backward()
    assert any(p.grad.is_sparse for p in table.parameters())


def test_frozen_from_the_start(case):
    table = case.embedding(50, _freeze=True)
    assert not any(p.requires_grad for p in table.parameters())
    assert not table(IDS).requires_grad
    assert not table.weight.requires_grad


def test_two_tables_start_apart_and_torchs_seed_decides(case):
    def drawn(seed, **more):
        torch.manual_seed(seed)
        return case.embedding(50, seed=None, **more).weight.detach().clone()

    torch.manual_seed(1)
    one, other = case.embedding(50, seed=None), case.embedding(50, seed=None)
    assert not torch.equal(one(IDS), other(IDS))
    assert one.plan == other.plan  # what decides the rows stays: a checkpoint of one fits all
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(IDS), other(IDS))
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    fields = case.collection(seed=None).fields
    assert not torch.equal(
        case.collection(fields, seed=None)(case.ids(3)),
        case.collection(fields, seed=None)(case.ids(3)),
    )


def test_a_seed_that_is_said_leaves_torchs_generator_alone(case):
    before = torch.get_rng_state()
    case.embedding(50, seed=3)
    case.embedding(50, seed=None, device="meta")
    assert torch.equal(torch.get_rng_state(), before)


def test_reset_parameters_draws_anew(case):
    table = case.embedding(50, seed=None, padding_idx=2)
    before = table.weight.detach().clone()
    table.reset_parameters()
    assert not torch.equal(table.weight, before)
    assert not table(torch.tensor(2)).any()
    torch.manual_seed(4)
    table.reset_parameters()
    first = table.weight.detach().clone()
    torch.manual_seed(4)
    table.reset_parameters()
    assert torch.equal(table.weight, first)


@computed
@pytest.mark.parametrize(
    "words", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"_weight": torch.zeros(50, DIM)}]
)
def test_what_needs_a_row_an_id_is_refused_by_name(form, words):
    for make in (form.embedding, form.bag):
        with pytest.raises(BitfoldError) as error:
            make(50, **words)
        assert next(iter(words)) in str(error.value)
        assert repr(form.method) in str(error.value)
        assert "50 ids" in str(error.value)
    with pytest.raises(BitfoldError, match=f"'{form.method}'"):
        Embedding.from_pretrained(torch.zeros(50, DIM), method=form.method)


@pytest.mark.aspect("hashed ids")
def test_hashed_ids_have_no_weight_and_say_so(case):
    for module in (case.embedding(None), case.bag(None)):
        assert not hasattr(module, "weight")
        assert getattr(module, "weight", None) is None
        with pytest.raises(AttributeError, match="no table"):
            _ = module.weight
        with pytest.raises(BitfoldError, match="no table"):
            module.weight = nn.Parameter(torch.zeros(50, DIM))
    net = nn.Sequential(case.embedding(None), nn.Linear(DIM, 1))
    owners = [type(each).__name__ for each in net.modules() if hasattr(each, "weight")]
    assert owners[-1] == "Linear"
    assert "Embedding" not in owners


@pytest.mark.parametrize("built", ["inference_mode", "no_grad"])
def test_built_without_gradients_and_trained_later(case, built):
    with getattr(torch, built)():
        table, bag = case.embedding(50), case.bag(50, mode="sum")
        before = table(IDS)
    assert torch.equal(table(IDS), before)
    for module in (table, bag):
        module(IDS).sum().backward()
        assert any(p.grad is not None for p in module.parameters())


def test_skip_init_and_meta(case):
    said = case.said([bitfold.Field("ids", 50)])
    for kind in (Embedding, EmbeddingBag):
        module = nn.utils.skip_init(kind, 50, DIM, seed=5, **said)
        module.reset_parameters()
        assert torch.equal(module(IDS), kind(50, DIM, seed=5, **said)(IDS))
        with torch.device("meta"):
            assert next(kind(50, DIM, **said).parameters()).is_meta
        assert kind(50, DIM, device="meta", **said).weight.is_meta


@pytest.mark.parametrize("sparse", [False, True])
def test_copies_and_pickles_are_apart(case, sparse):
    table = case.embedding(50, padding_idx=3, sparse=sparse)
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(twin(IDS), table(IDS))
        assert (twin.padding_idx, twin.sparse) == (3, sparse)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.add_(1)
        assert not torch.equal(twin(IDS), table(IDS))


@pytest.mark.parametrize(
    ("move", "dtype"), [("half", torch.float16), ("double", torch.float64), ("bfloat16", None)]
)
def test_types_by_module_methods(case, move, dtype):
    table = getattr(case.embedding(50), move)()
    expected = dtype or torch.bfloat16
    assert table(IDS).dtype == table.weight.dtype == expected
    table(IDS).sum().backward()


def test_memory_may_be_shared(case):
    table = case.embedding(50).share_memory()
    assert all(p.is_shared() for p in table.parameters())
    assert table(IDS).shape == (2, 3, DIM)


def test_ids_of_every_form(case):
    table = case.embedding(50)
    rows = table(torch.arange(50))
    wide = torch.arange(48).reshape(6, 8)
    for ids in (torch.tensor(7), wide[:, ::2], wide.T, wide.reshape(2, 3, 8), wide.int()):
        assert torch.equal(table(ids), rows[ids.long()])
    for shape in ((0,), (0, 3), (3, 0)):
        out = table(torch.zeros(shape, dtype=torch.int64))
        assert out.shape == (*shape, DIM)
        out.sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as of nn.Embedding's own
def test_hooks_of_the_module_run(case):
    table, seen = case.embedding(50), []
    table.register_forward_pre_hook(lambda module, given: seen.append("before"))
    table.register_forward_hook(lambda module, given, out: seen.append("after"))
    table.register_full_backward_hook(lambda module, given, out: seen.append("backward"))
    table(IDS).sum().backward()
    assert seen == ["before", "after", "backward"]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's Adagrad, of its own
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda params: torch.optim.SGD(params, lr=0.1),
        lambda params: torch.optim.Adagrad(params, lr=0.1),
        lambda params: torch.optim.SparseAdam(params, lr=0.1),
    ],
)
def test_torchs_optimizers_take_sparse_gradients(case, optimizer):
    if case.words.get("fusion") == "weighted":
        return  # its importances have dense gradients, which SparseAdam does not take
    table = case.embedding(50, sparse=True)
    step = optimizer(list(table.parameters()))
    before = table(IDS).detach().clone()
    table(IDS).sum().backward()
    step.step()
    assert (table(IDS) < before).any()


def test_the_printed_form_is_one_line_and_says_what_was_said(case):
    table = case.embedding(50, padding_idx=3, sparse=True)
    assert repr(table).startswith(f"Embedding(50, {DIM}, method={case.method!r}")
    assert "\n" not in repr(table)
    assert "padding_idx=3" in repr(table)
    assert "sparse=True" in repr(table)
    assert "\n" not in repr(case.collection())


def test_a_traced_model_has_our_modules_as_leaves(case):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.bag = case.embedding(50), case.bag(50, mode="sum")
            self.fields = case.collection()

        def forward(self, ids, starts, weights, rows):
            pooled = self.bag(ids, per_sample_weights=weights, offsets=starts)
            return self.table(ids).sum(1) + 1, pooled, self.fields(rows)

    model = Model()
    graph = torch.fx.symbolic_trace(model)
    leaves = [node.target for node in graph.graph.nodes if node.op == "call_module"]
    assert sorted(leaves) == ["bag", "fields", "table"]
    given = torch.tensor([1, 2, 49]), torch.tensor([0, 2]), torch.ones(3), case.ids(2)
    for got, expected in zip(graph(*given), model(*given), strict=True):
        assert torch.equal(got, expected)
    with pytest.raises(BitfoldError, match="leaf"):
        torch.fx.symbolic_trace(model.table)


def test_pruning_belongs_to_the_module_that_owns_the_numbers(case):
    table = case.embedding(50)
    with pytest.raises(BitfoldError, match="pruning"):
        prune.l1_unstructured(table, "weight", 0.5)
    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrizations.weight_norm(table)
    keys = list(table.state_dict())
    before = table(IDS)
    prune.l1_unstructured(table.embedder.pool, "weight", 0.5)
    assert list(table.state_dict()) != keys
    assert not torch.equal(table(IDS), before)
    for _ in range(2):  # a mask that ran once would leave a graph that cannot be walked again
        table(IDS).sum().backward()


def test_a_subclass_has_parameters_of_its_own(case):
    class Scaled(Embedding):
        def __init__(self, *given, **words):
            super().__init__(*given, **words)
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, ids):
            return super().forward(ids) * self.scale

    said = case.said([bitfold.Field("ids", 50)])
    scaled, table = Scaled(50, DIM, seed=1, **said), Embedding(50, DIM, seed=1, **said)
    assert torch.equal(scaled(IDS), table(IDS) * 3)


@pytest.mark.parametrize("bad", [True, 3.0, "3", torch.tensor(3)])
def test_a_number_of_ids_that_is_none_is_refused(bad):
    with pytest.raises(BitfoldError, match="integer"):
        Embedding(bad, DIM)


def test_a_bad_id_is_an_index_error_as_torchs(case):
    for module in (case.embedding(50), case.bag(50)):
        with pytest.raises(IndexError):
            module(torch.tensor([[50]]))
        with pytest.raises(IdOutOfRange):
            module(torch.tensor([[-1]]))


def test_every_method_builds_from_no_seed():
    """A method of others may draw by itself: it gets None where none was said."""
    for name in bitfold.methods():
        words = inspect.signature(method_kind(name).build).parameters
        assert "seed" in words


def test_functional_call_by_the_parameters_name(case):
    table = case.embedding(50)
    zeroed = {name: torch.zeros_like(value) for name, value in table.named_parameters()}
    assert not torch.func.functional_call(table, zeroed, (IDS,)).any()
    assert table(IDS).any()
    with pytest.raises((TypeError, BitfoldError)):
        torch.func.functional_call(table, {"weight": torch.zeros(50, DIM)}, (IDS,))
    assert table(IDS).any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantization_leaves_the_layer_alone(case):
    model = nn.Sequential(case.embedding(50), nn.Linear(DIM, 4))
    smaller = torch.ao.quantization.quantize_dynamic(model)
    assert type(smaller[0]) is Embedding
    assert type(smaller[1]) is not nn.Linear
    assert torch.equal(smaller[0](IDS), model[0](IDS))
