"""Every method where `nn.Embedding` and `nn.EmbeddingBag` stood: what their users rely on."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from bitfold.embedding import Embedding, EmbeddingBag
from bitfold.errors import BitfoldError, IdOutOfRange
from bitfold.planning.field import Field
from bitfold.testing.cases import DIM, Case
from bitfold.testing.checks import disturb, embedders

pytestmark = pytest.mark.first_form  # the faces hand on what the embedder gives
IDS = torch.tensor([[1, 2, 49], [3, 3, 0]])


def test_torchs_defaults_pass_everywhere(case: Case) -> None:
    """Said aloud, by place and by name."""
    said: Any = case.said([Field("ids", 50)])
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


def test_attributes_say_what_was_given(case: Case) -> None:
    table = case.embedding(50, padding_idx=-2, sparse=True)
    bag = case.bag(50, mode="sum", include_last_offset=True, padding_idx=3)
    assert table.padding_idx == 48
    assert (bag.mode, bag.include_last_offset, bag.padding_idx) == ("sum", True, 3)
    sparse = embedders(table)[0].sparse
    assert table.sparse == sparse
    table.sparse = False
    table(IDS).sum().backward()
    assert not any(p.grad is not None and p.grad.is_sparse for p in table.parameters())
    if sparse:
        table.sparse = True
        table.zero_grad()
        table(IDS).sum().backward()
        assert any(p.grad is not None and p.grad.is_sparse for p in table.parameters())


def test_two_tables_start_apart_and_torchs_seed_decides(case: Case) -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return case.embedding(50, seed=None).weight.detach().clone()

    torch.manual_seed(1)
    one, other = case.embedding(50, seed=None), case.embedding(50, seed=None)
    assert not torch.equal(one(IDS), other(IDS))
    assert one.plan == other.plan  # what decides the rows stays: a checkpoint of one fits all
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(IDS), other(IDS))
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_a_seed_that_is_said_leaves_torchs_generator_alone(case: Case) -> None:
    before = torch.get_rng_state()
    case.embedding(50, seed=3)
    case.embedding(50, seed=None, device="meta")
    assert torch.equal(torch.get_rng_state(), before)


def test_reset_parameters_draws_anew(case: Case) -> None:
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


@pytest.mark.parametrize(
    "words", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"_weight": torch.zeros(50, DIM)}]
)
def test_what_needs_a_row_an_id_is_refused_by_name(case: Case, words: dict[str, Any]) -> None:
    if embedders(case.embedding(50))[0].table is not None:
        pytest.skip("its parameter is the table")
    for make in (case.embedding, case.bag):
        with pytest.raises(BitfoldError) as error:
            make(50, **words)
        assert next(iter(words)) in str(error.value)
        assert repr(case.method) in str(error.value)
        assert "50 ids" in str(error.value)


@pytest.mark.parametrize("built", ["inference_mode", "no_grad"])
def test_built_without_gradients_and_trained_later(case: Case, built: str) -> None:
    with getattr(torch, built)():
        table, bag = case.embedding(50), case.bag(50, mode="sum")
        before = table(IDS)
    assert torch.equal(table(IDS), before)
    for module in (table, bag):
        module(IDS).sum().backward()
        assert any(p.grad is not None for p in module.parameters())


def test_skip_init_and_meta(case: Case) -> None:
    said: Any = case.said([Field("ids", 50)])
    kinds: tuple[Any, Any] = (Embedding, EmbeddingBag)
    for kind in kinds:
        module: Any = nn.utils.skip_init(kind, 50, DIM, seed=5, **said)
        module.reset_parameters()
        expected = case.ready(kind(50, DIM, seed=5, **said))
        assert torch.equal(case.ready(module)(IDS), expected(IDS))
        with torch.device("meta"):
            assert next(kind(50, DIM, **said).parameters()).is_meta
        assert kind(50, DIM, device="meta", **said).weight.is_meta


@pytest.mark.parametrize("sparse", [False, True])
def test_copies_and_pickles_are_apart(case: Case, sparse: bool) -> None:
    table = case.embedding(50, padding_idx=3, sparse=sparse)
    for twin in (copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert torch.equal(twin(IDS), table(IDS))
        assert (twin.padding_idx, twin.sparse) == (3, table.sparse)
        disturb(twin)
        assert not torch.equal(twin(IDS), table(IDS))


@pytest.mark.parametrize("move", ["half", "double", "bfloat16"])
def test_types_by_module_methods(case: Case, move: str) -> None:
    table = getattr(case.embedding(50), move)()
    expected = {"half": torch.float16, "double": torch.float64}.get(move, torch.bfloat16)
    assert table(IDS).dtype == table.weight.dtype == expected
    table(IDS).sum().backward()


def test_memory_may_be_shared(case: Case) -> None:
    table = case.embedding(50).share_memory()
    assert all(p.is_shared() for p in table.parameters())
    assert table(IDS).shape == (2, 3, DIM)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # as of nn.Embedding's own
def test_hooks_of_the_module_run(case: Case) -> None:
    table = case.embedding(50)
    seen: list[str] = []
    table.register_forward_pre_hook(lambda module, given: seen.append("before"))
    table.register_forward_hook(lambda module, given, out: seen.append("after"))
    table.register_full_backward_hook(lambda module, given, out: seen.append("backward"))
    table(IDS).sum().backward()
    assert seen == ["before", "after", "backward"]


def test_pruning_belongs_to_the_module_that_owns_the_numbers(case: Case) -> None:
    table = case.embedding(50)
    with pytest.raises(BitfoldError, match="pruning"):
        prune.l1_unstructured(table, "weight", 0.5)
    with pytest.raises(ValueError, match="does not have a parameter"):
        parametrizations.weight_norm(table)
    keys, before = list(table.state_dict()), table(IDS)
    owner = next(iter(embedders(table)[0].tables()), None)
    if owner is None or owner.weight.dim() < 2:
        pytest.skip("no rows to prune")
    prune.l1_unstructured(owner.owner, "weight", 0.5)
    assert list(table.state_dict()) != keys
    assert not torch.equal(table(IDS), before)
    for _ in range(2):  # a mask that ran once would leave a graph that cannot be walked again
        table(IDS).sum().backward()


def test_a_subclass_has_parameters_of_its_own(case: Case) -> None:
    class Scaled(Embedding):
        def __init__(self, *given: Any, **words: Any) -> None:
            super().__init__(*given, **words)
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return super().forward(ids) * self.scale

    said: Any = case.said([Field("ids", 50)])
    scaled = case.ready(Scaled(50, DIM, seed=1, **said))
    table = case.ready(Embedding(50, DIM, seed=1, **said))
    assert torch.equal(scaled(IDS), table(IDS) * 3)


def test_a_bad_id_is_an_index_error_as_torchs(case: Case) -> None:
    for module in (case.embedding(50), case.bag(50)):
        with pytest.raises(IndexError):
            module(torch.tensor([[50]]))
        with pytest.raises(IdOutOfRange):
            module(torch.tensor([[-1]]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantization_leaves_the_layer_alone(case: Case) -> None:
    model = nn.Sequential(case.embedding(50), nn.Linear(DIM, 4))
    smaller: Any = torch.ao.quantization.quantize_dynamic(model)
    assert type(smaller[0]) is Embedding
    assert type(smaller[1]) is not nn.Linear
    assert torch.equal(smaller[0](IDS), model[0](IDS))
