"""The file systems of fsspec, and what they refuse."""

import contextlib
from collections.abc import Iterator
from typing import Any

from bitfold.errors import BitfoldError


def system_of(path: str) -> tuple[Any, str]:
    """The file system of a scheme, and the path as it names it."""
    try:
        import fsspec
    except ImportError as error:
        raise BitfoldError(
            f"{path} needs a package that is not installed",
            got=str(error),
            expected="fsspec",
            fix="pip install 'bitfold[remote]'",
        ) from None
    try:
        system, name = fsspec.url_to_fs(path)
    except ImportError as error:
        raise BitfoldError(
            f"{path} needs a package that is not installed",
            got=str(error),
            expected=f"the fsspec package for {path.partition('://')[0]}://",
            fix="install it with pip (s3fs for s3://, gcsfs for gs://, adlfs for abfs://)",
        ) from None
    except ValueError as error:
        raise BitfoldError(
            f"{path} has a scheme that is not known",
            got=str(error),
            expected="a path, or a scheme of fsspec: s3://, gs://, https://, ...",
        ) from None
    return system, str(name)


@contextlib.contextmanager
def told(path: str) -> Iterator[None]:
    """Say which place refused, whatever its package raises."""
    try:
        yield
    except BitfoldError:
        raise
    except FileNotFoundError:
        raise BitfoldError(
            f"{path} does not exist", got="no such file", fix="check the path"
        ) from None
    except NotImplementedError:
        raise BitfoldError(
            f"{path} cannot be written", got="a place that is only read", fix="name another place"
        ) from None
    except Exception as error:  # each package has errors of its own
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BitfoldError(
            f"{path} cannot be reached",
            got=f"{type(error).__name__}: {text}",
            expected="a place that answers, and that you may use",
            fix="check the path, the network and your credentials",
        ) from error
