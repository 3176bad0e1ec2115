"""Paths with a scheme (`s3://`, `gs://`, `https://`, ...): fetched before, sent after, by fsspec.

An input is copied to a temporary folder, whole, and read there; an output is made in a temporary
folder and sent when it is whole, its manifest last. So every command and function takes such paths,
and what is read and written on the disk is checked as ever. `file://` is a plain path.

paths    which paths have a scheme, and what their copies are called
systems  the file systems of fsspec, and what they refuse
copies   copies on this machine, held by locks
moving   fetched before, sent after
"""

from bitfold.remote.moving import changed, check_free, fetched, send, sent
from bitfold.remote.paths import is_remote, local_path, named

__all__ = [
    "changed",
    "check_free",
    "fetched",
    "is_remote",
    "local_path",
    "named",
    "send",
    "sent",
]
