"""Runs: a trained model on disk, its figures and its scores."""
