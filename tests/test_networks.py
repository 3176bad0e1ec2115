import pytest
import torch

from bitfold.errors import BitfoldError, UnknownName
from bitfold.nets.building import NETWORKS, build_network, network_options

NAMES = sorted(NETWORKS)


def an_input(rows=6, fields=5, dim=4, numeric=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, fields, dim, generator=generator)
    return vectors, torch.randn(rows, numeric, generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 7])
@pytest.mark.parametrize("numeric", [0, 3])
@pytest.mark.parametrize("fields", [1, 5])
def test_logits_have_one_value_a_row(name, rows, numeric, fields):
    network = build_network(name, fields, 4, numeric)
    logits = network(*an_input(rows, fields, 4, numeric))
    assert logits.shape == (rows,)
    logits.sum().backward()


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_every_input_takes_part(name):
    network = build_network(name, 5, 4, 3)
    vectors, numeric = an_input()
    vectors.requires_grad_()
    numeric.requires_grad_()
    # The numeric weights of logistic regression start at zero: move everything off its start.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    network(vectors, numeric).square().sum().backward()
    for label, tensor in [*network.named_parameters(), ("v", vectors), ("n", numeric)]:
        assert tensor.grad is not None, label
        assert tensor.grad.abs().sum() > 0, label


@pytest.mark.parametrize("name", NAMES)
def test_a_row_does_not_see_its_neighbours(name):
    network = build_network(name, 5, 4, 3).eval()
    vectors, numeric = an_input()
    together = network(vectors, numeric)
    for row in range(len(vectors)):
        alone = network(vectors[row : row + 1], numeric[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_logits_start_near_zero_and_alive(name):
    network = build_network(name, 26, 16, 13)
    vectors = torch.randn(512, 26, 16, generator=torch.Generator().manual_seed(1)) * 0.1
    numeric = torch.randn(512, 13, generator=torch.Generator().manual_seed(2))
    logits = network(vectors, numeric)
    assert logits.abs().mean() < 3
    assert logits.std() > 1e-3


def test_deepfm_equals_the_sum_over_pairs():
    vectors, numeric = an_input(numeric=2)
    network = build_network("deepfm", 5, 4, 2, hidden=(6,))
    rows = torch.cat([vectors, numeric.unsqueeze(2) * network.numeric.directions], dim=1)
    pairs = sum((rows[:, i] * rows[:, j]).sum(1) for i in range(7) for j in range(i))
    linear = rows.flatten(1) @ network.direction
    deep = network.deep(rows.flatten(1)).squeeze(1)
    torch.testing.assert_close(network(vectors, numeric), pairs + linear + deep)


@pytest.mark.parametrize("linear", [True, False])
def test_deepfms_gradients_and_their_gradients(linear):
    network = build_network("deepfm", 3, 2, linear=linear, hidden=(4,)).double()
    vectors = torch.randn(5, 3, 2, dtype=torch.float64, requires_grad=True)
    numeric = torch.empty(5, 0, dtype=torch.float64)
    shallow = build_network("deepfm", 3, 2, linear=linear, deep=False).double()
    assert torch.autograd.gradcheck(lambda v: network(v, numeric), vectors)
    assert torch.autograd.gradgradcheck(lambda v: shallow(v, numeric), vectors)
    if linear:
        direction = shallow.direction
        found = torch.autograd.grad(shallow(vectors, numeric).square().sum(), direction)[0]
        logits = shallow(vectors, numeric).detach()
        torch.testing.assert_close(found, 2 * logits @ vectors.detach().flatten(1))


@pytest.mark.parametrize("sets", [1, 2])
def test_deepfm_compiles_into_one_graph(sets):
    network = build_network("deepfm", 3, 4, 2, sets=sets)
    vectors, numeric = an_input(6, 3 * sets, 4, 2)
    fast = torch.compile(network, fullgraph=True, backend="aot_eager")
    pair = [vectors.clone().requires_grad_() for _ in range(2)]
    for each, model in zip(pair, (fast, network), strict=True):
        model(each, numeric).sum().backward()
    torch.testing.assert_close(pair[0].grad, pair[1].grad)


def test_parts_of_deepfm_can_be_off():
    vectors, numeric = an_input(numeric=0)
    fm = build_network("deepfm", 5, 4, linear=False, deep="false")
    assert fm.direction is None
    assert fm.deep is None
    total = vectors.sum(1)
    expected = 0.5 * (total.square() - vectors.square().sum(1)).sum(1)
    torch.testing.assert_close(fm(vectors, numeric), expected)
    with pytest.raises(BitfoldError, match="no part left"):
        build_network("deepfm", 5, 4, linear=False, deep=False, fm=False)


def test_a_cross_layer_is_dcnv2s():
    vectors, numeric = an_input()
    network = build_network("dcnv2", 5, 4, 3, layers=1, hidden="")
    first = torch.cat([vectors.flatten(1), numeric], dim=1)
    crossed = first * (first @ network.cross[0].weight.T + network.cross[0].bias) + first
    torch.testing.assert_close(network(vectors, numeric), network.out(crossed).squeeze(1))


def test_a_low_rank_is_smaller():
    full, low = (build_network("dcnv2", 26, 16, rank=rank) for rank in (0, 8))
    count = [sum(p.numel() for p in network.cross.parameters()) for network in (full, low)]
    width = 26 * 16
    assert count == [2 * (width * width + width), 2 * (2 * 8 * width + width)]


def test_dlrm_takes_each_pair_once():
    vectors, numeric = an_input(fields=3)
    network = build_network("dlrm", 3, 4, 3)
    seen = []
    network.top[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(vectors, numeric)
    dense = network.bottom(numeric)
    rows = [dense, *vectors.unbind(1)]
    dots = torch.stack([(rows[i] * rows[j]).sum(1) for i in range(4) for j in range(i)], dim=1)
    torch.testing.assert_close(seen[0], torch.cat([dense, dots], dim=1))


def test_logistic_regression_is_a_sum():
    vectors, numeric = an_input(dim=1)
    network = build_network("lr", 5, 1, 3)
    with torch.no_grad():
        network.numeric_weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        network.bias.fill_(0.5)
    expected = vectors.sum((1, 2)) + numeric @ torch.tensor([1.0, 2.0, 3.0]) + 0.5
    torch.testing.assert_close(network(vectors, numeric), expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights_and_the_global_state_stays(name):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, same, other = (build_network(name, 3, 4, 2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    if name != "lr":
        assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["deepfm", "dcnv2", "dlrm"])
def test_dropout_acts_in_training_only(name):
    network = build_network(name, 5, 4, 3, dropout=0.5)
    rows = an_input()
    assert not torch.equal(network(*rows), network(*rows))
    network.eval()
    assert torch.equal(network(*rows), network(*rows))


def test_mistakes_are_named():
    with pytest.raises(UnknownName, match="did you mean 'deepfm'"):
        build_network("deepfn", 3, 4)
    with pytest.raises(UnknownName, match="did you mean 'rank'"):
        build_network("dcnv2", 3, 4, ranks=2)
    with pytest.raises(BitfoldError, match="true or false"):
        build_network("deepfm", 3, 4, fm="maybe")
    with pytest.raises(BitfoldError, match="sizes such as"):
        build_network("deepfm", 3, 4, hidden="12,x")
    with pytest.raises(BitfoldError, match="no units"):
        build_network("deepfm", 3, 4, hidden=(8, 0))
    with pytest.raises(BitfoldError, match="dropout"):
        build_network("deepfm", 3, 4, dropout=1.0)
    assert network_options("lr") == {}
