"""Mutation fuzzing of every file that bitfold reads: `python -m fuzz --minutes 30`.

mutate    bytes and JSON, changed by a seeded random
kinds     seven kinds of files, and what is done with them
worker    tries in a process of its own, which may crash or hang
__main__  the command, and the table in docs/reliability.md
"""
