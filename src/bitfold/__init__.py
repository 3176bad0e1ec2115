"""bitfold folds web-scale embedding tables into a byte budget."""

__version__ = "0.1.0"
