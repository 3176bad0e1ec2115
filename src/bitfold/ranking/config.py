"""What is ranked, and how deep."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitfold.config import MOST_WHOLE
from bitfold.errors import BitfoldError, unknown_name

if TYPE_CHECKING:
    from bitfold.data.config import DataConfig

ITEMS = ("train", "all")


@dataclass(frozen=True)
class RankConfig:
    """A ranking of all items for each user.

    Args:
        field: the field of the item.
        at: the depths k of recall@k and NDCG@k.
        items: `train` ranks the items met in training, `all` those of every part.
        seen: whether items that the user has in training are ranked too, instead of left out.
        users: how many users are asked, the same ones each time; 0 asks all.

    Raises:
        BitfoldError: no depths, one below 1, or fewer than no users.

    Example:
        >>> RankConfig("movie", at=(10,)).names
        ['recall@10', 'ndcg@10', 'mrr']
    """

    field: str
    at: tuple[int, ...] = (10, 20)
    items: str = "train"
    seen: bool = False
    users: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(sorted(set(self.at))))
        if not self.at or self.at[0] < 1 or self.at[-1] > MOST_WHOLE:
            raise BitfoldError(
                "rank_at cannot be used",
                got=", ".join(map(str, self.at)) or "nothing",
                expected=f"depths of 1 to {MOST_WHOLE:,}, such as 10,20",
            )
        if not 0 <= self.users <= MOST_WHOLE:
            raise BitfoldError(
                "rank_users is out of range", got=self.users, expected=f"0 to {MOST_WHOLE:,}"
            )
        if self.items not in ITEMS:
            raise unknown_name("rank_items", self.items, ITEMS)

    @property
    def names(self) -> list[str]:
        """The figures' names, in the order of tables."""
        depths = [f"{name}@{k}" for k in self.at for name in ("recall", "ndcg")]
        return [*depths, "mrr"]


def check_rank(config: "DataConfig", ranking: RankConfig) -> None:
    """Raise unless a log that is read so can be ranked: before it is prepared or trained on.

    Raises:
        BitfoldError: no such field, a field of several values, a log without users, or a cross
            that cannot be made for other items.
    """
    if ranking.field not in config.fields:
        raise unknown_name("field to rank", ranking.field, config.fields)
    if ranking.field in config.multi:
        raise BitfoldError(
            f"{ranking.field!r} cannot be ranked",
            got="a field of several values a row",
            expected="the field of the item, with one value a row",
        )
    if config.group is None:
        raise BitfoldError(
            "a ranking needs the user's column",
            got="no group",
            expected="a log prepared with --group",
            fix="say --group user",
        )
    if config.group == ranking.field:
        raise BitfoldError(
            f"{ranking.field!r} is the user, and is ranked for users",
            got=f"--group {config.group} --rank {ranking.field}",
            expected="the field of the item",
        )
    if config.item not in (None, ranking.field):
        raise BitfoldError(
            f"another field is the item of this log: {config.item}",
            got=f"--rank {ranking.field}",
            expected=f"--rank {config.item}, whose own columns are known",
        )
    _check_crosses(config, ranking.field)


def _check_crosses(config: "DataConfig", field: str) -> None:
    sides = {field, *config.item_fields}
    for parts in config.crosses:
        if not 0 < len(sides & {*parts}) < len(parts):
            continue
        # A bucketised number is a field, too, but its cross is of the numbers themselves.
        lacking = [part for part in parts if part not in config.fields]
        if lacking or config.ids == "dense":
            cross = "*".join(parts)
            raise BitfoldError(
                f"the cross {cross!r} cannot be made for other items",
                got=f"{lacking[0]} is no field of its own" if lacking else "dense ids",
                expected="parts that are fields, with hashed ids or a vocabulary",
                fix=f"add {lacking[0]} to --fields" if lacking else f"leave {cross} out",
            )
