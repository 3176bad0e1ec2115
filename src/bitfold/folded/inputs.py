"""What modules with folded tables are called with: there a batch's ids may be found beforehand."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from bitfold.folded.joint import Joint
from bitfold.kernels.choice import alone


class Inputs:
    """A hook of a module that shows what it is called with to the joint tables in it.

    It is an object and no function of the module's, so that copies of a model tell their own.
    """

    def __init__(self, joints: list[Joint]) -> None:
        self.joints = joints

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Before a forward."""
        if alone():
            for joint in self.joints:
                joint.called((args, kwargs))


def show_inputs(model: nn.Module, joints: Sequence[Joint]) -> None:
    """Have a model show its inputs to joint tables, and so each part of it that has all of them."""
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
