"""Families that are modules of their own: each against what its paper says of an id, by hand."""

import itertools
import math

import numpy as np
import pytest
import torch

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field
from bitfold.address.mixing import derive_salt, mix_int
from bitfold.embedder import decoder
from bitfold.planning.budget import full_bytes
from bitfold.planning.plan import Plan
from bitfold.planning.statistics import Counted

FIELDS = [Field("user", 6040), Field("movie", 3706), Field("gender", 2)]


def planned(method: str, budget: int | str, dim: int = 16, **options: object) -> Plan:
    return bitfold.plan(FIELDS, dim, method=method, budget=budget, **options)


def test_dhe_is_a_network_over_hashes_of_the_id() -> None:
    made = bitfold.plan(FIELDS, 2, method="dhe", budget=10_000, hashes=3, layers=1, width=1, seed=4)
    assert made.by_kind == {"decoder": 4 * (4 + 2 * 2), "fingerprint": 8}
    module = EmbeddingCollection.from_plan(made, seed=0)
    (first, last), (bias, shift) = module.embedder.matrices, module.embedder.biases
    with torch.no_grad():
        first.copy_(torch.tensor([[0.5, -1.0, 2.0]]))
        bias.fill_(0.25)
        last.copy_(torch.tensor([[1.0], [-3.0]]))
        shift.copy_(torch.tensor([0.0, 1.0]))
    salt = made.options["salt"]
    ids = [6039, 17, 1]
    for f, vector in enumerate(module(torch.tensor([ids]))[0].tolist()):
        own = mix_int(ids[f], derive_salt(salt, 0, f))
        words = [mix_int(own, derive_salt(salt, 1, word)) for word in (0, 1)]
        halves = [half for word in words for half in divmod(word, 2**32)]
        x, y, z = (half / 2**31 - 1 for half in halves[:3])
        hidden = 0.25 + 0.5 * x - y + 2 * z
        hidden *= math.tanh(math.log1p(math.exp(hidden)))
        assert vector == pytest.approx([hidden, 1 - 3 * hidden], rel=1e-5)


def test_dhe_takes_the_widest_layers_that_the_budget_buys() -> None:
    for ratio, layers in (("2x", 1), ("10x", 2), ("100x", 3)):
        made = planned("dhe", ratio, layers=layers)
        k, width = made.options["hashes"], made.options["width"]
        assert k <= 1024
        left = made.budget - made.bytes
        assert 0 <= left < 4 * (k + 2 * layers * width + 40)  # a wider layer would not fit
        assert k == 1024 or left < 4 * width  # nor another hash
    with pytest.raises(BudgetTooSmall) as error:
        planned("dhe", 1)
    assert error.value.minimum == 8 + 4 * (2 + 2 + 2 * 16)
    assert planned("dhe", error.value.minimum).bytes == error.value.minimum
    whole = planned("dhe", 10**9)
    assert whole.bytes <= full_bytes(FIELDS, 16)
    with pytest.raises(BitfoldError, match="it has no rows"):
        planned("dhe", "10x", bits=4)


def test_dhe_never_holds_the_hashes_of_all_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    module = bitfold.Embedding(3000, 4, method="dhe", budget="2x", seed=0)
    whole = module.weight.detach()[:]
    seen: list[int] = []
    hashes = module.embedder.hashes

    def watched(ids: torch.Tensor, field: torch.Tensor | None = None) -> torch.Tensor:
        seen.append(len(ids))
        return hashes(ids, field)

    monkeypatch.setattr(module.embedder, "hashes", watched)
    monkeypatch.setattr(decoder, "AT_ONCE", 100 * module.plan.options["hashes"])
    with torch.no_grad():
        torch.testing.assert_close(module.weight[:], whole)
    assert max(seen) == 100


def test_a_tensor_train_multiplies_the_slices_of_three_digits() -> None:
    """Ids as digits 4 x 4 x 4, vectors as 3 x 1 x 2, ranks 2."""
    made = bitfold.plan([Field("id", 60)], 6, method="tensor-train", budget=1000, rank=2)
    radices = [lookup.radix for lookup in made.program.fields[0]]
    assert radices == [4, 4, 4]
    assert [(pool.rows, pool.width) for pool in made.group.pools] == [(4, 6), (4, 4), (4, 4)]
    assert made.by_kind == {"weights": 4 * 4 * (6 + 4 + 4), "fingerprint": 8}
    module = EmbeddingCollection.from_plan(made, seed=0)
    first, middle, last = (pool.weight.detach() for pool in module.embedder.pools())
    for value in (0, 17, 59):
        i, j, k = value % 4, value // 4 % 4, value // 16
        expected = torch.zeros(3, 1, 2)
        for a, b, c in itertools.product(range(3), range(1), range(2)):
            for r, s in itertools.product(range(2), range(2)):
                terms = first[i, 2 * a + r], middle[j, 2 * r + b * 2 + s], last[k, 2 * s + c]
                expected[a, b, c] += math.prod(terms)
        torch.testing.assert_close(module(torch.tensor([[value]]))[0, 0], expected.flatten())


@pytest.mark.parametrize(
    ("bits", "ratios"), [(None, ("3x", "10x", "50x")), (4, ("20x", "80x")), (2, ("40x", "150x"))]
)
def test_tensor_trains_use_their_budget_and_say_the_least(
    bits: int | None, ratios: tuple[str, ...]
) -> None:
    for ratio in ratios:
        made = planned("tensor-train", ratio, bits=bits)
        assert 0.9 * made.budget <= made.bytes <= made.budget
        kept, cores = made.groups
        assert kept.fields == (2,)  # two ids, whole
        assert kept.bytes(16) + cores.bytes(16) == made.bytes
        serving = EmbeddingCollection.from_plan(made).serving()
        assert sum(each.nbytes for each in serving.state_dict().values()) == made.bytes
    with pytest.raises(BudgetTooSmall) as error:
        planned("tensor-train", 100, bits=bits)
    assert planned("tensor-train", error.value.minimum, bits=bits).bytes == error.value.minimum


def test_hashed_ids_of_a_tensor_train_are_codes_of_some_bits() -> None:
    fields = [Field("query", distinct=1000)]
    for budget, size in (("4x", 1 << 14), (1000, 1 << 12)):
        made = bitfold.plan(fields, 8, method="tensor-train", budget=budget)
        assert math.prod(lookup.radix for lookup in made.program) >= size
        assert made.bytes <= made.budget
    for bits in (8, 20):
        made = bitfold.plan(fields, 8, method="tensor-train", budget="1x", code_bits=bits)
        assert math.prod(lookup.radix for lookup in made.program) >= 1 << bits
    with pytest.raises(BitfoldError, match="no known width of code"):
        bitfold.plan([Field("query")], 8, method="tensor-train", budget=10_000)


def test_a_tensor_train_over_a_map_of_hashed_ids() -> None:
    ids = np.arange(-500, 500) * 7_919_123_457_777
    stats = Counted({"query": (ids, np.ones(len(ids), np.int64))})
    made = bitfold.plan(
        [Field("query", distinct=1000)], 8, method="tensor-train", budget="4x", map=True
    )
    module = EmbeddingCollection.from_plan(made, seed=0)
    given = torch.from_numpy(ids).unsqueeze(1)
    with pytest.raises(BitfoldError, match="not built yet"):
        module(given)
    module.embedder.prepare(stats)
    assert len(module(given).unique(dim=0)) == 1000
    again = EmbeddingCollection.from_plan(made, seed=1)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(given), module(given))


@pytest.mark.parametrize("method", ["tensor-train", "dhe"])
def test_bytes_follow_a_cast(method: str) -> None:
    module = EmbeddingCollection.from_plan(planned(method, "10x"), seed=0)
    for dtype in (torch.float16, torch.float64):
        moved = module.to(dtype)
        kept = sum(each.nbytes for each in moved.serving().state_dict().values())
        assert sum(moved.bytes().values()) == bitfold.memory(moved).total == kept
    training = module.bytes("training")
    parameters = sum(each.nbytes for each in module.parameters())
    assert training["weights"] == training["gradients"] == parameters
