"""What a kernel is told, held against the truth: a kernel reads addresses and checks nothing.

Everything that a program needs of the tensors beside it is worked out once for each packed program
(`facts_of`), by bounding every number that its loops (`digits.py`) can come to.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.kernels.packing import (
    AHEAD,
    AMONG_FEW,
    BASE,
    BLOCK,
    BYTES,
    CHUNKS,
    COLUMNS,
    DEALT,
    DIVISOR,
    DIVISOR_SHIFT,
    DROP,
    FEW,
    FEW_BASE,
    FIELDS,
    FLAGS,
    GROUP,
    HEAD,
    LEADING,
    LONG_BITS,
    LOOKUPS,
    MASK,
    MIXED,
    MOST,
    NEW,
    OFFSET,
    POWER,
    RADIX,
    RADIX_FACTOR,
    RADIX_SHIFT,
    READS,
    REDUCED,
    SCRATCH,
    SHIFT,
    SHORT,
    SHORT_BITS,
    SOURCE,
    SPAN,
    TABLE,
    TURNED,
    reciprocal,
)
from bitfold.kernels.reading import Reading, lanes_of_packed, row_bytes
from bitfold.kernels.source_words import WORDS as RECORD
from bitfold.kernels.source_words import most_code, sizes_of
from bitfold.planning.field import check_columns
from bitfold.planning.spec import FEW_BITS

WORD, HALF = (1 << 64) - 1, (1 << 32) - 1
MOST_TABLES = 1 << 16
SPARE = 1 << 16  # words of scratch that a lookup may ask for and not need
KEPT = 256  # programs whose facts are kept


def refused(argument: str, got: object, expected: object, fix: str | None = None) -> BitfoldError:
    """The error for an argument that would have a kernel read what is not there."""
    return BitfoldError(
        f"{argument} is not what this lookup needs", got=got, expected=expected, fix=fix
    )


def described(tensor: object) -> str:
    """A tensor in an error: what decides whether a kernel can read it."""
    if not isinstance(tensor, Tensor):
        return type(tensor).__name__
    kind = "" if type(tensor) in (Tensor, torch.nn.Parameter) else f"{type(tensor).__name__}, "
    layout = "" if tensor.layout is torch.strided else f", {tensor.layout}"
    return f"{kind}{tensor.dtype} {list(tensor.shape)} on {tensor.device}{layout}"


def check_tensor(
    argument: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    """Raise unless a tensor lies in the CPU's memory in a shape, and in a type if one is said."""
    if (
        not isinstance(tensor, Tensor)
        or not tensor.is_cpu
        or tensor.layout is not torch.strided
        or tuple(tensor.shape) != shape
        or (tensor.dtype is not dtype if dtype else not tensor.dtype.is_floating_point)
        or (tensor.numel() > 0 and tensor.data_ptr() == 0)
    ):
        kind = dtype or "floating point numbers"
        raise refused(argument, described(tensor), f"{kind} {list(shape)} on cpu")


class Facts(NamedTuple):
    """What a packed program needs of everything else.

    Args:
        packed: the program; held, so that its address stays its own.
        version: that of the tensor when it was looked at.
        rows: rows that a pool must have.
        fields, chunks, lookups: F, C, L.
        raw: whether no code is mixed, dealt or read from its leading end.
        room: words of scratch, without the width of a vector.
        few: rows that are listed for every thread.
        groups: slices of few bits that a pool must have.
        tables: bytes of each stored table that is read, by its number.
    """

    packed: Tensor
    version: int
    rows: int
    fields: int
    chunks: int
    lookups: int
    raw: bool
    room: int
    few: int
    groups: int
    tables: tuple[int, ...]


_facts: dict[int, Facts] = {}


def version_of(tensor: Tensor) -> int:
    """How often a tensor was written to; -1 where torch does not count."""
    return -1 if tensor.is_inference() else tensor._version


def facts_of(packed: Tensor) -> Facts:
    """The facts of a packed program.

    Raises:
        BitfoldError: for anything but what `words.pack` makes.
    """
    if not isinstance(packed, Tensor) or packed.dim() != 1:
        raise refused("packed", described(packed), "torch.int64 [n] on cpu, of `words.pack`")
    check_tensor("packed", packed, (packed.shape[0],), torch.int64)
    if not packed.is_contiguous():
        raise refused("packed", f"strides {packed.stride()}", "a contiguous tensor")
    version = version_of(packed)
    facts = _facts.get(packed.data_ptr())
    if (
        facts is None
        or facts.version != version
        or facts.packed.shape != packed.shape
        # A program that went to shared memory left its place to others.
        or facts.packed.data_ptr() != packed.data_ptr()
    ):
        if len(_facts) >= KEPT:
            _facts.clear()
        facts = _facts[packed.data_ptr()] = _looked_at(packed, version)
    return facts


def _senseless(got: object) -> BitfoldError:
    return refused("packed", got, "a program as `bitfold.kernels.packing.pack` makes it")


def _looked_at(packed: Tensor, version: int) -> Facts:
    values: list[int] = packed.tolist()
    if len(values) < HEAD:
        raise _senseless(f"{len(values)} words")
    fields, chunks, lookups = values[FIELDS], values[CHUNKS], values[LOOKUPS]
    head = HEAD + 2 * fields + 1
    tables_at = head + lookups * COLUMNS
    rest = len(values) - tables_at
    if min(fields, chunks, lookups) < 1 or rest < 0 or rest % RECORD:
        raise _senseless(f"{len(values)} words for {fields} fields and {lookups} lookups")
    starts, limits = values[HEAD : HEAD + fields + 1], values[HEAD + fields + 1 : head]
    counts = [end - begin for begin, end in pairwise(starts)]
    if (
        starts[0] != 0
        or starts[-1] != lookups
        or any(count < chunks or count % chunks for count in counts)
        or values[MOST] != max(counts)
        or min(limits) < 0
        or values[FEW] < 0
    ):
        raise _senseless("fields whose lookups do not follow one another")
    words = [
        [value & WORD for value in values[at : at + COLUMNS]]
        for at in range(head, tables_at, COLUMNS)
    ]
    tables, rows = values[tables_at:], 0
    sizes: dict[int, int] = {}
    for field, limit in enumerate(limits):
        raw, code = limit - 1 if limit else WORD, None
        for word in words[starts[field] : starts[field + 1]]:
            source = raw
            if word[FLAGS] & (MIXED | DEALT | READS):
                if word[FLAGS] & NEW:
                    code = _most_code(word, raw, tables, sizes)
                if code is None:
                    raise _senseless("a lookup of a code that was not made")
                source = code
            rows = max(rows, _end(word, source, values[FEW]))
    flags = [word[FLAGS] for word in words]
    return Facts(
        packed,
        version,
        rows,
        fields,
        chunks,
        lookups,
        not any(flag & (MIXED | DEALT | LEADING | READS) for flag in flags),
        (SCRATCH + values[MOST]) * BLOCK + AHEAD + BLOCK + lookups,
        values[FEW],
        max(word[GROUP] for word in words) + 1,
        _in_order(sizes),
    )


def _in_order(sizes: dict[int, int]) -> tuple[int, ...]:
    if sorted(sizes) != list(range(len(sizes))):
        raise _senseless(f"tables {sorted(sizes)}")
    return tuple(sizes[number] for number in range(len(sizes)))


def _most_code(word: list[int], raw: int, tables: list[int], sizes: dict[int, int]) -> int:
    """The largest code that a lookup's source can make of ids up to `raw`.

    Writes what stored tables it reads into `sizes`, by their numbers.
    """
    if word[FLAGS] & READS:
        return _most_read(word, tables, sizes)
    most = raw
    if word[FLAGS] & MIXED:
        if word[MASK] & (word[MASK] + 1) or max(word[SHIFT], word[DROP]) > 63:
            raise _senseless("a mixer of no whole number of bits")
        most = word[MASK] >> word[DROP]
    if word[FLAGS] & DEALT:
        at, length = word[TABLE], word[BYTES]
        part = tables[at : at + 256 * length]
        if length > 8 or len(part) < 256 * length or min(part, default=0) < 0:
            raise _senseless("tables of bytes that are not there")
        most = sum(max(part[256 * n : 256 * n + 256]) for n in range(length))
    return most


def _most_read(word: list[int], tables: list[int], sizes: dict[int, int]) -> int:
    at = word[SOURCE]
    record = [value & WORD for value in tables[at : at + RECORD]]
    if len(record) < RECORD or word[FLAGS] & (MIXED | DEALT | LEADING):
        raise _senseless("a source whose record is not there")
    most = most_code(record)
    for table, size in sizes_of(record).items():
        if table >= MOST_TABLES or sizes.setdefault(table, size) != size:
            raise _senseless(f"two sizes of table {table}")
    return most


def _end(word: list[int], source: int, few: int) -> int:
    """One more than the last row that a lookup can read; its loops as bounds (`digits.py`)."""
    digit, base, span = _most_digit(word, source), word[BASE], word[SPAN]
    if word[FLAGS] & TURNED:
        if max(digit, word[OFFSET]) >= span:
            raise _senseless("a digit that is turned beyond its span")
        digit = span - 1
    if word[FLAGS] & AMONG_FEW and (digit >= span or word[FEW_BASE] + span > few):
        raise _senseless("few rows that are more than that")
    if base + max(digit + 1, span) >> 62:
        raise _senseless("rows without end")
    return base + digit + 1


def _most_digit(word: list[int], source: int) -> int:
    flags, shift, divisor, radix = (
        word[FLAGS], word[DIVISOR_SHIFT], word[DIVISOR], word[RADIX],
    )  # fmt: skip
    if max(shift, word[RADIX_SHIFT]) > 63:
        raise _senseless("shifts beyond a word")
    if flags & LEADING:
        return max(radix, 1) - 1
    if flags & POWER:
        return min(source >> shift, radix)
    if flags & SHORT:
        bits, digit = SHORT_BITS, min(source, HALF) * (divisor & HALF) >> shift
    else:
        bits, digit = LONG_BITS, (min(source << 1, WORD) * divisor >> 64) >> shift
    if not flags & REDUCED:
        if not flags & SHORT and (radix or word[RADIX_FACTOR]):
            raise _senseless("a radix of a digit that has none")
        return digit
    exact = radix > 0 and reciprocal(radix, bits) == (word[RADIX_FACTOR], word[RADIX_SHIFT])
    if not exact or digit >> bits:
        raise _senseless("a reciprocal of another radix")
    return min(digit, radix - 1)


def check_weight(facts: Facts, reading: Reading) -> None:
    """Raise unless a pool has the rows that a program reads, in pieces of a vector's width."""
    pool, bits, width = reading.pool, reading.bits, reading.dim // facts.chunks
    columns = row_bytes(width, bits) if bits and reading.codes else width
    good = isinstance(pool, Tensor) and pool.is_cpu and pool.layout is torch.strided
    good = good and pool.dim() == 2 and pool.shape[1] == columns and pool.shape[0] >= facts.rows
    if good and pool.data_ptr():
        return
    raise refused(
        "the weight",
        described(pool),
        f"a tensor [{facts.rows}, {columns}] on cpu, as the plan says",
        "keep the weight's shape; to change the table's size, build a module from a new plan",
    )


def scales(argument: str, tensor: Tensor | None, facts: Facts, width: int) -> Tensor:
    """The centres or the steps of a pool of few bits, as a kernel reads them.

    Raises:
        BitfoldError: unless they have a row of float16 for each slice that the program reads.
    """
    if (
        type(tensor) is Tensor
        and tensor.dtype is torch.float16
        and tensor.is_cpu
        and len(shape := tensor.shape) == 2
        and shape[1] == width
        and shape[0] >= facts.groups
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and tensor.data_ptr()
    ):
        return tensor
    tensor = _there(argument, tensor)
    groups = max(tensor.shape[0] if tensor.dim() else 0, facts.groups)
    check_tensor(argument, tensor, (groups, width), torch.float16)
    return tensor.contiguous().resolve_neg()


def row_steps(reading: Reading) -> Tensor | None:
    """The steps of packed rows that each have one, as a kernel reads them; None where they follow.

    Raises:
        BitfoldError: unless there is a float16 for each packed row, and none for rows in training.
    """
    steps = reading.steps
    if not reading.codes:
        if steps is not None:
            raise refused("steps", described(steps), "none, or a row of them for each slice")
        return None
    steps = _there("steps", steps)
    check_tensor("steps", steps, (reading.pool.shape[0],), torch.float16)
    return steps.contiguous().resolve_neg()


def stored(facts: Facts, tables: Sequence[Tensor]) -> list[Tensor]:
    """The stored tables of a program, as a kernel reads them.

    Raises:
        BitfoldError: unless they are as many and as large as the program reads.
    """
    if len(tables) != len(facts.tables):
        raise refused("tables", f"{len(tables)} tables", f"{len(facts.tables)}, as the plan says")
    for table, size in zip(tables, facts.tables, strict=True):
        check_tensor("tables", table, (size,), torch.uint8)
    return [table.contiguous() for table in tables]


def check_words(facts: Facts, reading: Reading) -> None:
    """Raise unless the numbers beside a program are its own."""
    dim, bits = reading.dim, reading.bits
    for argument, got, good, expected in (
        ("fusion", reading.fusion, reading.fusion in range(4), "0 to 3"),
        ("pooling", reading.pooling, reading.pooling in range(4), "0 to 3"),
        ("fields", reading.fields, reading.fields == facts.fields, facts.fields),
        ("dim", dim, dim > 0 and dim % facts.chunks == 0, f"a multiple of {facts.chunks}"),
        ("room", reading.room, 0 <= reading.room - facts.room - dim <= SPARE, facts.room + dim),
        ("raw", reading.raw, facts.raw or not reading.raw, False),
        ("bits", bits, bits in (0, *FEW_BITS), f"0 or one of {FEW_BITS}"),
    ):
        if not good:
            raise refused(argument, got, expected)
    if reading.codes and not bits:
        raise refused("bits", bits, f"one of {FEW_BITS}, of packed rows")
    if bits and reading.codes and not lanes_of_packed(dim // facts.chunks, bits):
        raise refused("dim", dim, "rows whose pieces are whole bytes", "read it in plain torch")


def check_ids(ids: Tensor, offsets: Tensor | None, fields: int) -> None:
    """Raise unless ids are int64 `[B, F]`, or `[T]` with offsets `[F * B + 1]`."""
    shape = tuple(ids.shape) if isinstance(ids, Tensor) else ()
    if offsets is None:
        check_columns(shape, fields)
        check_tensor("ids", ids, shape, torch.int64)
        return
    if len(shape) != 1 or offsets.dim() != 1 or offsets.shape[0] % fields != 1 % fields:
        raise BitfoldError(
            "bags of the wrong shape",
            got=f"ids {list(shape)}, offsets {list(offsets.shape)}",
            expected=f"ids [T], offsets [{fields} * B + 1], field by field",
        )
    if offsets.shape[0] < 1:
        raise refused("offsets", "none", "one more than there are bags")
    check_tensor("ids", ids, shape, torch.int64)
    check_tensor("offsets", offsets, tuple(offsets.shape), torch.int64)
    values = offsets.numpy()
    if values[0] != 0 or values[-1] != shape[0] or not (values[1:] >= values[:-1]).all():
        raise BitfoldError(
            "the offsets do not cut the ids into bags",
            got=f"first {values[0]}, last {values[-1]}, {shape[0]} ids",
            expected=f"offsets that start at 0, never fall and end at {shape[0]}",
        )


def check_single_ids(ids: Tensor, fields: int) -> None:
    """Raise unless ids are int64 `[B, F]` in the CPU's memory: `check_ids`, in a tenth of it."""
    shape = ids.shape
    if len(shape) != 2 or shape[1] != fields or ids.dtype is not torch.int64 or not ids.is_cpu:
        check_ids(ids, None, fields)


def check_batch(facts: Facts, reading: Reading, weighted: int) -> None:
    """Raise unless a batch fits a program: what differs from call to call."""
    ids, offsets, weights, pooling = (
        reading.ids, reading.offsets, reading.weights, reading.pooling,
    )  # fmt: skip
    for name, each in (("ids", ids), ("offsets", offsets)):
        if not isinstance(each, Tensor) and (each is not None or name == "ids"):
            raise refused(name, described(each), "a tensor")
    if (offsets is None) != (pooling == 0):
        raise refused("offsets", described(offsets), "offsets with a pooling, none without")
    check_ids(ids, offsets, facts.fields)
    if reading.fusion == weighted or reading.importance is not None:
        check_tensor("importance", _there("importance", reading.importance), (facts.lookups,))
    if weights is not None:
        if pooling == 0:
            raise refused("per_sample_weights", described(weights), "none without a pooling")
        check_tensor("per_sample_weights", weights, tuple(ids.shape))


def _there(argument: str, tensor: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise refused(argument, type(tensor).__name__, "a tensor")
    return tensor
