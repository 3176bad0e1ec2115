"""The command `bitfold`.

entry       the group of commands and what happens to errors
stopping    Ctrl-C and SIGTERM, and the command that goes on
streams     standard streams that are closed, broken or full
words       a configuration's words, read from text or JSON
options     a configuration's words as options
plugins     methods from a file of the user's
progress    bars on a terminal, sparse lines elsewhere
tables      results as tables
logs        prepare, synth
runs        train, evaluate, predict
boards      compare, report
budgets     methods, plan

A command's file is imported when the command is asked for, so that `bitfold --help` and
`bitfold prepare` never wait for torch.
"""

from bitfold.cli.entry import main

__all__ = ["main"]
