"""The actor-critic by hand: gradients, memory, and a bandit that it learns."""

import numpy as np
import pytest
import torch

from bitfold.embedder import actor_critic
from bitfold.embedder.actor_critic import ActorCritic, Shape, parameters
from bitfold.embedder.size_policy import POLICIES, SizePolicy
from bitfold.embedder.sizes import dealt, even_shares, ranked

SMALL = Shape(inputs=2, actions=2, hidden=16, capacity=32, batch=16, updates=4)


def begun(shape=SMALL, seed=3):
    memory = np.zeros(shape.bytes, np.uint8)
    critic = ActorCritic(shape, memory)
    critic.begin(seed)
    return critic, memory


def numbers(*values):
    return np.array(values, np.float32)


def test_a_network_is_its_layers():
    widths = (2, 3, 1)
    first, bias = torch.tensor([[1.0, -1, 2], [0, 1, 1]]), torch.tensor([0.0, 1, -9])
    last, end = torch.tensor([2.0, 3, 5]), torch.tensor([0.5])
    network = torch.cat([first.flatten(), bias, last, end])[None]
    assert network.shape[1] == parameters(widths) == 13
    out = actor_critic._run(network, torch.tensor([[[1.0, 2]]]), widths)
    assert out.item() == 2 * 1 + 3 * 2 + 5 * 0 + 0.5  # relu(1), relu(-1 + 2 + 1), relu(4 - 9)


def test_densities_are_those_of_squashed_actions():
    """As torch's own distributions have them."""
    critic, _ = begun()
    torch.manual_seed(0)
    actor = torch.randn(1, parameters(SMALL.actor)) * 0.5
    states, noise = torch.randn(7, 2), torch.randn(7, 2)
    actions, density = critic._sample(actor, states, noise)
    mean, spread = actor_critic._run(actor, states[None], SMALL.actor)[0].chunk(2, 1)
    spread = (spread + actor_critic.STARTS).clamp(*actor_critic.DEVIATIONS)
    normal = torch.distributions.Normal(mean, spread.exp())
    squashed = torch.distributions.TransformedDistribution(
        normal, [torch.distributions.TanhTransform(cache_size=1)]
    )
    raw = mean + spread.exp() * noise
    expected = normal.log_prob(raw).sum(1) - torch.log1p(-torch.tanh(raw).square()).sum(1)
    torch.testing.assert_close(actions, torch.tanh(raw))
    torch.testing.assert_close(density, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(density, squashed.log_prob(actions).sum(1), rtol=1e-2, atol=1e-2)


def test_adam_is_torchs():
    critic, _ = begun()
    learned = torch.nn.Parameter(torch.from_numpy(critic.views["learned"].copy()))
    optimizer = torch.optim.Adam([learned], lr=SMALL.rate)
    rng = np.random.default_rng(0)
    for _ in range(5):
        slope = rng.standard_normal(len(learned)).astype(np.float32)
        critic._step(slope)
        learned.grad = torch.from_numpy(slope)
        optimizer.step()
    torch.testing.assert_close(
        torch.from_numpy(critic.views["learned"]), learned.detach(), rtol=1e-4, atol=1e-5
    )


def test_the_oldest_transition_is_forgotten():
    critic, _ = begun(Shape(inputs=2, actions=1, hidden=2, capacity=2, updates=0))
    for number in range(3):
        critic.tell(numbers(number, 0), numbers(0.5), -number, numbers(0, number))
    expected = [[2, 0, 0.5, -2, 0, 2], [1, 0, 0.5, -1, 0, 1]]
    assert critic.views["replay"].tolist() == expected
    assert critic.seen == 3


def test_the_same_bytes_go_on_alike_and_another_seed_otherwise():
    def told(critic, times):
        return [
            (critic.tell(numbers(1, 0), critic.act(numbers(1, 0)), 1.0, numbers(0, 1)))
            for _ in range(times)
        ]

    (one, memory), (other, _) = begun(), begun(seed=4)
    told(one, 3)
    copy = memory.copy()
    told(one, 2)
    again = ActorCritic(SMALL, copy)
    told(again, 2)
    assert np.array_equal(copy, memory)
    before = torch.get_rng_state()
    assert not np.array_equal(one.act(numbers(1, 0)), other.act(numbers(1, 0)))
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns_what_each_state_pays():
    """Actions pay by how near they come to one that depends on the state."""
    shape = Shape(inputs=2, actions=2, hidden=32, capacity=256, updates=8, discount=0.0, rate=1e-2)
    critic, _ = begun(shape)
    goals = {0: numbers(0.6, -0.6), 1: numbers(-0.6, 0.6)}
    rng = np.random.default_rng(0)
    state = int(rng.integers(2))
    for _ in range(120):
        seen = np.eye(2, dtype=np.float32)[state]
        action = critic.act(seen)
        reward = -4 * float(np.square(action - goals[state]).sum())
        state = int(rng.integers(2))
        critic.tell(seen, action, reward, np.eye(2, dtype=np.float32)[state])
    for which, goal in goals.items():
        found = critic.mean(np.eye(2, dtype=np.float32)[which])
        assert np.abs(found - goal).max() < 0.35


def played(policy, changes=80):
    """What share of 100 pieces the first group of ids gets in the end, where it alone matters.

    Two distributions of 50 ids and 4 pieces each; the loss falls with what the first one gets.
    """
    shape = Shape(inputs=4, actions=4, updates=8, rate=1e-2, discount=0.0)
    made = SizePolicy(policy, shape, np.zeros(SizePolicy.size(policy, shape), np.uint8))
    made.begin(1)
    shares = []
    for _ in range(changes):
        action = made.choose(np.zeros(4, np.float32))
        wanted = [
            ranked(even_shares(50), 4.0 ** action[2 * k], 16.0 ** action[2 * k + 1])
            for k in range(2)
        ]
        sizes = dealt(np.concatenate(wanted), 4, 100)
        shares.append(sizes[:50].sum() / 100)
        for _ in range(3):
            made.hear(1.0 - shares[-1])
    return float(np.mean(shares[-20:]))


def test_the_policy_favours_the_ids_that_pay():
    assert played("scall") > 0.75
    assert played("static") == 0.5
    assert 0.3 < played("random") < 0.7


def test_a_policy_is_paid_by_losses_below_those_before():
    shape = Shape(inputs=1, actions=2)
    made = SizePolicy("scall", shape, np.zeros(SizePolicy.size("scall", shape), np.uint8))
    made.begin(0)
    state, paid = np.zeros(1, np.float32), []
    for losses in ([], [2.0, 4.0], [1.0], [float("nan")], [1.0]):
        for loss in losses:
            made.hear(loss)
        made.choose(state)
        paid.append(float(made.critic.views["replay"][max(made.critic.seen - 1, 0), 3]))
    assert made.critic.seen == 3  # nothing is told before an action, or where no loss was heard
    assert paid[1] == 0.0  # the first loss is what others are held against: 3, spread .03
    assert paid[2] == 5.0  # 1 lies 2 below, at most 5 spreads
    assert paid[3] == 5.0
    mean, spread = 0.8 * 3 + 0.2 * 1, 0.8 * 0.03 + 0.2 * 2
    assert paid[4] == pytest.approx((mean - 1) / spread)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_its_bytes(policy):
    shape = Shape(inputs=3, actions=2, hidden=4, capacity=5, batch=4, updates=1)
    memory = np.zeros(SizePolicy.size(policy, shape), np.uint8)
    made = SizePolicy(policy, shape, memory)
    made.begin(5)
    kept = []
    for number in range(6):
        if number == 3:
            kept = memory.copy()
        made.hear(1.0 / (number + 1))
        last = made.choose(np.full(3, number, np.float32))
    again = SizePolicy(policy, shape, kept)
    for number in range(3, 6):
        again.hear(1.0 / (number + 1))
        same = again.choose(np.full(3, number, np.float32))
    assert np.array_equal(last, same)
    assert np.array_equal(memory, kept)
    assert (len(memory) == 64) == (policy != "scall")
