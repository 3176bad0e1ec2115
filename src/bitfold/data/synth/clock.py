"""The clock of a synthetic log: how long its rows take, and which fields it changes."""

DAY = 86_400.0
"""Seconds."""

SECONDS_A_ROW = 0.5
"""Of a log without days."""

LASTING = 1000
"""Fields of fewer ids (a country, a device) keep them, and their shares, over all days."""
