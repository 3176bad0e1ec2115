"""Embedders: modules that turn the ids of some fields into vectors."""
