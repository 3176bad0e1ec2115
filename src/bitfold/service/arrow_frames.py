"""Whether an Arrow stream is compressed, told by its frames alone, before anything is unpacked.

A few kilobytes of a compressed stream may unpack to many gigabytes. Uncompressed, its columns are
parts of the body that was sent, so the limit on bodies bounds them.

Format: Arrow Columnar Format, "Encapsulated message format"; Message.fbs (flatbuffers).
"""

import struct

from bitfold.service.messages import refused

_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _BATCH = 2, 3  # MessageHeader
_HEADER_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3  # slots of Message
_DATA = 1  # slot of DictionaryBatch
_COMPRESSION = 3  # slot of RecordBatch


def check_uncompressed(body: bytes) -> None:
    """Raise `Refused` (415) if any batch of the stream is compressed.

    Frames that cannot be followed are left to the reader, which reads them in the same order.
    """
    try:
        found = _is_compressed(body)
    except (struct.error, OverflowError):
        return
    if found:
        raise refused(
            415, "the Arrow stream is compressed", got="compressed batches",
            expected="a stream without compression",
            fix="write it without (compression=None), or send Parquet",
        )  # fmt: skip


def _is_compressed(body: bytes) -> bool:
    place = 0
    while place + 4 <= len(body):
        (size,) = struct.unpack_from("<I", body, place)
        place += 4
        if size == _CONTINUES:
            (size,) = struct.unpack_from("<I", body, place)
            place += 4
        if size == 0:
            return False
        (root,) = struct.unpack_from("<I", body, place)
        message = place + root
        kind_at = _slot(body, message, _HEADER_TYPE)
        header = _table(body, message, _HEADER)
        if kind_at and header:
            kind = body[kind_at] if kind_at < len(body) else 0
            if kind == _DICTIONARY:
                header = _table(body, header, _DATA)
            if kind in (_DICTIONARY, _BATCH) and header and _slot(body, header, _COMPRESSION):
                return True
        length_at = _slot(body, message, _BODY_LENGTH)
        (length,) = struct.unpack_from("<q", body, length_at) if length_at else (0,)
        if length < 0:
            return False
        place += size + length
    return False


def _slot(body: bytes, table: int, slot: int) -> int:
    """Where a table's field lies; 0 if it has none."""
    (back,) = struct.unpack_from("<i", body, table)
    vtable = table - back
    if vtable < 0:
        return 0
    (size,) = struct.unpack_from("<H", body, vtable)
    if 4 + 2 * slot >= size:
        return 0
    (offset,) = struct.unpack_from("<H", body, vtable + 4 + 2 * slot)
    return table + int(offset) if offset else 0


def _table(body: bytes, table: int, slot: int) -> int:
    """Where the table that a field refers to lies; 0 if there is none."""
    place = _slot(body, table, slot)
    if not place:
        return 0
    (offset,) = struct.unpack_from("<I", body, place)
    return place + int(offset)
