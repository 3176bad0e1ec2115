"""Comparisons: every method at every budget, on equal terms."""
