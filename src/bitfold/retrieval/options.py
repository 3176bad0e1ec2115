"""The options that say how two towers are trained, indexed and measured."""

from dataclasses import dataclass

from bitfold.config import MOST_WHOLE, check_choices, check_number, check_whole, option
from bitfold.errors import BitfoldError, unknown_name
from bitfold.ranking.config import ITEMS, RankConfig
from bitfold.runs.options import MOST_SEED, OPTIMIZERS, ROW_OPTIMIZERS, SAME, TrainConfig

LOSSES = ("softmax", "bpr")
SIMILARITIES = ("cosine", "dot")
MEMORIES = ("none", "plain", "batch", "adaptive")
COLDS = ("none", "remarnet")
INDEXES = ("exact", "hnsw", "ivf")
BITS = (32, 8, 4)


@dataclass(frozen=True)
class RetrieveConfig:
    """How two towers are trained, indexed and measured: the options of `bitfold retrieve`.

    Raises:
        BitfoldError: an option whose value cannot be right, whatever the log holds.

    Example:
        >>> RetrieveConfig(budget="10x", temperature=0.1).similarity
        'cosine'
    """

    method: str = option(
        "auto", help="Embedding method; `bitfold methods` lists them.", metavar="METHOD"
    )
    budget: str | None = option(
        None,
        help="Bytes for the embeddings of both towers: 64MiB, 100x (a share of the full table) or "
        "a number.",
        metavar="BYTES",
    )
    width: int = option(64, help="Numbers in a vector of a user or an item.", metavar="D")
    set: dict[str, str] = option(  # noqa: RUF009
        {}, help="An option of the embedding method.", metavar="OPTION=VALUE"
    )
    pooling: str = option(
        "sum", help="How the vectors of a tower's fields are joined.", choices=("sum", "mean")
    )
    hidden: tuple[int, ...] = option(
        (), help="Sizes of the hidden layers of each tower; none: no network.", metavar="SIZES"
    )
    dropout: float = option(0.0, help="Share of hidden units dropped in training.")
    history: int = option(
        0,
        help="Items that the user took before, at most, whose mean joins the user's vector; "
        "raise it where users have few rows of their own.",
        metavar="N",
    )
    similarity: str = option(
        "cosine",
        help="cosine: vectors of length 1; dot: as the towers make them.",
        choices=SIMILARITIES,
    )
    temperature: float = option(
        0.1, help="What scores are divided by in the loss; lower it to press on hard negatives."
    )
    loss: str = option(
        "softmax",
        help="softmax: each row's item among those of the batch; bpr: against drawn ones.",
        choices=LOSSES,
    )
    correction: float = option(
        1.0, help="Share of the log-popularity correction (logQ) of a softmax; 0 leaves it out."
    )
    popularity: float = option(
        0.0,
        help="Share of an item's log-popularity that its score has beside the vectors, in training "
        "and in the index (one more number an item); 0.5 suits cosine, which cannot say it.",
    )
    sampled: int = option(
        0,
        help="Further negatives drawn alike from all items: of the batch (softmax), or of each "
        "row (bpr, one at least).",
        metavar="N",
    )
    hard: int = option(
        0,
        help="Hard negatives of each row, from the nearest items at the end of the last epoch "
        "that the user did not take.",
        metavar="N",
    )
    hard_depth: int = option(
        200, help="How many nearest items of a user hard negatives are drawn from.", metavar="N"
    )
    mask_taken: bool = option(
        True,
        help="What a row's user took in training is no negative of the row, in the batch and in "
        "the memory.",
    )
    memory: str = option(
        "none",
        help="Item vectors of earlier batches as negatives: plain, as they were (cross-batch "
        "memory); batch or adaptive, renormalised to the batch's moments, or to those of a "
        "Kalman filter.",
        choices=MEMORIES,
    )
    memory_size: int = option(8192, help="Vectors in the memory.", metavar="N")
    memory_hardest: int = option(
        0, help="Take so many of the memory for each row, the nearest; 0: all.", metavar="N"
    )
    memory_share: float = option(
        1.0,
        help="What all of the memory counts for beside the batch: 1 as much as the batch; 0 each "
        "vector as one of the batch, as in the papers.",
    )
    memory_after: int = option(
        1, help="Epochs before the memory is read, while vectors move fast.", metavar="N"
    )
    walk: float = option(0.01, help="adaptive: variance that a step adds to the moments.")
    noise: float = option(0.1, help="adaptive: variance of a batch's moments.")
    cold: str = option(
        "none",
        help="remarnet: items with few clicks lean on their prototypes, the mean of the users who "
        "took them; needs a validation part.",
        choices=COLDS,
    )
    margin: float = option(
        0.1, help="remarnet: what a positive's similarity must be ahead by in the softmax."
    )
    relation: float = option(
        0.3, help="remarnet: weight of the loss by similarity to prototypes; 0 leaves it out."
    )
    epochs: int = option(20, help="Passes over the training positives at most.")
    batch_size: int = option(2048, help="Positives in a step; each is the others' negative.")
    lr: float = option(0.01, help="Learning rate.")
    lr_end: float = option(
        1.0,
        help="Share of --lr that is left at the last step; below 1 the rate falls evenly over all "
        "epochs, which suits a fixed number of them.",
    )
    optimizer: str = option("adam", help="How weights are updated.", choices=OPTIMIZERS)
    embedding_optimizer: str = option(
        "lazy-adam",
        help="How the embeddings are updated: the rows of the batch alone, or with the towers'.",
        choices=(*ROW_OPTIMIZERS, SAME),
    )
    weight_decay: float = option(0.0, help="Weight decay of the towers.")
    embedding_decay: float = option(0.0, help="Weight decay (L2) of the embeddings.")
    patience: int = option(
        2, help="Stop after this many epochs without a better validation figure; 0 never stops."
    )
    best_by: str = option(
        "recall@20", help="The validation figure that chooses the epoch.", metavar="FIGURE"
    )
    rank_at: tuple[int, ...] = option((10, 20), help="The depths k of rankings.", metavar="K,...")
    rank_items: str = option(
        "train", help="What is ranked: items met in training, or in all parts.", choices=ITEMS
    )
    rank_seen: bool = option(
        False, help="Rank items that the user has in training, too; else they are left out."
    )
    rank_users: int = option(
        0, help="Rank for so many users, the same ones each time; 0: for all.", metavar="N"
    )
    valid_users: int = option(
        5000, help="Rank for so many users after each epoch; 0: for all.", metavar="N"
    )
    index: str = option(
        "exact",
        help="How items are searched: exact, or near enough by faiss: hnsw, ivf.",
        choices=INDEXES,
    )
    index_effort: int = option(
        64,
        help="How far an approximate index looks: candidates (hnsw), cells (ivf). Raise it where "
        "it finds too few of the nearest.",
        metavar="N",
    )
    index_bits: int = option(32, help="Bits of a number in the index: 32, 8 or 4.", metavar="BITS")
    seed: int = option(0, help="Seed of the weights, the rows' order and all that is drawn.")
    checkpoint_steps: int = option(
        0,
        help="Steps between checkpoints; 0, and with hard negatives: at the end of each epoch "
        "only.",
    )
    keep_log: bool = option(
        False, help="Keep the prepared log in RUN/log after training from raw data."
    )

    def __post_init__(self) -> None:
        check_choices(self)
        for name in ("width", "epochs", "batch_size", "memory_size", "hard_depth", "index_effort"):
            check_whole(self, name, 1)
        for name in ("history", "sampled", "hard", "memory_hardest", "memory_after", "patience",
                     "valid_users", "checkpoint_steps"):  # fmt: skip
            check_whole(self, name, 0)
        check_whole(self, "seed", 0, MOST_SEED)
        for name in ("temperature", "lr", "noise"):
            check_number(self, name, above=0)
        for name in (
            "correction",
            "popularity",
            "memory_share",
            "lr_end",
            "walk",
            "weight_decay",
            "embedding_decay",
            "dropout",
            "margin",
            "relation",
        ):
            check_number(self, name)
        if self.lr_end > 1:
            raise BitfoldError("lr_end is out of range", got=self.lr_end, expected="0 to 1")
        if self.dropout >= 1 or any(not 1 <= size <= MOST_WHOLE for size in self.hidden):
            raise BitfoldError(
                "the towers' network cannot be built",
                got=f"hidden {self.hidden}, dropout {self.dropout}",
                expected=f"layers of 1 to {MOST_WHOLE:,} units, a dropout below 1",
            )
        if self.index_bits not in BITS:
            raise unknown_name("index_bits", str(self.index_bits), map(str, BITS))
        names = self.ranking("item").names
        if self.best_by not in names:
            raise unknown_name("figure to choose an epoch by", self.best_by, names)
        if self.loss == "bpr" and self.memory != "none":
            raise BitfoldError(
                "a memory holds further negatives of a softmax",
                got=f"loss bpr, memory {self.memory}",
                expected="loss softmax, or no memory",
            )
        if self.loss == "bpr" and self.popularity:
            raise BitfoldError(
                "the share of popularity is of a softmax",
                got=f"loss bpr, popularity {self.popularity:g}",
                expected="loss softmax, or popularity 0",
            )
        if self.loss == "bpr" and self.cold != "none":
            raise BitfoldError(
                "the margin of remarnet is one in a softmax",
                got=f"loss bpr, cold {self.cold}",
                expected="loss softmax, or cold none",
            )
        budget: object = self.budget
        if budget is not None:
            object.__setattr__(self, "budget", str(budget))

    def ranking(self, field: str, *, valid: bool = False) -> RankConfig:
        """What is ranked: in the test part, or after an epoch."""
        users = self.valid_users if valid else self.rank_users
        return RankConfig(field, self.rank_at, self.rank_items, self.rank_seen, users)

    def training(self) -> TrainConfig:
        """The options of the optimizers, as `bitfold train` has them."""
        return TrainConfig(
            method=self.method,
            lr=self.lr,
            optimizer=self.optimizer,
            embedding_optimizer=self.embedding_optimizer,
            weight_decay=self.weight_decay,
            embedding_decay=self.embedding_decay,
            seed=self.seed,
        )
