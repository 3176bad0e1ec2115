"""The plugin files of a run: methods that it needs and that no installation has."""

from collections.abc import Iterable
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.files import sha256
from bitfold.method.registry import PluginFile, method_kinds, plugin_files
from bitfold.notes import note


def check_plugins(
    run: object, recorded: Iterable[PluginFile], names: Iterable[str], *, same: bool = False
) -> None:
    """See to it that the methods of a run are there, and are what they were.

    Args:
        run: its folder, for what is said.
        recorded: the plugin files that it was trained with.
        names: the methods that it needs.
        same: whether a file that has changed is an error, as where weights are trained on, or a
            note, as where they are read.

    Raises:
        BitfoldError: a method of a plugin is not loaded, or has changed where it may not.
    """
    recorded = tuple(recorded)
    if not recorded:
        return
    wanted, known = set(names), method_kinds()
    loaded = {name: file for file in plugin_files() for name in file.methods}
    for file in recorded:
        needed = sorted(wanted.intersection(file.methods))
        missing = [name for name in needed if name not in known]
        if missing:
            raise _missing(run, file, missing[0])
        others = {loaded[name] for name in needed if name in loaded}
        changed = [other for other in others if other.sha256 != file.sha256]
        if changed and same:
            raise BitfoldError(
                f"the plugin of {run} has changed since its training began",
                got=f"{changed[0].path}, SHA-256 {changed[0].sha256}",
                expected=f"SHA-256 {file.sha256}",
                fix="give the file back its content, or train anew with --force",
            )
        for other in changed:
            note(
                f"{run} was trained with another content of the plugin {file.path}; "
                f"{other.path} has SHA-256 {other.sha256[:12]}..., it had {file.sha256[:12]}..."
            )


def _missing(run: object, file: PluginFile, name: str) -> BitfoldError:
    there = _digest(file.path)
    state = {None: "which is not there any more", file.sha256: "which is as it was"}.get(
        there, "which has changed since"
    )
    place = "FILE" if there is None else file.path
    return BitfoldError(
        f"{run} needs method {name!r} of a plugin that is not loaded",
        got=f"methods {', '.join(method_kinds())}",
        expected=f"the plugin {file.path}, {state} (SHA-256 {file.sha256})",
        fix=f"say --plugin {place}; in Python bitfold.load_plugin({place!r})",
    )


def _digest(path: str) -> str | None:
    try:
        return sha256(Path(path))
    except OSError:
        return None
