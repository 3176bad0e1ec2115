"""Requests that change the model that answers: `/reload`, `/delta`, and what a watcher saw.

One change is made at a time, in a thread of its own; the model before it answers meanwhile.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bitfold.errors import BitfoldError, OtherBase
from bitfold.service.deltas import Deltas
from bitfold.service.logs import log
from bitfold.service.messages import (
    Refused,
    Reply,
    Request,
    Response,
    json_response,
    refused,
    without_paths,
)
from bitfold.service.models import Models, Scorer
from bitfold.service.sources import Source


class Reload(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /reload`."""

    run: str | None = None


class Swapping:
    """What changes the model of one server.

    Args:
        source: where models come from.
        models: the one that answers.
        deltas: runs made of deltas that clients send; None where none are taken.
    """

    def __init__(self, source: Source, models: Models, deltas: Deltas | None = None) -> None:
        self.source, self.models, self.deltas = source, models, deltas
        self.busy = False
        self._loader = ThreadPoolExecutor(1, "bitfold-loading")

    def close(self) -> None:
        """Take no more work for the thread."""
        self._loader.shutdown(wait=False, cancel_futures=True)

    def check_deltas(self, token: str | None) -> None:
        """Whether a delta would be taken, before it is read.

        Raises:
            Refused: this server takes none (403), or a model is being loaded (409).
        """
        if self.deltas is None or token is None:
            raise refused(
                403, "this server takes no deltas",
                fix="start it with --deltas FOLDER and a token",
            )  # fmt: skip
        self._check_free()

    def reload(self, request: Request, reply: Reply) -> None:
        """`POST /reload`."""
        name = _named(request.body)
        source = self.source if name is None else self._source_named(name)
        self._load(reply, lambda: self._swapped(source))

    def delta(self, request: Request, reply: Reply) -> None:
        """`POST /delta`, after `check_deltas`."""
        deltas, body = self.deltas, request.body
        assert deltas is not None, "looked at before the body was read"
        self._load(reply, lambda: self._changed(deltas.loading(body, self.models.current), None))

    def reload_changed(self) -> Response:
        """Load what lies at the path now: for a watcher, in a thread of its own."""
        return self._swapped(self.source)

    def _check_free(self) -> None:
        if self.busy:
            raise refused(
                409, "another model is being loaded", ("retry-after", "1"), fix="try again later"
            )

    def _load(self, reply: Reply, work: Callable[[], Response]) -> None:
        self._check_free()
        self.busy = True
        future = asyncio.get_running_loop().run_in_executor(self._loader, work)
        future.add_done_callback(lambda each: self._loaded(each, reply))

    def _loaded(self, future: "asyncio.Future[Response]", reply: Reply) -> None:
        self.busy = False
        if not future.cancelled():
            reply(future.result())

    def _source_named(self, name: str) -> Source:
        try:
            return self.source.named(name)
        except BitfoldError as error:
            raise Refused(422, without_paths(error)) from None

    def _swapped(self, source: Source) -> Response:
        """In the thread: load a source's model, and the answer of what came of it."""
        return self._changed(source.loading(self.models.current), source.path)

    def _changed(self, load: Callable[[], Scorer], path: Path | None) -> Response:
        """Swap, and say what came of it; `path` is the folder that will answer, if known."""
        deltas = self.deltas
        try:
            swap = self.models.swap(load)
        except Exception as error:
            log("swap refused", problem=str(error))
            if deltas is not None:
                deltas.settle(path, answers=False)
            told = error if isinstance(error, BitfoldError) else _broken(error)
            status = 409 if isinstance(error, OtherBase) else 422
            return Refused(status, without_paths(told, *self._known(path))).response()
        if deltas is not None:
            deltas.settle(path, answers=swap.changed)
        if swap.changed:
            log("swapped", run=swap.after, before=swap.before, seconds=round(swap.seconds, 3))
        return json_response(
            {"run": swap.after, "before": swap.before, "changed": swap.changed}
            | {"seconds": round(swap.seconds, 3)}
        )

    def _known(self, path: Path | None) -> list[str]:
        """Paths of this machine that an error may name."""
        found = [path, self.source.path, self.source.runs]
        if self.deltas is not None:
            found += [self.deltas.folder, self.deltas.served]
        return [str(each) for each in found if each]


def _named(body: bytes) -> str | None:
    if not body.strip():
        return None
    try:
        return msgspec.json.decode(body, type=Reload).run
    except (msgspec.ValidationError, UnicodeDecodeError, msgspec.DecodeError) as error:
        status = 422 if isinstance(error, msgspec.ValidationError) else 400
        raise refused(
            status, "the body does not say what to load", got=str(error),
            expected='nothing, or {"run": "NAME"}',
        ) from None  # fmt: skip


def _broken(error: Exception) -> BitfoldError:
    return BitfoldError("the new model cannot be loaded", got=type(error).__name__)
