"""The second room of the corridor: cells to pieces."""

from bitfold.pool.dense import DensePool

__all__ = ["DensePool"]
