"""The command `bitfold`.

entry       the group of commands and what happens to errors
stopping    Ctrl-C and SIGTERM, and the command that goes on
streams     standard streams that are closed, broken or full
options     a configuration's options on the command line
completion  what the shell offers for them
plugins     methods from a file of the user's
tables      results as tables
quotes      plans and quotes as tables
compared    differences and grids as tables
logs        prepare, synth
inspection  inspect
runs        train, evaluate, predict
exporting   export
boards      compare, report
budgets     methods, plan
demo        three commands that show the way

A command's file is imported when the command is asked for, so that `bitfold --help` and
`bitfold prepare` never wait for torch.
"""

from bitfold.cli.entry import main

__all__ = ["main"]
