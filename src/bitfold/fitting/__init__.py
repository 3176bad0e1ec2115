"""Fitting: the numbers of a smaller embedding that come nearest to trained tables."""

from bitfold.fitting.fit import Fitted, fit

__all__ = ["Fitted", "fit"]
