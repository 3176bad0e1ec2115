"""TorchRec's collections: KeyedJaggedTensor in, KeyedTensor out, with tables folded inside."""

from pathlib import Path
from typing import Any

import pytest
import torch
from folded_models import moved, saved_and_loaded, weights
from torch import nn

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "torchrec_deepfm"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("torchrec")


def histories(log: Any, dtype: torch.dtype) -> tuple[Any, list[torch.Tensor]]:
    """Users' films in bags of their own length, empty ones too; films and users one each."""
    from torchrec import KeyedJaggedTensor

    user, film = log.train.ids[:, 0], log.train.ids[:, 1]
    chosen = user.unique()[:50]
    bags = [film[user == each][:9] for each in chosen]
    bags[3] = bags[3][:0]
    single = [film[user == each][-1:] for each in chosen]
    users = [each.reshape(1) for each in chosen]
    values = torch.cat([*bags, *single, *users]).to(dtype)
    lengths = torch.tensor([len(each) for each in (*bags, *single, *users)])
    shares = torch.rand(len(values), generator=torch.Generator().manual_seed(0))
    keys = ["history", "film", "user"]
    return KeyedJaggedTensor(keys, values, lengths=lengths, weights=shares), bags


def collection(log: Any, pooling: str, weighted: bool) -> Any:
    from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, PoolingType

    how = PoolingType[pooling]
    films = EmbeddingBagConfig(
        num_embeddings=log.sizes["movie_id"], embedding_dim=16, name="films",
        feature_names=["history", "film"], pooling=how,
    )  # fmt: skip
    users = EmbeddingBagConfig(
        num_embeddings=log.sizes["user_id"], embedding_dim=8, name="users",
        feature_names=["user"], pooling=how,
    )  # fmt: skip
    return EmbeddingBagCollection([films, users], is_weighted=weighted)


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize(("pooling", "weighted"), [("SUM", False), ("SUM", True), ("MEAN", False)])
def test_keyed_tensors_are_those_of_the_tables_that_the_folded_ones_stand_for(
    log: Any, pooling: str, weighted: bool, dtype: torch.dtype
) -> None:
    jagged, bags = histories(log, dtype)
    folded = collection(log, pooling, weighted).eval()
    bitfold.fold(folded, "10x")
    plain = collection(log, pooling, weighted).eval()
    with torch.no_grad():
        for name, bag in plain.embedding_bags.items():
            bag.weight.copy_(folded.embedding_bags[name].weight)
        found, wanted = folded(jagged), plain(jagged)
    assert found.keys() == wanted.keys()
    assert found.length_per_key() == wanted.length_per_key()
    torch.testing.assert_close(found.values(), wanted.values(), rtol=1e-5, atol=1e-6)
    assert not len(bags[3])
    assert not found["history"][3].any()


def test_sequences_of_an_embedding_collection(log: Any) -> None:
    from torchrec import EmbeddingCollection, EmbeddingConfig

    jagged, _ = histories(log, torch.int64)
    config = EmbeddingConfig(
        num_embeddings=log.sizes["movie_id"], embedding_dim=16, name="films",
        feature_names=["history", "film"],
    )  # fmt: skip
    folded = EmbeddingCollection([config]).eval()
    bitfold.fold(folded, "10x")
    found = folded(jagged)
    table = folded.embeddings["films"].weight
    for name, each in found.items():
        assert torch.equal(each.values(), table[jagged[name].values()])
        assert torch.equal(each.lengths(), jagged[name].lengths())


def test_a_model_trains_and_is_saved_and_loaded(example: Any, log: Any, tmp_path: Path) -> None:
    module = example(NAME)
    make = lambda: module.make(log.sizes)  # noqa: E731
    model = make()
    bitfold.fold(model, "10x")
    before, optimizer = weights(model), torch.optim.Adam(model.parameters())
    logits = module.Logits(model)
    for batch in log.train.batches(256):
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(logits(batch.ids), batch.labels)
        loss.backward()
        optimizer.step()
    assert moved(before, model) == set(before)
    again = saved_and_loaded(model, make, tmp_path)
    with torch.no_grad():
        scored = [module.Logits(each.eval())(log.test.ids) for each in (model, again)]
    assert torch.equal(*scored)
