"""Progress of the public functions: Rich bars in a terminal and in a notebook, else nothing."""

import io
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from bitfold.progress import Progress, silent

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

Drawing: TypeAlias = "Progress | Callable[..., None] | bool | None"
"""None or True: bars where they can be seen; False: none; or a listener of the caller's."""

NOTEBOOK_SECONDS = 0.5


@contextmanager
def listening(progress: Drawing, keep: Collection[str] | None = None) -> Iterator[Progress]:
    """The listener that an argument `progress` asks for, while the block runs.

    Args:
        progress: None or True draws bars on a terminal or in a notebook and nothing into a file;
            False draws nothing; a function is told itself.
        keep: the stages whose bars stay once another begins; None keeps all.
    """
    if callable(progress):
        yield progress
        return
    if progress is False or not (in_notebook() or _terminal()):
        yield silent
        return
    try:
        from bitfold.bars import Bars, columns, drawing
    except ModuleNotFoundError:  # without the packages of bitfold[train] there are no bars
        yield silent
        return
    if not in_notebook():
        with drawing(keep) as bars:
            yield bars
        return
    from rich.progress import Progress as Rich

    rich = Rich(*columns(), auto_refresh=False)
    shown = Notebook(Bars(keep, rich), rich)
    try:
        yield shown
    finally:
        shown.draw()


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def _terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no stderr, or a closed one
        return False


class Notebook:
    """A notebook's listener: the bars as HTML in one output, drawn anew now and then."""

    def __init__(self, bars: Progress, rich: "RichProgress") -> None:
        self._bars, self._rich = bars, rich
        self._drawn = -NOTEBOOK_SECONDS
        self._handle: Any = None

    def __call__(self, stage: str, done: int, total: int | None = None, **facts: object) -> None:
        """Move the stage's bar."""
        self._bars(stage, done, total, **facts)
        if done == total or time.monotonic() - self._drawn >= NOTEBOOK_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Show the bars as they are."""
        from IPython.display import HTML, display  # type: ignore[import-not-found,unused-ignore]
        from rich.console import Console

        self._drawn = time.monotonic()
        console = Console(file=io.StringIO(), record=True, force_jupyter=False, width=110)
        console.print(self._rich.get_renderable())
        code = console.export_html(inline_styles=True, code_format="{code}")
        made = HTML(f'<pre style="line-height:1.2">{code}</pre>')
        if self._handle is None:
            self._handle = display(made, display_id=True)
        else:
            self._handle.update(made)
