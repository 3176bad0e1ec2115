"""Several strategies over one log: a stream each, side by side in one folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bitfold.data.config import DataConfig
from bitfold.errors import BitfoldError, unknown_name
from bitfold.runs.manifest import CONFIG
from bitfold.runs.options import TrainConfig
from bitfold.streaming.config import STRATEGIES, StreamConfig
from bitfold.streaming.cutting import Source
from bitfold.streaming.fit import Stream, stream
from bitfold.streaming.record import FILE


def check_strategies(names: Sequence[str]) -> list[str]:
    """The strategies, each once.

    Raises:
        BitfoldError: there are none, or one that does not exist.

    Example:
        >>> check_strategies(["replay", "finetune", "replay"])
        ['replay', 'finetune']
    """
    for name in names:
        if name not in STRATEGIES:
            raise unknown_name("strategy", name, STRATEGIES)
    if not names:
        raise BitfoldError(
            "there are no strategies", got="none", expected=f"some of {', '.join(STRATEGIES)}"
        )
    return list(dict.fromkeys(names))


def streams(
    names: Sequence[str],
    paths: Source | str | Path,
    data: DataConfig,
    train: TrainConfig,
    config: StreamConfig,
    out: str | Path,
    **how: Any,
) -> list[Stream]:
    """Go through a log once with each strategy, each into `out/NAME`.

    Args:
        names: the strategies, in this order.
        paths: as for `stream`, and so are `data`, `train`, `config` and what follows.
        out: a folder of runs.

    Raises:
        BitfoldError: as for `stream`; or `out` is a run itself.
    """
    names, out = check_strategies(names), Path(out)
    if (out / CONFIG).exists():
        raise BitfoldError(
            f"{out} is a run",
            got=f"{CONFIG} in it",
            expected="a folder for a run of each strategy",
            fix="name another --out",
        )
    if out.exists() and not out.is_dir():
        raise BitfoldError(
            f"{out} exists and is no folder",
            got="a file",
            expected="a folder for a run of each strategy",
            fix="name another --out",
        )
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        return [
            stream(paths, data, train, replace(config, strategy=name), out / name, **how)
            for name in names
        ]
    finally:
        if made and not any(out.iterdir()):  # the first of them was refused
            out.rmdir()


def runs_in(out: Path) -> list[Path]:
    """The streams that lie in a folder side by side, in the strategies' order."""
    return [out / name for name in STRATEGIES if (out / name / FILE).is_file()]
