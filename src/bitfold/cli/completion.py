"""What the shell offers for the value of an option: methods, networks, formats, other choices."""

from click.shell_completion import CompletionItem

from bitfold.cli.settings import Word
from bitfold.method.names import known_names

METHODS = ("method", "methods")


def offered(word: Word, begun: str) -> list[CompletionItem]:
    """The values of an option that go on from what is typed.

    Args:
        word: the option.
        begun: what is typed of its value; of a list, entries before the last comma stay.
    """
    names = known_names() if word.name in METHODS else list(word.choices or ())
    if not names:
        return []
    before, comma, last = begun.rpartition(",") if word.listed else ("", "", begun)
    taken = before.split(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in names
        if name.startswith(last) and name not in taken
    ]
