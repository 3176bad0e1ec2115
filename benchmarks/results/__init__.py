"""The paper's claim in the open: what binary codes keep of the full table's quality.

    python -m benchmarks.results --data ../shared/data --out results-out --minutes 60

Every board (a log, its words of training) has a plan of cells, run by `bitfold.compare`. Their
figures are kept in `docs/results/BOARD-STAGE.json`, so that many short sittings add up, on any
machine; `docs/results.md` and `docs/results/BOARD.md` are written from these files alone.
"""
