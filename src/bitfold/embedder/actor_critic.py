"""A soft actor-critic of a few kilobytes, whose whole state is one array of bytes.

Source: Haarnoja, Zhou, Abbeel, Levine, "Soft Actor-Critic: Off-Policy Maximum Entropy Deep
Reinforcement Learning with a Stochastic Actor", ICML 2018, arXiv 1801.01290; the temperature that
is learned is of Haarnoja et al., "Soft Actor-Critic Algorithms and Applications", arXiv 1812.05905.
Twin critics are of Fujimoto, van Hoof, Meger, ICML 2018, arXiv 1802.09477.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import log, pi, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

Floats = NDArray[np.float32]
Layout = dict[str, tuple[type, tuple[int, ...]]]

STARTS = -2.0  # the logarithm of the deviation that fresh actions have, before they are squashed
DEVIATIONS = (-4.0, 1.0)  # between which that logarithm stays
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam


@dataclass(frozen=True)
class Shape:
    """How large an actor-critic is, and how it learns.

    Args:
        inputs: numbers of a state.
        actions: numbers of an action, each between -1 and 1.
        hidden: width of the two hidden layers of each network.
        capacity: transitions that are remembered.
        batch: transitions of a step of learning.
        updates: steps of learning for each new transition.
        discount: what a reward counts one transition later.
        rate: of Adam, for all networks and the temperature.
        follow: how far target critics move towards the critics in a step.
    """

    inputs: int
    actions: int
    hidden: int = 32
    capacity: int = 256
    batch: int = 32
    updates: int = 8
    discount: float = 0.9
    rate: float = 3e-3
    follow: float = 0.02

    @property
    def actor(self) -> tuple[int, ...]:
        """Widths of the actor's layers: means and logarithms of deviations come out."""
        return self.inputs, self.hidden, self.hidden, 2 * self.actions

    @property
    def critic(self) -> tuple[int, ...]:
        """Widths of a critic's layers."""
        return self.inputs + self.actions, self.hidden, self.hidden, 1

    @property
    def layout(self) -> Layout:
        """The arrays that the state consists of."""
        critics = 2 * parameters(self.critic)
        learned = parameters(self.actor) + critics + 1
        return {
            "counters": (np.int64, (4,)),
            "learned": (np.float32, (learned,)),
            "first_moments": (np.float32, (learned,)),
            "second_moments": (np.float32, (learned,)),
            "targets": (np.float32, (critics,)),
            "replay": (np.float32, (self.capacity, 2 * self.inputs + self.actions + 1)),
        }

    @property
    def bytes(self) -> int:
        """Bytes of the whole state: networks, moments, what is remembered, counters.

        Example:
            >>> Shape(inputs=24, actions=6, hidden=16, capacity=64).bytes
            49756
        """
        return sum(np.dtype(kind).itemsize * prod(shape) for kind, shape in self.layout.values())


def parameters(widths: tuple[int, ...]) -> int:
    """How many numbers a network of such layers has.

    Example:
        >>> parameters((2, 3, 1))
        13
    """
    return sum(inputs * outputs + outputs for inputs, outputs in pairwise(widths))


class ActorCritic:
    """Learns which action earns most in a state, and keeps trying others as far as that is sure.

    Every random number follows from the seed and the counters, so that the same bytes go on alike.

    Args:
        shape: how large it is.
        memory: uint8 `[shape.bytes]`, which is written to.
    """

    def __init__(self, shape: Shape, memory: NDArray[np.uint8]) -> None:
        self.shape, at = shape, 0
        self.views: dict[str, NDArray[Any]] = {}
        for name, (kind, size) in shape.layout.items():
            end = at + np.dtype(kind).itemsize * prod(size)
            self.views[name] = memory[at:end].view(kind).reshape(size)
            at = end

    @property
    def seen(self) -> int:
        """How many transitions it has been told."""
        return int(self.views["counters"][2])

    def begin(self, seed: int) -> None:
        """Forget everything; fresh networks, drawn from a seed."""
        for each in self.views.values():
            each[:] = 0
        self.views["counters"][0] = seed
        rng = np.random.default_rng(abs(seed))
        shape = self.shape
        actor = _fresh(rng, shape.actor, last=0.01)
        critics = [_fresh(rng, shape.critic) for _ in range(2)]
        self.views["learned"][:] = np.concatenate([actor, *critics, np.zeros(1, np.float32)])
        self.views["targets"][:] = np.concatenate(critics)

    def act(self, state: Floats) -> Floats:
        """An action for a state `[inputs]`, drawn from the policy: `[actions]`."""
        noise = self._random(1).standard_normal((1, self.shape.actions), np.float32)
        with torch.inference_mode(False), torch.no_grad():
            actor, _, _ = self._parts(torch.from_numpy(self.views["learned"]))
            action, _ = self._sample(actor, torch.from_numpy(state[None]), torch.from_numpy(noise))
        found: Floats = action[0].numpy().copy()
        return found

    def mean(self, state: Floats) -> Floats:
        """The middle of the policy's actions for a state."""
        with torch.inference_mode(False), torch.no_grad():
            actor, _, _ = self._parts(torch.from_numpy(self.views["learned"]))
            out = _run(actor, torch.from_numpy(state[None, None]), self.shape.actor)[0, 0]
        found: Floats = torch.tanh(out[: self.shape.actions]).numpy()
        return found

    def tell(self, state: Floats, action: Floats, reward: float, after: Floats) -> None:
        """Remember a transition, and learn from those that are remembered."""
        counters, replay = self.views["counters"], self.views["replay"]
        row = np.concatenate([state, action, [reward], after]).astype(np.float32)
        replay[int(counters[2]) % self.shape.capacity] = row
        counters[2] += 1
        rng = self._random(2)
        for _ in range(self.shape.updates):
            self._learn(rng)

    def _random(self, what: int) -> np.random.Generator:
        """A generator that no other call has had."""
        counters = self.views["counters"]
        counters[1] += 1
        return np.random.default_rng([abs(int(counters[0])), int(counters[1]), what])

    def _parts(self, learned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The actor `[1, P]`, the critics `[2, P]`, the logarithm of the temperature."""
        actor = parameters(self.shape.actor)
        return learned[:actor][None], learned[actor:-1].view(2, -1), learned[-1]

    def _sample(self, actor: Tensor, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[n, actions]` of states, and the logarithms of their densities `[n]`."""
        mean, spread = _run(actor, states[None], self.shape.actor)[0].chunk(2, 1)
        spread = (spread + STARTS).clamp(*DEVIATIONS)
        raw = mean + spread.exp() * noise
        density = -0.5 * noise.square() - spread - 0.5 * log(2 * pi)
        squashed = 2 * (log(2) - raw - F.softplus(-2 * raw))  # log(1 - tanh(raw)**2)
        return torch.tanh(raw), (density - squashed).sum(1)

    def _learn(self, rng: np.random.Generator) -> None:
        """A step of the critics, the actor and the temperature."""
        shape = self.shape
        rows = rng.integers(min(self.seen, shape.capacity), size=shape.batch)
        noises = rng.standard_normal((2, shape.batch, shape.actions), np.float32)
        drawn, again = torch.from_numpy(noises)
        sizes = [shape.inputs, shape.actions, 1, shape.inputs]
        with torch.inference_mode(False), torch.enable_grad():
            replay = torch.from_numpy(self.views["replay"][rows])
            states, actions, rewards, after = torch.split(replay, sizes, 1)
            learned = torch.from_numpy(self.views["learned"]).clone().requires_grad_()
            actor, critics, heat = self._parts(learned)
            with torch.no_grad():
                following, density = self._sample(actor, after, drawn)
                targets = torch.from_numpy(self.views["targets"]).view(2, -1)
                later = _judged(targets, after, following, shape.critic).amin(0)
                goal = rewards[:, 0] + shape.discount * (later - heat.exp() * density)
            loss = (_judged(critics, states, actions, shape.critic) - goal).square().mean(1).sum()
            taken, density = self._sample(actor, states, again)
            worth = _judged(critics.detach(), states, taken, shape.critic).amin(0)
            loss = loss + (heat.detach().exp() * density - worth).mean()
            loss = loss - heat * (density.detach() - shape.actions).mean()
            (slope,) = torch.autograd.grad(loss, learned)
        self._step(slope.numpy())

    def _step(self, slope: Floats) -> None:
        """Adam, and targets that follow."""
        views, shape = self.views, self.shape
        views["counters"][3] += 1
        times = int(views["counters"][3])
        first, second = views["first_moments"], views["second_moments"]
        first += np.float32(1 - BETAS[0]) * (slope - first)
        second += np.float32(1 - BETAS[1]) * (slope * slope - second)
        rate = shape.rate * (1 - BETAS[1] ** times) ** 0.5 / (1 - BETAS[0] ** times)
        views["learned"] -= np.float32(rate) * first / (np.sqrt(second) + np.float32(EPSILON))
        critics = views["learned"][parameters(shape.actor) : -1]
        views["targets"] += np.float32(shape.follow) * (critics - views["targets"])


def _fresh(rng: np.random.Generator, widths: tuple[int, ...], last: float = 1.0) -> Floats:
    """Numbers of a network: even draws whose vectors keep their length, no biases."""
    parts = []
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        reach = (3 / inputs) ** 0.5 * (last if number == len(widths) - 2 else 1.0)
        parts += [rng.uniform(-reach, reach, inputs * outputs), np.zeros(outputs)]
    return np.concatenate(parts).astype(np.float32)


def _run(networks: Tensor, x: Tensor, widths: tuple[int, ...]) -> Tensor:
    """What `k` networks `[k, P]` make of `[k, n, inputs]`: `[k, n, outputs]`."""
    at = 0
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        end = at + inputs * outputs
        matrix = networks[:, at:end].reshape(-1, inputs, outputs)
        x = torch.baddbmm(networks[:, None, end : end + outputs], x, matrix)
        at = end + outputs
        if number < len(widths) - 2:
            x = torch.relu(x)
    return x


def _judged(critics: Tensor, states: Tensor, actions: Tensor, widths: tuple[int, ...]) -> Tensor:
    """What two critics think of actions: `[2, n]`."""
    both = torch.cat([states, actions], 1).expand(2, -1, -1)
    return _run(critics, both, widths).squeeze(2)
