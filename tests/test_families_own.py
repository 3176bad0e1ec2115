"""Families that are modules of their own: each against what its paper says of an id, by hand."""

import math

import pytest
import torch

import bitfold
from bitfold import BitfoldError, BudgetTooSmall, EmbeddingCollection, Field
from bitfold.address.mixing import derive_salt, mix_int
from bitfold.embedder import decoder
from bitfold.planning.budget import full_bytes
from bitfold.planning.plan import Plan

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
    with pytest.raises(BitfoldError, match="no rows to keep in few bits"):
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
