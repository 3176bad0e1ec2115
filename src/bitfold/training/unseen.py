"""Ids that the training part lacks: how many rows meet them."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bitfold.data.prepared import PreparedLog


def unseen_shares(log: "PreparedLog") -> list[dict[str, Any]]:
    """The share of values in valid and in test whose id the training part lacks, field by field.

    Returns:
        Mappings of `field`, `valid` and `test`; None for a part without rows. Buckets of numbers
        are left out: they cover every number.
    """
    out = []
    for name, facts in log.stats["fields"].items():
        shares = facts.get("unseen")
        if shares is not None:
            out.append({"field": name, "valid": shares.get("valid"), "test": shares.get("test")})
    return out
