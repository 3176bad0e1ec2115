"""What the shell offers for the value of an option: methods, networks, formats, other choices."""

from click.shell_completion import CompletionItem

from bitfold.method.names import known_names
from bitfold.settings import Option

METHODS = ("method", "methods")


def offered(option: Option, begun: str) -> list[CompletionItem]:
    """The values of an option that go on from what is typed.

    Args:
        option: the option.
        begun: what is typed of its value; of a list, entries before the last comma stay.
    """
    names = known_names() if option.name in METHODS else list(option.choices or ())
    if not names:
        return []
    before, comma, last = begun.rpartition(",") if option.listed else ("", "", begun)
    taken = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in taken
    ]
