"""Every method: averages of models keep their addresses, or are refused by name."""

import pytest
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from bitfold import BitfoldError
from bitfold.address.fingerprint import check_fingerprint
from bitfold.testing.cases import Case

AVERAGES = {
    "ema": {"multi_avg_fn": get_ema_multi_avg_fn(0.999)},
    "ema by hand": {"avg_fn": lambda old, new, count: old * 0.9 + new * 0.1},
    "swa": {"multi_avg_fn": get_swa_multi_avg_fn()},
    "default": {},
}
SOUPS = {
    "sum and divide": lambda parts: sum(parts) / len(parts),
    "mean of floats": lambda parts: torch.stack([part.float() for part in parts]).mean(0),
    "mean of doubles": lambda parts: torch.stack([part.double() for part in parts]).mean(0),
    "interpolated": lambda parts: sum(part * (1 / len(parts)) for part in parts),
}


@pytest.mark.parametrize("count", [2, 3, 5, 30])
@pytest.mark.parametrize("name", SOUPS)
def test_a_soup_of_state_dicts(name, count):
    case = Case("binary-code", {"fusion": "mean", "strategy": "skip"})
    models = [case.collection() for _ in range(count)]
    with torch.no_grad():
        for step, model in enumerate(models):
            for weight in model.parameters():
                weight.mul_(1 + step)
    states = [model.state_dict() for model in models]
    soup = {key: SOUPS[name]([state[key] for state in states]) for key in states[0]}
    mixed = case.collection()
    mixed.load_state_dict(soup)
    torch.testing.assert_close(
        mixed(case.ids(9)), sum(model(case.ids(9)) for model in models) / count
    )
    assert all(
        torch.equal(value, states[0][key])
        for key, value in mixed.state_dict().items()
        if key.endswith("fingerprint")
    )


@pytest.mark.parametrize("name", SOUPS)
@pytest.mark.first_form
def test_a_soup_of_two_addresses_is_refused(case, name):
    fields = [*case.fields[1:], case.fields[0]]
    one, other = case.collection(), case.collection(fields)
    if "fingerprint" not in one.plan.by_kind:
        pytest.skip("no address to mistake")
    key = "embedder.fingerprint"
    soup = dict(one.state_dict())
    if key not in soup:
        pytest.skip("each of its groups has a mark of its own")
    soup[key] = SOUPS[name]([soup[key], other.state_dict()[key]])
    with pytest.raises(BitfoldError, match="another address"):
        case.collection().load_state_dict(soup)


@pytest.mark.parametrize("number", [1, -1, 7, 2**62 + 12345, 2**63 - 1, -(2**63), 0])
def test_an_average_of_a_fingerprint_with_itself_is_the_same_one(number):
    mark = torch.tensor(number)
    for count in (1, 2, 3, 7, 64):
        total = mark * count  # of 64 bits: it may leave them
        for average in (total / count, total // count, (mark.double() * count) / count):
            check_fingerprint(average, number)
    check_fingerprint(mark.float().mul(0.999).add(mark.float() * 0.001), number)


@pytest.mark.parametrize(
    "wrong",
    [torch.tensor(2**62 + 5000), torch.zeros(2), torch.tensor(1.0), torch.tensor(float("nan"))]
    + [torch.tensor(2**62).to(dtype) for dtype in (torch.float16, torch.bfloat16, torch.int8)],
    ids=str,
)
def test_other_fingerprints_are_refused(wrong):
    expected = 2**62 + 2**48 + 1
    with pytest.raises(BitfoldError, match="another address"):
        check_fingerprint(wrong, expected)
