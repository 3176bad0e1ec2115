"""Renames that never overwrite and never leave a gap: `renameat2` where there is one.

`exchange` lets two names change places in one step, so that at no moment a name is missing.
`rename_new` gives a name that nobody has. Both are calls of the Linux kernel; where it, or the
file system, lacks them, `exchange` says so and `rename_new` takes the nearest way.
"""

import ctypes
import errno
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

_HERE = -100  # AT_FDCWD: paths start at the working directory
_NOREPLACE, _EXCHANGE = 1, 2
_LACKING = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM)


@cache
def _renameat2() -> Callable[..., int] | None:
    """The C library's function, or None."""
    try:
        call: Callable[..., int] = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return None
    return call


def _rename(source: Path, target: Path, flags: int) -> bool:
    """One `renameat2`; False where it cannot be had."""
    call = _renameat2()
    if call is None:
        return False
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), ctypes.c_uint(flags)) == 0:
        return True
    number = ctypes.get_errno()
    if number in _LACKING:
        return False
    raise OSError(number, os.strerror(number), str(source), None, str(target))


def exchange(one: Path, other: Path) -> bool:
    """Let two files or folders change places in one step; False where the system cannot."""
    return _rename(one, other, _EXCHANGE)


def rename_new(source: Path, target: Path) -> None:
    """Give `source` the name `target`, which nobody may have (an empty folder may).

    Raises:
        FileExistsError: something stands at `target`; it is left as it is.
        OSError: the system refuses.
    """
    try:
        if source.is_dir():
            # A folder never takes the place of a file or of a folder with something in it.
            source.rename(target)
        elif not _rename(source, target, _NOREPLACE):
            os.link(source, target)
            source.unlink()
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from error
        raise
