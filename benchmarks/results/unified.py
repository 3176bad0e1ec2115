"""Beside unified embedding's public figures on MovieLens-1M, as a section of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitfold.comparison.config import HASH

from .boards import AUTO, Board
from .figures import Figures, figure, link, table
from .sitting import Sitting

BOARDS = ("ml-1m-unified", "ml-1m-unified-text")
PAPER_OF = "Coleman et al. 2023, arXiv 2305.12102, Table 1"
AGAIN = "lilyungg/unified-embeddings, README, means of five trainings"


@dataclass(frozen=True)
class Public:
    """Test AUC at a budget that others published: an independent reproduction, and the paper."""

    hash: tuple[float, float]
    multiplexed: tuple[float, float]
    full: tuple[float, float] | None = None


PUBLIC = {
    "1600000B": Public((0.8684, 0.8537), (0.8872, 0.8774), (0.8985, 0.8872)),
    "791000B": Public((0.8407, 0.8300), (0.8759, 0.8693)),
    "158000B": Public((0.7712, 0.7707), (0.8263, 0.8200)),
}

LIKE = f"""## Beside unified embedding's public figures

MovieLens-1M, where others have published figures at three sizes. Theirs are test AUC of an independent reproduction ({AGAIN}) / of the paper ({PAPER_OF}). They carry over as figures alone; ours were measured here.

- Like theirs: rows with rating 3 are left out, and 4 and 5 are clicks (739,012 rows, 13,177 values); six fields (user, movie, gender, age, occupation, zip code); a random split of 80 / 10 / 10 over rows; width 30; a DCN of one cross layer and one hidden layer of 192; Adam that moves and decays all rows; patience on validation; bytes of the embeddings.
- Not like theirs: which rows the random parts have (that alone has a standard error of about .0012); batches of {{batch}} where theirs have 128; rate and decay, which the full table's validation AUC chose for all our methods at once; our cross layer stands beside the hidden one, theirs below it. Their hash tables are dealt by the size of fields, ours keep small fields whole; their multiplexed table has one row an id, our `unified` three rows of a third of the width, side by side. So between theirs and ours, see the full tables first.
- Rivals are trained from raw text, whose ids are hashed as theirs are: whatever `auto` maps is in its bytes. With a vocabulary its map is not in the bytes, as on most boards here (`map_bytes` in the records). The full table is that of the vocabulary.
"""  # noqa: E501


def beside_unified(sitting: Sitting) -> str:
    """The section; empty while nothing is measured."""
    boards = [sitting.boards[name] for name in BOARDS if name in sitting.boards]
    rows = [row for board in boards for row in _rows(sitting, board)]
    if not rows:
        return ""
    heads = (
        *("our log", "bytes", "hash (theirs)", "multiplexed (theirs)", "full (theirs)"),
        *("our full", "our hash", "our multi-hash", "our unified", "our auto"),
        *("bytes of auto", "seeds", "from"),
    )
    batch = boards[0].train.batch_size
    return f"{LIKE.format(batch=f'{batch:,}')}\n{table(heads, rows)}"


def _rows(sitting: Sitting, board: Board) -> list[list[str]]:
    found, out = Figures(sitting, board), []
    for budget in board.budgets:
        ours = found.line("auto", budget)
        if ours is None or found.full_line is None:
            continue
        public, whole = PUBLIC[budget], found.full_line
        out.append(
            [
                "raw text" if board.data.ids == "hashed" else "vocabulary",
                f"{int(budget.rstrip('B')):,}",
                *(_both(each) for each in (public.hash, public.multiplexed, public.full)),
                figure(whole.auc, whole.deviation),
                *(
                    _ours(found, method, budget)
                    for method in (HASH, "multi-hash", "unified", "auto")
                ),
                f"{ours.bytes:,}",
                str(ours.seeds),
                link(found.records[AUTO], "results/"),
            ]
        )
    return out


def _both(pair: Sequence[float] | None) -> str:
    return "-" if pair is None else " / ".join(f"{auc:.4f}" for auc in pair)


def _ours(found: Figures, method: str, budget: str) -> str:
    line = found.line(method, budget)
    return "-" if line is None else figure(line.auc, line.deviation)
