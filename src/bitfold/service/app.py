"""What a server answers: requests in, answers out, whoever reads and writes the bytes."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

import bitfold
from bitfold.errors import BitfoldError, OtherBase
from bitfold.service import page
from bitfold.service.batching import Batcher, Job
from bitfold.service.bodies import json_rows
from bitfold.service.deltas import Deltas
from bitfold.service.limits import Limits
from bitfold.service.logs import log
from bitfold.service.measuring import CONTENT_TYPE, Metrics
from bitfold.service.messages import (
    JSON,
    Refused,
    Reply,
    Request,
    Response,
    json_response,
    refused,
    without_paths,
)
from bitfold.service.models import Models, Scorer
from bitfold.service.openapi import description
from bitfold.service.sources import Source
from bitfold.service.tables import ARROW, COLUMNAR, arrow_answer, table_of

RUN_HEADER = "bitfold-run"
"""The header that names the run of an answer's scores, as JSON and Arrow bodies do."""

_encode = msgspec.json.encode
OPEN = {"/health", "/ready", "/", *page.FILES}
"""Paths that need no token: what a balancer asks, and a page that knows nothing by itself."""


class Reload(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /reload`."""

    run: str | None = None


@dataclass
class App:
    """One server's answers.

    Args:
        source: where models come from.
        limits: what it takes on.
        token: what clients must show; None for none.
        metrics: counters.
        deltas: runs made of deltas that clients send; None where none are taken.
    """

    source: Source
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    deltas: Deltas | None = None
    stopping: bool = False
    open_requests: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self.models = Models(self.metrics.swapped)
        self._routes: dict[str, dict[str, Callable[[Request, Reply], Job | None]]] = {
            "/score": {"POST": self._score},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
            "/reload": {"POST": self._reload},
            "/delta": {"POST": self._delta},
        }
        for name in ("/", *page.FILES):
            self._routes[name] = {"GET": self._page}
        self._loader = ThreadPoolExecutor(1, "bitfold-loading")
        self._reloading = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take requests, in the loop's thread."""
        self._loop = loop
        self.batcher = Batcher(
            loop,
            waiting_rows=self.limits.waiting_rows,
            answer_seconds=self.limits.answer_seconds,
            batched=self.metrics.batched,
        )

    def close(self) -> None:
        """Take no more work for the threads."""
        self.batcher.close()
        self._loader.shutdown(wait=False, cancel_futures=True)

    def admit(self, request: Request) -> None:
        """Look at a request's head, before its body is read.

        Raises:
            Refused: no such path (404) or method (405), no token (401), another site's page (403),
                a body of an unknown kind (415).
        """
        routes = self._routes.get(request.path)
        if routes is None:
            raise refused(
                404, "there is nothing at this path", got=request.path,
                expected=", ".join(self._routes), fix="scores: POST /score",
            )  # fmt: skip
        method = request.route_method
        if method not in routes:
            allowed = [*routes, *(["HEAD"] if "GET" in routes else [])]
            raise refused(
                405, f"{request.path} is not asked this way", ("allow", ", ".join(allowed)),
                got=request.method, expected=" or ".join(allowed),
            )  # fmt: skip
        if self.token is not None and request.path not in OPEN:
            self._check_token(request)
        if method == "POST":
            _check_origin(request)
        if request.path == "/score":
            self._check_type(request)
        if request.path == "/delta":
            self._check_deltas()

    def handle(self, request: Request, reply: Reply) -> Job | None:
        """Answer an admitted request, now or later; a job that is returned may be given up."""
        try:
            return self._routes[request.path][request.route_method](request, reply)
        except Refused as error:
            reply(error.response())
        except Exception as error:  # ours: the client gets no traceback, the log does
            reply(fault(error))
        return None

    def counted(self, path: str, status: int) -> None:
        """An answer was written."""
        self.metrics.answered(path if path in self._routes else "other", status)

    def _check_token(self, request: Request) -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        wanted = (self.token or "").encode()
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted)
        if kind.lower() != "bearer" or not right:
            raise refused(
                401, "this server needs a token", ("www-authenticate", "Bearer"),
                got="another one" if kind else "none",
                expected="the header authorization: Bearer TOKEN",
            )  # fmt: skip

    def _check_type(self, request: Request) -> None:
        kind = request.content_type
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise refused(
                415, "the body is packed", got=request.headers["content-encoding"],
                expected="no content-encoding",
            )  # fmt: skip
        if kind != JSON and kind not in COLUMNAR:
            raise refused(
                415, "the body is of a kind that is not read", got=kind or "no content-type",
                expected=", ".join([JSON, *COLUMNAR]), fix=f"say the header content-type: {JSON}",
            )  # fmt: skip

    def most_bytes(self, path: str) -> int:
        """The largest body of a request to a path."""
        return self.limits.delta_bytes if path == "/delta" else self.limits.body_bytes

    def _check_deltas(self) -> None:
        if self.deltas is None or self.token is None:
            raise refused(
                403, "this server takes no deltas",
                fix="start it with --deltas FOLDER and a token",
            )  # fmt: skip
        self._check_free()

    def _model(self) -> Scorer:
        if self.models.current is None:
            raise refused(503, "no model is loaded yet", ("retry-after", "1"), fix="try again")
        return self.models.current

    def _score(self, request: Request, reply: Reply) -> Job:
        begun = time.perf_counter()
        scorer = self._model()
        limits = self.limits
        as_arrow = _wants_arrow(request)

        def done(scores: Any, error: Exception | None) -> None:
            if error is not None:
                reply(_failed(error))
                return
            try:
                response = _scored(scores, scorer.digest, as_arrow)
            except Exception as problem:  # of ours: the others of the batch get their answers
                reply(fault(problem))
                return
            reply(response)
            self.metrics.scored(len(scores), time.perf_counter() - begun)

        kind = COLUMNAR.get(request.content_type)
        if kind is None:
            job = Job(scorer, json_rows(request.body, limits.rows), done)
        else:
            body, columns = request.body, scorer.columns
            most = 8 * limits.body_bytes
            job = Job(
                scorer,
                (),
                done,
                table=lambda: table_of(body, kind, columns, limits.rows, most),
                weight=min(limits.rows, 1 + len(body) // 8),
            )
        self.batcher.submit(job)
        return job

    def _health(self, request: Request, reply: Reply) -> None:
        reply(json_response({"status": "alive", "bitfold": bitfold.__version__}))

    def _ready(self, request: Request, reply: Reply) -> None:
        model = self.models.current
        if self.stopping or model is None:
            why = "the server stops" if self.stopping else "no model is loaded yet"
            raise refused(503, why, ("retry-after", "1"))
        reply(json_response({"status": "ready", "run": model.digest}))

    def _metrics(self, request: Request, reply: Reply) -> None:
        self.metrics.waiting.set(self.batcher.waiting)
        self.metrics.open.set(self.open_requests())
        reply(Response(200, self.metrics.text(), CONTENT_TYPE))

    def _openapi(self, request: Request, reply: Reply) -> None:
        takes, guarded = self.deltas is not None, bool(self.token)
        made = description(self._model(), self.limits, needs_token=guarded, takes_deltas=takes)
        reply(json_response(made))

    def _page(self, request: Request, reply: Reply) -> None:
        reply(page.response(request.path))

    def _reload(self, request: Request, reply: Reply) -> None:
        name = _named(request.body)
        source = self.source if name is None else self._source_named(name)
        self._load(reply, lambda: self._swapped(source))

    def _delta(self, request: Request, reply: Reply) -> None:
        deltas, body = self.deltas, request.body
        assert deltas is not None, "looked at before the body was read"
        self._load(reply, lambda: self._applied(deltas, body))

    def _check_free(self) -> None:
        if self._reloading:
            raise refused(
                409, "another model is being loaded", ("retry-after", "1"), fix="try again later"
            )

    def _load(self, reply: Reply, work: Callable[[], Response]) -> None:
        """Do what changes the model, in a thread; one at a time."""
        self._check_free()
        self._reloading = True
        future = self._loop.run_in_executor(self._loader, work)
        future.add_done_callback(lambda each: self._reloaded(each, reply))

    def _source_named(self, name: str) -> Source:
        try:
            return self.source.named(name)
        except BitfoldError as error:
            raise Refused(422, without_paths(error)) from None

    def _swapped(self, source: Source) -> Response:
        """In the loader's thread: load a source's model, and the answer of what came of it."""
        return self._changed(source.loading(self.models.current), source.path)

    def _applied(self, deltas: Deltas, delta: bytes) -> Response:
        """In the loader's thread: the same of a delta."""
        return self._changed(deltas.loading(delta, self.models.current), None)

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

    def _reloaded(self, future: "asyncio.Future[Response]", reply: Reply) -> None:
        self._reloading = False
        if not future.cancelled():
            reply(future.result())

    def reload_changed(self) -> Response:
        """Load what lies at the path now: for a watcher, in a thread of its own."""
        return self._swapped(self.source)


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


def _check_origin(request: Request) -> None:
    """Refuse what a page of another site sends from its reader's browser."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise refused(
            403, "pages of other sites may not ask this server", got=origin,
            expected="requests of its own page, or of programs",
        )  # fmt: skip


_ARROW_WANTED = re.compile(rf"\b{re.escape(ARROW)}\b", re.IGNORECASE)


def _wants_arrow(request: Request) -> bool:
    accepted = request.headers.get("accept")
    if accepted is None or _ARROW_WANTED.search(accepted) is None:
        return False
    if find_spec("pyarrow") is None:
        raise refused(
            406, "this server writes JSON only", got=ARROW, expected=JSON,
            fix="install pyarrow beside the server: pip install 'bitfold[data]'",
        )  # fmt: skip
    return True


def _scored(scores: Any, digest: str, as_arrow: bool) -> Response:
    named = ((RUN_HEADER, digest),)
    if as_arrow:
        return Response(200, arrow_answer(scores, digest), ARROW, named)
    numbers = _encode(np.asarray(scores).tolist())
    return Response(200, b'{"scores":%b,"run":"%b"}' % (numbers, digest.encode()), JSON, named)


def _failed(error: Exception) -> Response:
    """The answer to rows that could not be scored."""
    if isinstance(error, Refused):
        return error.response()
    if isinstance(error, BitfoldError):
        return Refused(422, error).response()
    return fault(error)


def fault(error: Exception) -> Response:
    """The answer to what is no client's mistake; the log says more."""
    log("fault", problem=repr(error))
    return refused(500, "a fault of the server's own", fix="its log says more").response()


def _broken(error: Exception) -> BitfoldError:
    return BitfoldError("the new model cannot be loaded", got=type(error).__name__)
