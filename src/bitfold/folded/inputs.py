"""What modules with folded tables are called with: there a batch's ids may be found beforehand."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from bitfold.folded.joint import Joint
from bitfold.kernels.choice import alone

IDLE = 16
"""Forwards in which nobody wants a hook, after which it goes."""


class Inputs:
    """A hook of a module that shows what it is called with to the joint tables in it.

    It takes itself away when all of them find their ids in memory without it.

    It is an object and no function of the module's, so that copies of a model tell their own.
    """

    def __init__(self, joints: list[Joint]) -> None:
        self.joints, self.idle = joints, 0

    def __call__(self, module: Any, args: Any, kwargs: Any) -> None:
        """Before a forward."""
        if not alone():
            return
        wanted = False
        for joint in self.joints:
            wanted |= joint.called((args, kwargs))
        self.idle = 0 if wanted else self.idle + 1
        if self.idle >= IDLE:  # a hook costs a row's forward a tenth of its time
            _take_away(module)


def show_inputs(model: nn.Module, joints: Sequence[Joint]) -> None:
    """Have a model show its inputs to joint tables, and so each part of it that has all of them."""
    for module in model.modules():
        _take_away(module)  # of before: the joint tables may be others
    within: dict[str, list[Joint]] = {}
    for joint in joints:
        places = [
            path.split(".")[:-1]
            for path, module in model.named_modules()
            if module.__dict__.get("joint") is joint
        ]
        if len(places) < 2:
            continue
        above: list[str] = []
        within.setdefault("", []).append(joint)
        for names in zip(*places, strict=False):
            if len(set(names)) > 1:
                break
            above.append(names[0])
            within.setdefault(".".join(above), []).append(joint)
    for path, mine in within.items():
        model.get_submodule(path).register_forward_pre_hook(Inputs(mine), with_kwargs=True)


def _take_away(module: nn.Module) -> None:
    """Take a module's hook of this kind away; it has one at most."""
    for key, hook in [*module._forward_pre_hooks.items()]:
        if isinstance(hook, Inputs):
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
