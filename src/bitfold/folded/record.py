"""Plans in state dicts: what a checkpoint of a folded model needs to be read anywhere."""

import json
import zlib
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bitfold.errors import BitfoldError
from bitfold.planning.plan import Plan

PLAN = "plan"
"""The key of a plan beside the embedder's own, as compressed JSON in bytes."""


@lru_cache(maxsize=64)
def _packed(text: str) -> bytes:
    return zlib.compress(text.encode(), 9)


class Recorded(NamedTuple):
    """What a state dict says of joint tables: their plan, and whether they are packed."""

    plan: Plan
    packed: bool


def recorded(plan: Plan, packed: bool) -> Tensor:
    """A plan as a tensor of bytes."""
    text = json.dumps({"plan": plan.to_json(), "packed": packed}, separators=(",", ":"))
    return torch.frombuffer(bytearray(_packed(text)), dtype=torch.uint8)


def read_record(found: Tensor, where: object) -> Recorded:
    """What `recorded` wrote.

    Raises:
        BitfoldError: the bytes are no plan: changed, averaged, cast.
    """
    try:
        text = zlib.decompress(bytes(found.cpu().to(torch.uint8).tolist()))
        values = json.loads(text)
        plan, packed = values["plan"], bool(values["packed"])
    except (zlib.error, ValueError, OverflowError, KeyError, TypeError) as error:
        raise BitfoldError(
            f"the plan in {where} cannot be read",
            got=f"{found.dtype} {list(found.shape)}: {error}",
            expected="the bytes that bitfold wrote",
            fix="read the checkpoint that bitfold wrote; leave its 'plan' entries out of averages",
        ) from None
    return Recorded(Plan.from_json(plan, where), packed)


def check_record(found: Tensor, own: Plan, packed: bool) -> None:
    """Raise if a checkpoint's plan is another than the module's own.

    Bytes that are no plan any more (of averages of state dicts) say nothing: the embedders'
    fingerprints are held against each other as well.

    Raises:
        BitfoldError: which says how to read the checkpoint.
    """
    try:
        other, other_packed = read_record(found, "a state dict")
    except BitfoldError:
        return
    mine, theirs = own.to_json(), other.to_json()
    same = all(mine[key] == theirs[key] for key in ("fields", "embedding_dim", "groups"))
    if same and packed != other_packed:
        raise BitfoldError(
            "this checkpoint has tables of another form",
            got="packed to serve" if other_packed else "as they are trained",
            expected="packed to serve" if packed else "as they are trained",
            fix="load it into bitfold.serving(model)" if other_packed else "load it before packing",
        )
    if not same:
        raise BitfoldError(
            "this checkpoint belongs to a model that was folded otherwise",
            got=f"{other.method} of {other.bytes:,} bytes, fields "
            + ", ".join(field.name for field in other.fields[:5]),
            expected=f"{own.method} of {own.bytes:,} bytes, fields "
            + ", ".join(field.name for field in own.fields[:5]),
            fix="bitfold.load_model(checkpoint, make) builds the model from the plan in it",
        )
