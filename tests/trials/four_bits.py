"""Trial: any other method, its pools served in four bits a number."""

from dataclasses import dataclass, replace
from typing import ClassVar

from bitfold.extending import Ask, Group, Method, Traits, method_kind, option


@dataclass(frozen=True)
class TrialFourBits(Method):
    """Another method's groups, asked for in four bits."""

    over: str = option("binary-code", help="the method whose pools are kept in four bits")

    name: ClassVar[str] = "trial-four-bits"
    summary: ClassVar[str] = "another method, in four bits a number"
    when: ClassVar[str] = "never: a trial of what methods are written with"
    traits: ClassVar[Traits] = Traits(narrow=False)

    def plan(self, ask: Ask) -> Group:
        """The other method's only group."""
        (group,) = self.groups(ask)
        return group

    def groups(self, ask: Ask) -> tuple[Group, ...]:
        """What the other method makes of the same question."""
        return method_kind(self.over)().groups(replace(ask, numbers="q4"))
