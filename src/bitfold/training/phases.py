"""A training in phases: which epochs belong to each, and what one leaves to the next.

A method that trains in phases plans anew at the end of each (`Method.advance`). Phases share the
epochs of a training, in whole ones, one at least. A plan says how far it has come: `plan.phase` is
the last phase that has ended, so whoever trains a plan on goes through what is left of it.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from bitfold.config import from_json
from bitfold.embedder.contract import Embedder
from bitfold.embedder.grouped import Grouped
from bitfold.embedding import EmbeddingCollection
from bitfold.errors import BitfoldError
from bitfold.method.base import Method, Phase
from bitfold.method.registry import method_kind
from bitfold.planning.plan import Plan
from bitfold.planning.spec import Group

ONLY = Phase("", 1.0)
"""The one phase of methods that plan once."""


@dataclass(frozen=True)
class Stage:
    """A phase in a training.

    Args:
        phase: what it is.
        until: how many epochs have ended when it has.
        last: whether nothing follows.
    """

    phase: Phase
    until: int
    last: bool = True


def stages(plan: Plan, epochs: int) -> tuple[Stage, ...]:
    """What is left of a plan's phases, over so many epochs; of a method that plans once, one stage.

    Raises:
        BitfoldError: there are fewer epochs than phases, or groups that do not change together.

    Example:
        >>> from bitfold import Field, plan
        >>> made = plan([Field("item", 1000)], 8, method="pep", budget="10x")
        >>> [(stage.phase.name, stage.until) for stage in stages(made, 15)]
        [('search', 8), ('retrain', 15)]
    """
    left = _left(plan)
    if len(left) > epochs:
        names = ", ".join(each.name for each in left)
        raise BitfoldError(
            f"method {plan.method!r} trains in {len(left)} phases",
            got=f"epochs={epochs}",
            expected=f"{len(left)} or more: one for each of {names}",
        )
    total, found, done = sum(each.share for each in left), list[Stage](), 0
    for number, share in enumerate(itertools.accumulate(each.share for each in left)):
        after = len(left) - 1 - number
        until = min(max(round(epochs * share / total), done + 1), epochs - after)
        found.append(Stage(left[number], until, last=not after))
        done = until
    return tuple(found)


def stage_at(every: Sequence[Stage], plan: Plan) -> Stage:
    """The stage in which a plan is trained."""
    ended = [number for number, each in enumerate(every) if each.phase.name == plan.phase]
    return every[ended[-1] + 1] if ended and plan.phase else every[0]


def begun(plan: Plan) -> Plan:
    """The plan that the first phase trains: that of a loop without phases, most often.

    Raises:
        BitfoldError: the method plans beyond the budget.
    """
    groups = []
    for number, group in enumerate(plan.groups):
        part = plan.part(number)
        groups.append(replace(_recipe(group).begin(part), fields=group.fields))
    return _within(replace(plan, groups=tuple(groups)), "before its first phase")


def ended(collection: EmbeddingCollection, phase: Phase) -> Plan:
    """The plan at the end of a phase, of what it trained.

    Raises:
        BitfoldError: the method plans beyond the budget.
    """
    plan, parts = collection.plan, _parts(collection.embedder)
    groups: list[Group] = []
    for number, (group, part) in enumerate(zip(plan.groups, parts, strict=True)):
        recipe = _recipe(group)
        if recipe.phases(group):
            made = recipe.advance(plan.part(number).group, part, phase)
            group = replace(made, fields=group.fields)
        groups.append(group)
    found = replace(plan, groups=tuple(groups), phase=phase.name)
    return _within(found, f"at the end of {phase.name}")


@torch.no_grad()
def next_collection(
    before: EmbeddingCollection, plan: Plan, phase: Phase, *, seed: int | None
) -> EmbeddingCollection:
    """The collection that goes on after a phase.

    Args:
        before: what the phase has trained.
        plan: what it ended in: see `ended`.
        phase: the one that begins. Where it starts fresh, weights are drawn from `seed`: the same
            as before, in tables of the same shape.
        seed: what fresh weights are drawn from.
    """
    device = next((each.device for each in before.parameters()), None)
    made = EmbeddingCollection.from_plan(plan, seed=seed, mode=before.mode, device=device)
    for part, old in zip(_parts(made.embedder), _parts(before.embedder), strict=True):
        same = part.plan.groups == old.plan.groups
        if phase.start == "carry" and same and part.state_dict().keys() == old.state_dict().keys():
            part.load_state_dict(old.state_dict())
        part.inherit(old)
    return made


def _left(plan: Plan) -> Sequence[Phase]:
    """The phases before a plan: those of all groups that have any."""
    found = [phases for phases in map(_phases, plan.groups) if phases]
    if not found:
        return (ONLY,)
    if any(each != found[0] for each in found):
        raise BitfoldError(
            "groups of one plan change their phases together",
            got=" and ".join(", ".join(each.name for each in phases) for phases in found),
            expected="the same phases, with the same shares",
        )
    names = [phase.name for phase in found[0]]
    left = found[0][names.index(plan.phase) + 1 :] if plan.phase in names else found[0]
    return left or (ONLY,)


def _within(plan: Plan, when: str) -> Plan:
    """The plan, held against its budget."""
    if plan.budget is not None and plan.bytes > plan.budget:
        raise BitfoldError(
            f"method {plan.method!r} leaves its budget {when}",
            got=f"{plan.bytes:,} bytes",
            expected=f"{plan.budget:,} at most",
        )
    return plan


def _phases(group: Group) -> tuple[Phase, ...]:
    return tuple(_recipe(group).phases(group))


def _recipe(group: Group) -> Method:
    return from_json(method_kind(group.method), group.options)


def _parts(embedder: Embedder) -> list[Embedder]:
    """The embedder of each group of a plan."""
    found: Any = embedder.parts if isinstance(embedder, Grouped) else [embedder]
    return list(found)
