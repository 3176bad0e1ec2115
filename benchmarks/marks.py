"""Tables between the marks of a page."""

from pathlib import Path

from bitfold.errors import BitfoldError


def write_between(page: Path, mark: str, text: str) -> None:
    """Put a text between the two places of a page where a mark stands alone on a line."""
    before, _, rest = page.read_text(encoding="utf-8").partition(f"{mark}\n")
    _, found, after = rest.partition(f"{mark}\n")
    if not found:
        raise BitfoldError(f"{page} has no marks", got="none", expected=f"{mark}, twice")
    page.write_text(f"{before}{mark}\n{text}\n{mark}\n{after}", encoding="utf-8")
