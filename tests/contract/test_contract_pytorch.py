"""Signatures as those of `nn.Embedding` and `nn.EmbeddingBag`; `bitfold.testing` has the rest.

`docs/compatibility.md` is the table of it: what is equal, different on purpose, refused.
"""

import inspect

import pytest
import torch
from torch import nn

import bitfold
from bitfold import BitfoldError, Embedding, EmbeddingBag
from bitfold.method.registry import method_kind
from bitfold.testing.cases import DIM


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


@pytest.mark.parametrize("bad", [True, 3.0, "3", torch.tensor(3)])
def test_a_number_of_ids_that_is_none_is_refused(bad):
    with pytest.raises(BitfoldError, match="integer"):
        Embedding(bad, DIM)


def test_every_method_builds_from_no_seed():
    """A method of others may draw by itself: it gets None where none was said."""
    for name in bitfold.methods():
        words = inspect.signature(method_kind(name).build).parameters
        assert "seed" in words
