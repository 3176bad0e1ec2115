"""Large pages are a wish: asked for where they serve, never needed."""

import mmap

import pytest
import torch

from bitfold.kernels import pages


@pytest.fixture
def asked(monkeypatch):
    """What `madvise` is told."""
    calls = []
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 14, raising=False)
    monkeypatch.setattr(pages, "_advise", lambda: lambda *words: calls.append(words))
    return calls


def test_whole_pages_inside_a_large_tensor(asked):
    tensor = torch.empty(5 * pages.PAGE, dtype=torch.uint8)
    assert pages.ask_for_large_pages(tensor) is tensor
    ((begin, size, advice),) = asked
    assert begin % pages.PAGE == size % pages.PAGE == 0
    assert tensor.data_ptr() <= begin
    assert begin + size <= tensor.data_ptr() + tensor.nbytes
    assert size >= 3 * pages.PAGE
    assert advice == 14


@pytest.mark.parametrize(
    "tensor",
    [torch.empty(10), torch.empty(10**7, device="meta"), torch.empty(0)],
    ids=["small", "meta", "empty"],
)
def test_nothing_is_asked_for_small_tensors_and_other_devices(asked, tensor):
    pages.ask_for_large_pages(tensor)
    assert asked == []


def test_a_system_without_them_is_left_alone(monkeypatch):
    monkeypatch.setattr(pages, "_advise", lambda: None)
    tensor = torch.ones(10**7)
    assert torch.equal(pages.ask_for_large_pages(tensor), torch.ones(10**7))


def test_what_a_tensor_holds_stays(monkeypatch):
    tensor = torch.arange(3 * 10**6)
    pages.ask_for_large_pages(tensor)
    assert torch.equal(tensor, torch.arange(3 * 10**6))
