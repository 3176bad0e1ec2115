"""Bytes and JSON values, changed at random: the same seed makes the same change."""

import json
import random
from typing import Any

DEEP, HUGE = "<deep>", "<huge>"
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, HUGE),
    *(0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf")),
    *("", "x", "0", "NaN", "../x", "/etc/passwd", "a\x00b", "\x1b[2J", "\ud800", "ä" * 300),
    *([], {}, [[]], [None], {"": None}, [0] * 1000, DEEP),
)
"""What a value is replaced by."""


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """The bytes with one to three changes: flipped, cut, doubled, inserted, moved, overwritten."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = _change(rng, data)
    return data


def _change(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return rng.randbytes(rng.randint(1, 20))
    first = rng.randrange(len(data))
    last = min(len(data), first + rng.choice((1, 2, 8, 64, 1000)))
    kind = rng.choice(("flip", "flip", "set", "end", "cut", "double", "insert", "move", "empty"))
    if kind == "flip":
        return data[:first] + bytes([data[first] ^ 1 << rng.randrange(8)]) + data[first + 1 :]
    if kind == "set":
        fill = rng.choice((b"\x00", b"\xff", b'"', b"\n", b"\r", b",", b"9"))
        return data[:first] + fill * (last - first) + data[last:]
    if kind == "end":
        return data[:first]
    if kind == "cut":
        return data[:first] + data[last:]
    if kind == "double":
        return data[:last] + data[first:]
    if kind == "insert":
        return data[:first] + rng.randbytes(rng.choice((1, 4, 50))) + data[first:]
    if kind == "move":
        place = rng.randrange(len(data))
        rest = data[:first] + data[last:]
        return rest[:place] + data[first:last] + rest[place:]
    return b"" if rng.random() < 0.2 else data[:first] + data[first + 1 :]


def change_json(rng: random.Random, value: Any) -> Any:
    """A JSON value with one key or value changed, removed, added or doubled."""
    value = json.loads(json.dumps(value))
    places = list(_places(value))
    if not places:
        return rng.choice(ODD)
    holder, key = rng.choice(places)
    kind = rng.choice(("odd", "odd", "odd", "near", "remove", "rename", "add", "swap"))
    if kind == "odd":
        holder[key] = rng.choice(ODD)
    elif kind == "near":
        holder[key] = _near(rng, holder[key])
    elif kind == "remove":
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict):
        holder[rng.choice(("", "x", "a\x00b", str(key) + "s", "__class__"))] = holder.pop(key)
    elif kind == "add" and isinstance(holder, dict):
        holder[rng.choice(("x", "kind", "format", "version"))] = rng.choice(ODD)
    elif kind == "add":
        holder.insert(key, rng.choice((rng.choice(ODD), holder[key])))
    else:
        other, place = rng.choice(places)
        holder[key] = json.loads(json.dumps(other[place])) if _has(other, place) else None
    return value


def text_of(value: Any) -> str:
    """JSON text, with what no library writes: nesting of thousands, integers of 5,000 digits."""
    text = json.dumps(value)
    deep = "[" * 20_000 + "]" * 20_000
    return text.replace(json.dumps(DEEP), deep).replace(json.dumps(HUGE), "9" * 5000)


def _near(rng: random.Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2, value * 10**6))
    if isinstance(value, float):
        return rng.choice((value * 1.001, -value, value * 1e300, value + 1))
    if isinstance(value, str):
        return rng.choice((value + "x", value[:-1], value.upper(), value * 3))
    if isinstance(value, list):
        return rng.choice((value[::-1], value * 2, value[1:]))
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    return 0


def _places(value: Any) -> Any:
    keys: Any = ()
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
