"""Layers of one field whose rows change owners: they live as a collection of that field does."""

from typing import Any

import pytest
import torch

from bitfold import Embedding, EmbeddingBag, EmbeddingCollection, Field
from bitfold.training.lifecycle import Lifecycle

LIVING: dict[str, dict[str, Any]] = {
    "fiited": {"budget": 2400, "every": 5, "small": 0.0},
    "scall": {"budget": 2400, "every": 5},
    "cafe": {"budget": 2400, "every": 5},
    "managed-collision": {"budget": 2400, "every": 5},
}


def trained(layer: Any, bags: bool = False) -> dict[str, torch.Tensor]:
    """What a layer holds after 20 steps on ids of which few are frequent."""
    draw = torch.Generator().manual_seed(1)
    life = Lifecycle(layer)
    for _ in range(20):
        ids = (torch.rand(40, generator=draw) ** 4 * 300).long()
        toward = torch.randn(40, 8, generator=draw)
        layer.zero_grad()
        if isinstance(layer, EmbeddingCollection):
            found = layer(ids[:, None]).squeeze(1)
        else:
            found = layer(ids, torch.arange(40)) if bags else layer(ids)
        (found * toward).sum().backward()
        with torch.no_grad():
            for weight in layer.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
        life.step(loss=0.5)
    return dict(layer.embedder.state_dict())


@pytest.mark.parametrize("method", LIVING)
def test_one_field_lives_alike_in_every_layer(method: str) -> None:
    options = LIVING[method]
    collection = EmbeddingCollection([Field("ids", 300)], 8, method=method, seed=0, **options)
    before = {name: each.clone() for name, each in collection.embedder.state_dict().items()}
    right = trained(collection)
    stored = [name for name, each in before.items() if not each.is_floating_point()]
    assert any(not torch.equal(right[name], before[name]) for name in stored), "rows moved"
    layers = (
        trained(Embedding(300, 8, method=method, seed=0, **options)),
        trained(EmbeddingBag(300, 8, mode="sum", method=method, seed=0, **options), bags=True),
    )
    for found in layers:
        assert found.keys() == right.keys()
        for name, each in right.items():
            torch.testing.assert_close(found[name], each)
