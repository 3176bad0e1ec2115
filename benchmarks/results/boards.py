"""The boards: which log, how it is read, how everybody on it is trained."""

from dataclasses import dataclass, field, replace
from typing import Any

from bitfold.data.config import DataConfig
from bitfold.data.synth.log import SynthConfig
from bitfold.runs.options import TrainConfig

BUDGETS = ("10x", "100x", "1000x")
GRID, FINAL, REMEDIES = "grid", "final", "remedies"
# What a budget alone gives, and every family in every precision: on boards of their own.
AUTO, FAMILIES = "auto", "families"
DISTILL = "distill"  # `auto` with a teacher, on a board of its own
STAGES = (GRID, FINAL, REMEDIES, AUTO, FAMILIES, DISTILL)
CLAIM_STAGES = (GRID, FINAL, REMEDIES)
# With rows dealt alike and by the root of a field's size: the better one is the rival.
RIVALS = ("hash", "multi-hash", "hash:allocation=0.5", "multi-hash:allocation=0.5")
# Today's default with dense ids, by its full name.
DEFAULT = "binary-code:strategy=succession,sharing=slices,fusion=product"


@dataclass(frozen=True)
class Board:
    """A log and what is compared on it.

    Args:
        name: of its files.
        title: for people.
        file: the raw file under `--data`; None for a synthetic log.
        data: how it is read.
        train: the words of training, the same for every method.
        synth: the words of a synthetic log.
        negatives: the file holds positives only, and one negative is drawn for each.
        decided: rows of the middle rating are left out, those between `label_ge3` and `label_ge4`.
        reference: the board whose full table and floors this one is held against; its own
            without one. With hashed ids a full table would make the same vocabulary again.
        best_from: the board whose grid chooses the best forms; its own without one.
        best: how many of the best forms go to the final stage.
        rivals: methods of the final stage besides the full table and the binary codes, or of
            the stage of a budget alone besides `auto`.
        auto: whether the stage of a budget alone measures `auto` itself.
        seeds: of the final stage, and of that of a budget alone.
    """

    name: str
    title: str
    file: str | None
    data: DataConfig
    train: TrainConfig
    synth: SynthConfig | None = None
    negatives: bool = False
    decided: bool = False
    reference: str | None = None
    best_from: str | None = None
    best: int = 3
    rivals: tuple[str, ...] = RIVALS
    auto: bool = True
    seeds: int = 3
    budgets: tuple[str, ...] = BUDGETS
    stages: tuple[str, ...] = CLAIM_STAGES

    @property
    def claims(self) -> bool:
        """Whether the paper's claim is tested on it."""
        return FINAL in self.stages

    @property
    def whole(self) -> bool:
        """Whether the full table and the floors are measured on this board."""
        return self.reference is None


@dataclass(frozen=True)
class Log:
    """What the boards of one log have in common; `hashed` adds a board of hashed ids."""

    name: str
    title: str
    file: str | None
    data: dict[str, Any]
    hashed: bool = True
    more: dict[str, Any] = field(default_factory=dict)


# The words of training, a line a log: the same for every method, form, budget and seed. Chosen
# before the grid by the full table's validation AUC and the time of a cell, and not tuned on the
# grid; docs/results-method.md says what they give up.
TRAINING: dict[str, dict[str, Any]] = {
    #                     epochs at most  rows a step         rate        L2 of the rows that move
    "frappe":        {"epochs": 12, "batch_size": 1024, "lr": 8e-3, "embedding_decay": 1e-5},
    "ml-1m":         {"epochs": 8,  "batch_size": 1024, "lr": 4e-3, "embedding_decay": 3e-5},
    "ml-1m-crossed": {"epochs": 4,  "batch_size": 1024, "lr": 4e-3, "embedding_decay": 3e-5},
    "gowalla":       {"epochs": 6,  "batch_size": 4096, "lr": 1e-2, "embedding_decay": 1e-5},
    "synthetic-5m":  {"epochs": 1,  "batch_size": 4096, "lr": 2e-3, "embedding_decay": 0.0},
    "synthetic-20m": {"epochs": 1,  "batch_size": 4096, "lr": 2e-3, "embedding_decay": 0.0},
}  # fmt: skip
EVERYBODY: dict[str, Any] = {
    "width": 16, "network": "deepfm", "hidden": (32,), "weight_decay": 1e-5, "patience": 1,
    "checkpoint_steps": 0,
    # Small fields whole, the others alike: for every method that deals rows to fields.
    "set": {"allocation": "0"},
}  # fmt: skip

ML = ("user_id", "movie_id", "gender", "age", "occupation", "zip", "year")
CROSSES = (
    *("movie_id*occupation", "movie_id*age*gender", "user_id*year", "user_id*genres"),
    "zip*genres",
)
FRAPPE = (
    *("user", "item", "daytime", "weekday", "isweekend"),
    *("homework", "cost", "weather", "country", "city"),
)
_ML: dict[str, Any] = {
    "label": "label_ge4",
    "fields": ML,
    "group": "user_id",
    "split": "random:0.8,0.1,0.1",
}
_SYNTH: dict[str, Any] = {
    "label": "label",
    "fields": tuple(f"field_{number}" for number in range(10)),
    "numeric": ("numeric_0", "numeric_1"),
    "group": "field_0",
}
_ML_FILE = "ml-1m/ml1m_labels.csv.gz"

LOGS = (
    Log("frappe", "Frappe, official split, training negatives drawn anew", "frappe/frappe.csv.gz",
        {"label": "label", "fields": FRAPPE, "group": "user", "split": "column:split"}),
    Log("ml-1m", "MovieLens-1M, seven fields", _ML_FILE, _ML),
    Log("ml-1m-crossed", "MovieLens-1M, seven fields and five crosses", _ML_FILE,
        _ML | {"cross": CROSSES}),
    Log("gowalla", "Gowalla, one uniform unseen negative a positive",
        "gowalla/interactions.csv.gz",
        {"label": "label", "fields": ("user", "item"), "group": "user", "split": "column:split"},
        more={"negatives": True}),
    Log("synthetic-5m", "Synthetic log of 5 M rows", None, _SYNTH,
        more={"synth": SynthConfig(rows=5_000_000, ids=10_000_000)}),
    Log("synthetic-20m", "Synthetic log of 20 M rows, over 10 M ids", None, _SYNTH, hashed=False,
        more={"synth": SynthConfig(rows=20_000_000, ids=200_000_000), "budgets": ("1000x",),
              "best_from": "synthetic-5m", "best": 1, "seeds": 1, "rivals": (*RIVALS, DEFAULT),
              "stages": (FINAL,)}),
)  # fmt: skip


def boards_of(log: Log, train: TrainConfig) -> list[Board]:
    """The board of dense ids (a vocabulary of the training part), then that of hashed ids."""
    dense = Board(
        log.name, f"{log.title}; dense ids", log.file,
        DataConfig(**log.data, ids="vocabulary"), train, **log.more,
    )  # fmt: skip
    if not log.hashed:
        return [dense]
    hashed = Board(
        f"{log.name}-hashed", f"{log.title}; hashed ids", log.file,
        DataConfig(**log.data, ids="hashed"), train, reference=log.name,
        stages=(GRID, FINAL), **log.more,
    )  # fmt: skip
    return [dense, hashed]


# Longer training than above, the same for the full table and for `auto`: with it the full table is
# as good as any training here has made it, and so are tables of few bits, which learn more slowly.
AUTO_TRAINING: dict[str, dict[str, Any]] = {
    "ml-1m": {"epochs": 20, "batch_size": 1024, "lr": 2e-3, "embedding_decay": 3e-5},
    "frappe": {"epochs": 25, "batch_size": 1024, "lr": 8e-3, "embedding_decay": 1e-5},
    "gowalla": {"epochs": 12, "batch_size": 2048, "lr": 2e-3, "embedding_decay": 1e-4,
                "hidden": (128, 64)},
    "ml-1m-crossed": {"epochs": 10, "batch_size": 1024, "lr": 2e-3, "embedding_decay": 3e-5},
    "synthetic-20m": TRAINING["synthetic-20m"],
}  # fmt: skip
AUTO_BUDGETS: dict[str, tuple[str, ...]] = {
    "ml-1m": ("10x", "50x", "100x"),
    "frappe": ("10x", "50x", "100x"),
    "gowalla": ("10x", "50x", "100x"),
    "ml-1m-crossed": ("1000x",),
    "synthetic-20m": ("1000x", "10000x"),
}
LOW_PRECISION = "auto:low_precision=true"
"""What is held against `auto` on the boards of low-precision training."""
NARROW = ("mixed-dimensions:bits=4,alpha=0.15", "binary-code:bits=4,sharing=first")
"""What `auto` chooses between where whole rows of 4 bits do not fit: narrower ones, shared ones."""
TAUGHT = {
    "auto:teacher_share=0.5": "teacher, share .5",
    "auto:teacher_meta=true": "learned targets",
}
"""What is held against plain `auto` on the board of distillation."""
SHARES = {
    "auto:teacher_share=0.9": "teacher, share .9",
    "auto:teacher_share=0.25": "teacher, share .25",
}
"""Other shares, with one seed."""
PRECISIONS = ("mpe", "mpe:search=0")
"""What is held against `auto` where rows of few bits do not quite fit: bits by frequency, searched,
and as they start."""
NARROW_BUDGETS = ("10x", "14x", "18x", "25x")
NARROW_LOGS = ("frappe", "ml-1m", "gowalla")
REPORTED: dict[str, tuple[str, str]] = {
    "fiited": ("2.86x", "more than 65 % saved on two industrial models"),
    "mpe": ("200x", "about 200x without loss (Criteo)"),
    "scma": ("16x", "16x without loss, and .003 AUC more than others (Criteo, Avazu)"),
    "amtl": ("2.5x", "60 % of the memory saved without loss (MovieLens, IJCAI-AAC, Taobao)"),
    "pep": (
        "33x",
        "97 to 99 % fewer parameters without loss (Criteo, Avazu, MovieLens-1M); the index that "
        "says which are kept is not among them, and is here",
    ),
}
"""What papers report of a method, and the ratio it is held against on ml-1m."""
METHODS = ("ml-1m", "frappe")
"""The logs that every method is measured on: docs/methods/table.md."""
FROM_TEXT = ("ml-1m",)
"""The logs that are also given as raw text, so that ids are hashed and maps count."""


def auto_boards() -> list[Board]:
    """The boards of what a budget alone gives."""
    out = []
    for log in LOGS:
        if log.name not in AUTO_TRAINING:
            continue
        words = {**EVERYBODY, "patience": 2, "set": {}, **AUTO_TRAINING[log.name]}
        more = {name: value for name, value in log.more.items() if name in ("synth", "negatives")}
        board = Board(
            f"{log.name}-auto", log.title, log.file, DataConfig(**log.data, ids="vocabulary"),
            TrainConfig(**words), stages=(AUTO,), budgets=AUTO_BUDGETS[log.name], rivals=(), **more,
        )  # fmt: skip
        if log.name in METHODS:
            board = replace(board, stages=(AUTO, FAMILIES))
        out.append(board)
        if log.name in FROM_TEXT:
            out.append(
                replace(
                    board,
                    name=f"{log.name}-text-auto",
                    title=f"{log.title}; from raw text",
                    data=DataConfig(**log.data, ids="hashed"),
                    reference=board.name,
                    budgets=("10x", "50x"),
                    stages=(AUTO,),
                )
            )
        if log.name in NARROW_LOGS:
            out.append(
                replace(
                    board,
                    name=f"{log.name}-narrow",
                    reference=board.name,
                    rivals=NARROW,
                    auto=False,
                    seeds=2,
                    budgets=NARROW_BUDGETS,
                    stages=(AUTO,),
                )
            )
            out.append(
                replace(
                    board,
                    name=f"{log.name}-precisions",
                    reference=board.name,
                    rivals=PRECISIONS,
                    budgets=("10x", "14x"),
                    stages=(AUTO,),
                )
            )
        if log.name == "ml-1m":
            out.append(
                replace(
                    board,
                    name=f"{log.name}-low-precision",
                    reference=board.name,
                    rivals=(LOW_PRECISION,),
                    budgets=("2x", "10x"),
                    stages=(AUTO,),
                )
            )
            out += [
                replace(
                    board,
                    name=f"{log.name}-{method}-reported",
                    reference=board.name,
                    rivals=(method,),
                    budgets=(ratio,),
                    stages=(AUTO,),
                )
                for method, (ratio, _) in REPORTED.items()
            ]
            out.append(
                replace(
                    board,
                    name=f"{log.name}-distilled",
                    reference=board.name,
                    rivals=tuple(TAUGHT),
                    budgets=("50x", "100x"),
                    stages=(DISTILL,),
                )
            )
    return out


# The public setting's width, cross layer and hidden layer (arXiv 2305.12102). The rest was chosen
# by the full table's validation AUC: docs/results-method.md.
UNIFIED_TRAINING: dict[str, Any] = {
    "width": 30, "network": "dcnv2", "network_set": {"layers": "1"}, "hidden": (192,),
    "epochs": 12, "batch_size": 1024, "lr": 4e-3, "embedding_optimizer": "same",
    "embedding_decay": 1e-5,
}  # fmt: skip
UNIFIED_BUDGETS = ("1600000B", "791000B", "158000B")
UNIFIED_FIELDS = ("user_id", "movie_id", "gender", "age", "occupation", "zip")


def unified_boards() -> list[Board]:
    """The boards beside unified embedding's public figures: ids of a vocabulary, and raw text.

    Rivals are trained from raw text alone: their public figures have hashed ids, and where a
    vocabulary's tables fit whole, all methods are one.
    """
    words = {**EVERYBODY, "set": {}, **UNIFIED_TRAINING}
    read = _ML | {"fields": UNIFIED_FIELDS}
    dense = Board(
        "ml-1m-unified", "MovieLens-1M without ratings of 3, six fields", _ML_FILE,
        DataConfig(**read, ids="vocabulary"), TrainConfig(**words), decided=True,
        rivals=(), budgets=UNIFIED_BUDGETS, stages=(AUTO,),
    )  # fmt: skip
    text = replace(
        dense,
        name="ml-1m-unified-text",
        title=f"{dense.title}; from raw text",
        data=DataConfig(**read, ids="hashed"),
        reference=dense.name,
        rivals=("hash", "unified", "multi-hash"),
    )
    return [dense, text]


def every_board() -> dict[str, Board]:
    """All boards by name, in the order of work: dense ids first, then hashed ones."""
    found = [
        boards_of(log, TrainConfig(**EVERYBODY | TRAINING[log.name])) for log in LOGS
    ]  # fmt: skip
    every = [boards[0] for boards in found] + [board for boards in found for board in boards[1:]]
    every += [*auto_boards(), *unified_boards()]
    return {board.name: board for board in every}
