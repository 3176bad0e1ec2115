"""Budgets in words, and what a module weighs."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import bitfold
from bitfold import BitfoldError, EmbeddingBag, EmbeddingCollection, Field
from bitfold.planning.budget import format_bytes, full_bytes, parse_budget

FIELDS = [Field("user", 1000), Field("item", distinct=500)]
FULL = 1500 * 16 * 4


@pytest.mark.parametrize(
    ("budget", "size"),
    [
        (65536, 65536),
        ("65536", 65536),
        ("65_536", 65536),
        ("65,536", 65536),
        ("64B", 64),
        ("64 kb", 64_000),
        ("64KiB", 65536),
        ("64MiB", 64 * 2**20),
        ("1.5 GB", 1_500_000_000),
        (".5kib", 512),
        ("2GiB", 2**31),
        ("1TB", 10**12),
        ("1TiB", 2**40),
        ("1x", FULL),
        ("10x", FULL // 10),
        ("10X", FULL // 10),
        ("2.5x", int(FULL / 2.5)),
        (2**62 + 1, 2**62 + 1),
        (str(2**62 + 1), 2**62 + 1),
    ],
)
def test_forms_of_a_budget(budget, size):
    assert parse_budget(budget, FIELDS, 16) == size


@pytest.mark.parametrize(
    "budget",
    [
        0,
        -5,
        "0",
        "0MiB",
        "-1MiB",
        "",
        "  ",
        "ten",
        "MiB",
        "10 parsecs",
        "1e6",
        "x",
        "0x",
        "0.5x",
        "1..5MiB",
        "10%",
        "0.2B",
        True,
        math.nan,
        math.inf,
        "9" * 400 + ".5GiB",
        "9" * 400 + "x",
    ],
)
def test_budgets_that_make_no_sense(budget):
    with pytest.raises(BitfoldError) as error:
        parse_budget(budget, FIELDS, 16)
    assert error.value.expected


def test_a_ratio_needs_a_size():
    with pytest.raises(BitfoldError, match="no known size") as error:
        parse_budget("10x", [Field("user", 10), Field("query")], 16)
    assert "query" in str(error.value)
    assert "bytes" in error.value.fix
    assert parse_budget("1KiB", [Field("query")], 16) == 1024


@given(st.integers(1, 10**15))
def test_plain_numbers_are_exact_however_large(size):
    assert parse_budget(size, FIELDS, 16) == parse_budget(f"{size:_}", FIELDS, 16) == size


def test_full_bytes_count_four_bytes_a_number():
    assert full_bytes(FIELDS, 16) == FULL


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**20, "3.0 MiB"),
        (2**53, "8192.0 TiB"),
    ],
)
def test_bytes_for_people(size, text):
    assert format_bytes(size) == text


def tower():
    return nn.ModuleDict(
        {
            "embeddings": EmbeddingCollection(FIELDS, 16, method="binary-code", budget="10x"),
            "history": nn.Sequential(EmbeddingBag(1000, 16, method="hash", budget=4096)),
            "top": nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8)),
        }
    )


def bytes_of_state(module):
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def test_memory_of_nested_modules():
    model = tower()
    found = bitfold.memory(model)
    assert found.total == sum(found.by_kind.values()) == bytes_of_state(model)
    plans = model["embeddings"].plan.bytes + model["history"][0].plan.bytes
    assert found.by_kind["other"] == found.total - plans == bytes_of_state(model["top"])
    assert "weights" in str(found)


def test_shared_modules_count_once():
    model = tower()
    once = bitfold.memory(model).total
    model["again"] = model["embeddings"]
    model["linear"] = model["top"][0]
    assert bitfold.memory(model).total == once


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    model[1].weight = model[0].weight
    assert bitfold.memory(model).total == 8 * 8 * 4


def test_memory_follows_the_dtype():
    model = EmbeddingCollection(FIELDS, 16, method="binary-code", budget="10x")
    mark = model.bytes()["fingerprint"]
    whole = bitfold.memory(model).total
    assert bitfold.memory(model.to(torch.bfloat16)).total - mark == (whole - mark) // 2


def test_memory_of_a_module_without_embeddings():
    assert bitfold.memory(nn.Linear(3, 2)).by_kind == {"other": 8 * 4}
    assert bitfold.memory(nn.ReLU()).total == 0
