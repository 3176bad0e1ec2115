"""The synthetic log, whose truth is known."""
