"""What bitfold makes: the names that it writes into a folder, so that it removes no others.

A kind of output lists its files as patterns, `/` between a folder and its files. A file that no
pattern names is somebody else's: a folder that holds one is not replaced, and where a folder of
ours must go, such a file stays.
"""

import fnmatch
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bitfold.errors import BitfoldError

# A temporary file beside its place (bitfold.files.atomic), and a hidden folder (hiding.hidden).
_PART = re.compile(r"\.(?P<name>.+)\.\d+\.part")
_HIDDEN = re.compile(r"\..+\.bitfold")


@dataclass(frozen=True)
class Kind:
    """One kind of output folder.

    Args:
        what: its name, as `run`.
        names: patterns of all files that bitfold writes into it.
        begun: whether a folder is one, finished or not.
    """

    what: str
    names: tuple[str, ...]
    begun: Callable[[Path], bool]

    def within(self, folder: str) -> tuple[str, ...]:
        """Its patterns, for a kind that holds one in `folder`."""
        return tuple(f"{folder}/{name}" for name in self.names)

    def owns(self, name: str) -> bool:
        """Whether a file of this relative name is bitfold's.

        Example:
            >>> log = Kind("log", ("log.json", "train/*.parquet"), Path.is_dir)
            >>> log.owns("train/00000.parquet"), log.owns(".log.json.71.part"), log.owns(".git")
            (True, True, False)
        """
        *folders, last = name.split("/")
        if any(_HIDDEN.fullmatch(folder) for folder in folders):
            return True
        part = _PART.fullmatch(last)
        pieces = [*folders, part["name"] if part else last]
        return any(_matches(pieces, pattern.split("/")) for pattern in self.names)

    def foreign(self, folder: Path) -> list[str]:
        """The files and empty folders in `folder` that bitfold did not make, sorted."""
        return sorted(
            name
            for name, is_folder in _walk(folder)
            if not (self._leads(name) if is_folder else self.owns(name))
        )

    def _leads(self, name: str) -> bool:
        """Whether an empty folder of this name is bitfold's."""
        pieces = name.split("/")
        if any(_HIDDEN.fullmatch(piece) for piece in pieces):
            return True
        parents = (pattern.split("/")[: len(pieces)] for pattern in self.names if "/" in pattern)
        return any(len(parent) == len(pieces) and _matches(pieces, parent) for parent in parents)

    def check_no_foreign(self, folder: Path) -> None:
        """Refuse to replace a folder that holds other people's files.

        Raises:
            BitfoldError: which names them.
        """
        found = self.foreign(folder)
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise BitfoldError(
                f"{folder} holds files that bitfold did not make, so it is not replaced",
                got=", ".join(found[:5]) + more,
                expected=f"a {self.what} and nothing else",
                fix="move them elsewhere, or name another output",
            )

    def remove(self, folder: Path) -> None:
        """Remove what bitfold made in `folder`, and the folder if nothing else is in it."""
        foreign = self.foreign(folder)
        if not foreign:
            shutil.rmtree(folder, ignore_errors=True)
            return
        kept = {os.path.join(folder, name) for name in foreign}  # noqa: PTH118
        for root, folders, files in os.walk(folder, topdown=False):
            for name in (*files, *folders):
                path = Path(root, name)
                if str(path) in kept:
                    continue
                if path.is_dir() and not path.is_symlink():
                    if not any(path.iterdir()):
                        path.rmdir()
                else:
                    path.unlink(missing_ok=True)


def _matches(pieces: list[str], pattern: list[str]) -> bool:
    return len(pieces) == len(pattern) and all(map(fnmatch.fnmatchcase, pieces, pattern))


def _walk(folder: Path) -> Iterator[tuple[str, bool]]:
    """Relative names of all files and (True) of empty folders; links are not followed."""
    for root, folders, files in os.walk(folder):
        here = Path(root).relative_to(folder)
        links = [name for name in folders if Path(root, name).is_symlink()]
        if not folders and not files and here.parts:
            yield here.as_posix(), True
        for name in (*files, *links):
            yield (here / name).as_posix(), False
