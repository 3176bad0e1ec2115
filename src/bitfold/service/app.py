"""What a server answers: requests in, answers out, whoever reads and writes the bytes."""

import asyncio
import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np

import bitfold
from bitfold.errors import BitfoldError
from bitfold.service import page
from bitfold.service.batching import Batcher, Job
from bitfold.service.bodies import json_rows
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
)
from bitfold.service.models import Models, Scorer
from bitfold.service.openapi import description
from bitfold.service.sources import Source
from bitfold.service.swapping import Swapping
from bitfold.service.tables import ARROW, COLUMNAR, arrow_answer, table_of

RUN_HEADER = "bitfold-run"
"""The header that names the run of an answer's scores, as JSON and Arrow bodies do."""

_encode = msgspec.json.encode
OPEN = {"/health", "/ready", "/", *page.FILES}
"""Paths that need no token: what a balancer asks, and a page that knows nothing by itself."""


@dataclass
class App:
    """One server's answers.

    Args:
        source: where models come from.
        limits: what it takes on.
        token: what clients must show; None for none.
        metrics: counters.
    """

    source: Source
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
    metrics: Metrics = field(default_factory=Metrics)
    stopping: bool = False
    open_requests: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self.models = Models(self.metrics.swapped)
        self.swapping = Swapping(self.source, self.models)
        self._routes: dict[str, dict[str, Callable[[Request, Reply], Job | None]]] = {
            "/score": {"POST": self._score},
            "/health": {"GET": self._health},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
            "/reload": {"POST": self.swapping.reload},
            "/delta": {"POST": self.swapping.delta},
        }
        for name in ("/", *page.FILES):
            self._routes[name] = {"GET": self._page}

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to take requests, in the loop's thread."""
        self.batcher = Batcher(
            loop,
            waiting_rows=self.limits.waiting_rows,
            answer_seconds=self.limits.answer_seconds,
            batched=self.metrics.batched,
        )

    def close(self) -> None:
        """Take no more work for the threads."""
        self.batcher.close()
        self.swapping.close()

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
            self.swapping.check_deltas(self.token)

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
        takes, guarded = self.swapping.deltas is not None, bool(self.token)
        made = description(self._model(), self.limits, needs_token=guarded, takes_deltas=takes)
        reply(json_response(made))

    def _page(self, request: Request, reply: Reply) -> None:
        reply(page.response(request.path))


def _check_origin(request: Request) -> None:
    """Refuse what a page of another site sends from its reader's browser."""
    origin = request.headers.get("origin")
    if origin is None:
        return
    try:
        site = urlsplit(origin).netloc.lower()
    except ValueError:  # such as half an address of IPv6
        site = ""
    if not site or site != request.headers.get("host", "").lower():
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
