"""Hugging Face: `Trainer`, `save_pretrained`, tied output embeddings. Nothing is fetched."""

from pathlib import Path
from typing import Any

import pytest
import torch
from folded_models import moved, saved_and_loaded, weights

import bitfold

pytestmark = pytest.mark.filterwarnings("ignore")
NAME = "transformers_bert"
WORDS = "bert.embeddings.word_embeddings"


@pytest.fixture(autouse=True)
def _installed(needs: Any) -> None:
    needs("transformers")
    needs("accelerate")


def test_the_example(told: Any) -> None:
    assert told(NAME, "10x")["bytes"] * 10 <= told(NAME, "none")["bytes"]


def test_a_classifier_trains_and_is_saved_and_loaded(
    example: Any, log: Any, tmp_path: Path
) -> None:
    module = example(NAME)
    make = lambda: module.make(log.sizes)  # noqa: E731
    model = make()
    report = bitfold.fold(model, "10x")
    assert WORDS in {row["table"] for row in report.tables}
    before, optimizer = weights(model), torch.optim.AdamW(model.parameters())
    rows = module.Sentences(log.train, log.sizes)
    for some in torch.arange(2048).split(256):
        optimizer.zero_grad()
        model(input_ids=rows.tokens[some], labels=rows.labels[some]).loss.backward()
        optimizer.step()
    still = {"bert.embeddings.token_type_embeddings.weight"}
    assert moved(before, model) >= set(before) - still - {
        name
        for name in before
        if name.endswith("key.bias")  # a softmax does not see them
    }
    again = saved_and_loaded(model, make, tmp_path)
    model.save_pretrained(tmp_path / "pretrained")
    from_its_file = bitfold.load_model(tmp_path / "pretrained" / "model.safetensors", make)
    tokens = module.Sentences(log.test, log.sizes).tokens
    with torch.no_grad():
        scored = [each.eval()(input_ids=tokens).logits for each in (model, again, from_its_file)]
    assert torch.equal(scored[0], scored[1])
    assert torch.equal(scored[0], scored[2])


def test_tied_output_embeddings_are_left_alone_and_said(example: Any, log: Any) -> None:
    from transformers import BertForMaskedLM

    config = example(NAME).make(log.sizes).config
    config.max_position_embeddings, config.tie_word_embeddings = 512, True
    model = BertForMaskedLM(config)
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    before = model.get_input_embeddings().weight.detach().clone()
    report = bitfold.fold(model, "4x")
    (row,) = (row for row in report.tables if row["table"] == WORDS)
    assert row["after"] == row["before"]
    assert "decoder" in row["how"] or "tied" in row["how"]
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert torch.equal(before, model.get_input_embeddings().weight)
    (row,) = (row for row in report.tables if row["table"].endswith("position_embeddings"))
    assert row["after"] * 4 <= row["before"]
