"""The options that say how a click model is trained; its run keeps them."""

from dataclasses import dataclass
from typing import Any

from bitfold.config import MOST_WHOLE, check_choices, check_number, check_whole, option
from bitfold.errors import BitfoldError
from bitfold.ranking.config import ITEMS, RankConfig

NETWORK_NAMES = ("lr", "deepfm", "dcnv2", "dlrm")
OPTIMIZERS = ("adam", "adamw", "adagrad", "sgd")
ROW_OPTIMIZERS = ("lazy-adam", "rowwise-adagrad", "adagrad", "sgd")  # of `bitfold.optim`
SAME = "same"
MOST_SEED = 2**62  # torch takes seeds of 64 bits, and each process adds its number


@dataclass(frozen=True)
class TrainConfig:
    """How a click model is trained: the options of `bitfold train` and `compare`.

    Raises:
        BitfoldError: an option whose value cannot be right, whatever the log holds.

    Example:
        >>> TrainConfig(method="hash", budget="10x").batch_size
        2048
    """

    method: str = option(
        "auto", help="Embedding method; `bitfold methods` lists them.", metavar="METHOD"
    )
    budget: str | None = option(
        None,
        help="Bytes for the embeddings: 64MiB, 100x (a share of the full table) or a number. "
        "Without one the method's own size holds, or the full table's where that is less.",
        metavar="BYTES",
    )
    width: int = option(
        16,
        help="Numbers in an embedding vector; logistic regression (lr) always has 1.",
        metavar="D",
    )
    set: dict[str, str] = option(  # noqa: RUF009
        {}, help="An option of the embedding method.", metavar="OPTION=VALUE"
    )
    embedding_sets: int = option(
        1,
        help="Embedding sets: so many tables of width --width side by side, each with its own "
        "interaction; the network's head reads their mean. The budget is that of all sets.",
        metavar="M",
    )
    bags: str = option(
        "mean",
        help="How the vectors of a multi-valued field are pooled.",
        choices=("mean", "sum", "max"),
    )
    network: str = option("deepfm", help="The network above the embeddings.", choices=NETWORK_NAMES)
    hidden: tuple[int, ...] = option(
        (128, 64), help="Sizes of the network's hidden layers.", metavar="SIZES"
    )
    dropout: float = option(
        0.0, help="Share of hidden units dropped in training; raise it when the model overfits."
    )
    network_set: dict[str, str] = option(  # noqa: RUF009
        {}, help="Another option of the network, such as linear=false.", metavar="OPTION=VALUE"
    )
    epochs: int = option(8, help="Passes over the training part at most.")
    batch_size: int = option(2048, help="Rows in a step.")
    lr: float = option(2e-3, help="Learning rate.")
    optimizer: str = option("adam", help="How weights are updated.", choices=OPTIMIZERS)
    embedding_optimizer: str = option(
        "lazy-adam",
        help="How the embeddings are updated: by an optimizer that moves the rows of the batch "
        "alone, or with the network's optimizer, which moves all rows.",
        choices=(*ROW_OPTIMIZERS, SAME),
    )
    embedding_lr: float | None = option(
        None, help="Learning rate of the embeddings; without one, --lr.", metavar="RATE"
    )
    weight_decay: float = option(
        0.0,
        help="Weight decay of the network (L2 for adam, adagrad and sgd; decoupled for adamw).",
    )
    embedding_decay: float = option(
        0.0,
        help="Weight decay (L2) of the embeddings: of the rows that move, or of all rows with "
        "--embedding-optimizer same. Raise it when rare ids overfit.",
    )
    unseen: str = option(
        "mean",
        help="What ids that training never met find in a row of their own: the mean of the field's "
        "trained rows, or its random first numbers (initial).",
        choices=("mean", "initial"),
    )
    patience: int = option(
        2, help="Stop after this many epochs without a better validation AUC; 0 never stops."
    )
    rank: str | None = option(
        None,
        help="The item's field: rank all items for each user (--group) and tell recall@k, NDCG@k "
        "and MRR of what the user takes in the test part.",
        metavar="FIELD",
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
    precision: str = option(
        "32", help="bf16: matrix products in bfloat16, weights in float32.", choices=("32", "bf16")
    )
    device: str = option(
        "auto", help="Where to train: auto takes a GPU if there is one.", metavar="DEVICE"
    )
    devices: int = option(1, help="Processes that train together, each on a share of the rows.")
    seed: int = option(0, help="Seed of the weights, the rows' order and dropout.")
    checkpoint_steps: int = option(
        1000, help="Steps between checkpoints; 0: at the end of each epoch only."
    )
    log_steps: int = option(100, help="Steps between the lines of the training log.")
    log: str = option(
        "tensorboard",
        help="Where figures go beside RUN/logs/training.csv: events in RUN/logs, a run of MLflow "
        "(which must be installed), or none.",
        choices=("tensorboard", "mlflow", "none"),
    )
    keep_log: bool = option(
        False, help="Keep the prepared log in RUN/log after training from raw data."
    )

    def __post_init__(self) -> None:
        check_choices(self)
        try:
            sizes = tuple(int(size) for size in self.hidden)
        except (TypeError, ValueError):
            raise BitfoldError(
                "hidden cannot be read", got=repr(self.hidden), expected="sizes such as 256,128"
            ) from None
        object.__setattr__(self, "hidden", sizes)
        if any(not 1 <= size <= MOST_WHOLE for size in sizes):
            raise BitfoldError(
                "a hidden layer cannot be built",
                got=sizes,
                expected=f"sizes of 1 to {MOST_WHOLE:,}",
            )
        for name in ("width", "embedding_sets", "epochs", "batch_size", "devices", "log_steps"):
            check_whole(self, name, 1)
        for name in ("patience", "checkpoint_steps"):
            check_whole(self, name, 0)
        check_whole(self, "seed", 0, MOST_SEED)
        check_number(self, "lr", above=0)
        if self.embedding_lr is not None:
            check_number(self, "embedding_lr", above=0)
        check_number(self, "weight_decay")
        check_number(self, "embedding_decay")
        check_number(self, "dropout", below=1)
        _ = self.ranking or RankConfig("", self.rank_at, users=self.rank_users)
        budget: object = self.budget
        if budget is not None:
            object.__setattr__(self, "budget", str(budget))

    @property
    def ranking(self) -> RankConfig | None:
        """What is ranked, if anything is."""
        if self.rank is None:
            return None
        return RankConfig(self.rank, self.rank_at, self.rank_items, self.rank_seen, self.rank_users)

    @property
    def vector_width(self) -> int:
        """D, as the network needs it: logistic regression has one weight an id."""
        return 1 if self.network == "lr" else self.width

    def network_options(self, known: tuple[str, ...]) -> dict[str, Any]:
        """The options of the network: its own, and those of `network_set`."""
        own = {"hidden": self.hidden, "dropout": self.dropout}
        return {name: own[name] for name in own if name in known} | dict(self.network_set)
