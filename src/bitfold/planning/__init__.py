"""Plans: where every number lies, and how many bytes that takes."""
