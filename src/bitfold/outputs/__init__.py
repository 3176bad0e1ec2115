"""How everything that bitfold writes comes to its place: whole or not at all.

hiding    the hidden folder beside the output
place     that folder, held by a lock; what dead processes left
refusals  paths, places and disks that cannot be
renames   renames that never overwrite and never leave a gap
making    an output that is made at once: a file, a folder
work      an output that is made over hours, and can be resumed
kinds     the names that bitfold writes, so that it removes no others
overlap   an output is never an input
"""

from bitfold.outputs.hiding import hidden, settled, unsettled
from bitfold.outputs.kinds import Kind
from bitfold.outputs.making import new_file, new_folder
from bitfold.outputs.overlap import refuse_overlap
from bitfold.outputs.place import hold, settle, sweep
from bitfold.outputs.work import Work, under_way, work

__all__ = [
    "Kind",
    "Work",
    "hidden",
    "hold",
    "new_file",
    "new_folder",
    "refuse_overlap",
    "settle",
    "settled",
    "sweep",
    "under_way",
    "unsettled",
    "work",
]
