"""No denormals: in every thread of a computation, and only within."""

import platform

import pytest
import torch

from bitfold.kernels.denormals import X86, no_denormals

pytestmark = pytest.mark.skipif(
    platform.machine() not in X86, reason="other processors keep denormals, at no cost"
)


def denormals() -> int:
    """How many of a large product's numbers are denormal, whichever thread computed them."""
    product = torch.full((1 << 20,), 1e-30) * 1e-10
    return int(product.view(torch.int32).count_nonzero())


def test_every_thread_makes_zeros_within_and_none_after() -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert denormals() == 1 << 20
            with no_denormals():
                assert denormals() == 0
            assert denormals() == 1 << 20
    finally:
        torch.set_num_threads(before)


def test_an_error_within_puts_the_rule_back() -> None:
    with pytest.raises(ValueError, match="within"), no_denormals():
        raise ValueError("within")
    assert denormals() == 1 << 20
