"""Raw logs to prepared ones, and prepared ones to batches.

    raw files --reading--> chunks --columns--> ids, numbers --dealing--> shards --fitting-->
    schema --writing--> prepared log --prepared--> batches

- `config`, `syntax`, `formats`: what the user says.   - `reading`: raw rows, out of
- `files`, `logfile`, `sources` (bytes), `parquet`,
- `lines`, `quotes`, `header`, `text`, `ragged` (text).
- `frames`, `memory_log`, `columns_of`, `records`: rows in memory.
- `single`, `cells`, `checking`, `rules`: a few rows, value by value, without Polars.
- `canonical`, `hashing`, `xxh64`: values to ids.   - `types`, `spellers`: how values were spelt.
- `columns`, `fields`, `labels`, `times`, `rows`: chunks to ids and numbers.
- `splits`: train, valid, test.
- `dealing`, `fitting`, `writing`, `prepare`: the three passes.   - `spill`: rows on the disk.
- `statistics`, `frequent`, `balance`, `vocabulary` (`field_map`), `standard`, `schema`, `manifest`:
  what is learned and kept.
- `table`, `finishing`, `batch`, `prepared`, `raw`: rows as tensors.   - `synth`: a log made up.

`bitfold.data.prepare.prepare` is the way in. Nothing here imports torch before the first batch is
made.
"""

from typing import TYPE_CHECKING, Any

from bitfold.data.batch import Batch
from bitfold.data.config import DataConfig

if TYPE_CHECKING:
    from bitfold.data.prepare import prepare_or_open
    from bitfold.data.prepared import PreparedLog, is_prepared
    from bitfold.data.raw import read_batches
    from bitfold.data.schema import Schema
    from bitfold.data.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "DataConfig",
    "PreparedLog",
    "Schema",
    "Vocabulary",
    "is_prepared",
    "prepare_or_open",
    "read_batches",
]

_HOMES = {
    "prepare_or_open": "prepare",
    "PreparedLog": "prepared",
    "is_prepared": "prepared",
    "read_batches": "raw",
    "Schema": "schema",
    "Vocabulary": "vocabulary",
}


def __getattr__(name: str) -> Any:
    # Names load their modules when they are asked for: the import stays light.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, name)
