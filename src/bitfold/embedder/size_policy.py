"""What decides distributions of sizes: a soft actor-critic that is paid by the loss, or a rule."""

import numpy as np
from numpy.typing import NDArray

from bitfold.embedder.actor_critic import ActorCritic, Shape

POLICIES = ("scall", "static", "frequency", "random")
Floats = NDArray[np.float32]

_HEADER = 8  # int64 and float64 numbers that every policy keeps
_KEEPS = 0.8  # of the mean and the spread of losses, at each change
_MOST = 5.0  # spreads that a reward is at most


class SizePolicy:
    """Chooses the parameters of distributions of sizes; its whole state is one array of bytes.

    A reward is how far the mean loss since the last change lies below the mean of those before, in
    their spread: a loss that falls by itself pays all actions alike.

    Args:
        policy: one of `POLICIES`; those that learn nothing keep counters alone.
        shape: of the actor-critic.
        memory: uint8 `[self.size(policy, shape)]`, which is written to.

    Example:
        >>> shape = Shape(inputs=4, actions=2)
        >>> memory = np.zeros(SizePolicy.size("random", shape), np.uint8)
        >>> policy = SizePolicy("random", shape, memory)
        >>> policy.begin(7)
        >>> action = policy.choose(np.zeros(4, np.float32))
        >>> action.shape, bool(abs(action).max() <= 1)
        ((2,), True)
    """

    def __init__(self, policy: str, shape: Shape, memory: NDArray[np.uint8]) -> None:
        self.policy, self.shape = policy, shape
        header = 8 * _HEADER
        self.whole = memory[: header // 2].view(np.int64)  # seed, changes, any action, steps
        self.sums = memory[header // 2 : header].view(np.float64)  # losses, steps, mean, spread
        self.critic: ActorCritic | None = None
        if policy == "scall":
            self.critic = ActorCritic(shape, memory[header : header + shape.bytes])
            self.last = memory[header + shape.bytes :].view(np.float32)

    @staticmethod
    def size(policy: str, shape: Shape) -> int:
        """Bytes of the state."""
        learned = shape.bytes + 4 * (shape.inputs + shape.actions)
        return 8 * _HEADER + learned * (policy == "scall")

    def begin(self, seed: int) -> None:
        """Forget everything."""
        self.whole[:], self.sums[:] = 0, 0
        self.whole[0] = seed
        if self.critic is not None:
            self.critic.begin(seed)
            self.last[:] = 0

    @property
    def changes(self) -> int:
        """How often it has chosen."""
        return int(self.whole[1])

    @property
    def steps(self) -> int:
        """Steps since it has last chosen."""
        return int(self.whole[3])

    def count_step(self) -> None:
        """A step was made."""
        self.whole[3] += 1

    def hear(self, loss: float) -> None:
        """Take the loss of a step."""
        if np.isfinite(loss):
            self.sums[0] += loss
            self.sums[1] += 1

    def choose(self, state: Floats) -> Floats:
        """An action `[actions]`, each number between -1 and 1, for a state `[inputs]`.

        Where losses were heard since the last one, it is first told what that earned.
        """
        reward = self._reward()
        self.whole[1] += 1
        self.whole[3] = 0
        if self.policy == "random":
            rng = np.random.default_rng([abs(int(self.whole[0])), self.changes])
            drawn: Floats = rng.uniform(-1, 1, self.shape.actions).astype(np.float32)
            return drawn
        if self.critic is None:
            return np.zeros(self.shape.actions, np.float32)
        inputs = self.shape.inputs
        if self.whole[2] and reward is not None:
            self.critic.tell(self.last[:inputs], self.last[inputs:], reward, state)
        action = self.critic.act(state)
        self.last[:] = np.concatenate([state, action])
        self.whole[2] = 1
        return action

    def _reward(self) -> float | None:
        """What the losses since the last change say; None where none were heard."""
        total, steps, mean, spread = self.sums.tolist()
        if not steps:
            return None
        loss = total / steps
        self.sums[:2] = 0
        if not self.changes or (mean, spread) == (0.0, 0.0):
            self.sums[2:] = loss, abs(loss) / 100
            return 0.0
        reward = (mean - loss) / max(spread, 1e-12)
        self.sums[2] = _KEEPS * mean + (1 - _KEEPS) * loss
        self.sums[3] = _KEEPS * spread + (1 - _KEEPS) * abs(mean - loss)
        return float(np.clip(reward, -_MOST, _MOST))
