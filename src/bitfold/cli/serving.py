"""`bitfold serve`: scores over HTTP."""

import os
from pathlib import Path

import click

from bitfold.cli.plugins import plugins
from bitfold.errors import BitfoldError

TOKEN = "BITFOLD_TOKEN"
_SHORTEST = 8


@click.command(short_help="Score rows over HTTP.")
@click.argument("run", metavar="RUN")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
    help="The port; 0 finds a free one, and the first line says it.",
)  # fmt: skip
@click.option(
    "--token-file", metavar="FILE",
    help="Clients must send the token in this file: `authorization: Bearer TOKEN`. Also "
    "BITFOLD_TOKEN in the environment.",
)  # fmt: skip
@click.option("--watch", is_flag=True, help="Load what changes at RUN, also behind a link.")
@click.option("--runs", metavar="FOLDER", help="Let `POST /reload` name a run in this folder.")
@click.option(
    "--deltas", metavar="FOLDER",
    help="Take deltas (`POST /delta`), which need a token; runs made of them are kept here.",
)  # fmt: skip
@click.option("--access-log", is_flag=True, help="A line on stderr for each request.")
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True,
    help="Threads of the model. One is quickest for small requests.",
)  # fmt: skip
@click.option("--body-bytes", type=int, help="The largest body.  [default: 8388608]")
@click.option("--delta-bytes", type=int, help="The largest delta.  [default: 268435456]")
@click.option("--rows", type=int, help="The most rows of a request.  [default: 10000]")
@click.option("--read-seconds", type=float, help="For a request to come.  [default: 10]")
@click.option("--answer-seconds", type=float, help="For an answer.  [default: 10]")
@click.option("--waiting-rows", type=int, help="Rows that may wait; 429 beyond.  [default: 100000]")
@click.option("--connections", type=int, help="Open connections; more wait.  [default: 10000]")
@click.option(
    "--stop-seconds", type=float, help="To finish what was accepted at the end.  [default: 20]"
)
@plugins
def serve(
    run: str,
    host: str,
    port: int,
    token_file: str | None,
    watch: bool,
    runs: str | None,
    deltas: str | None,
    access_log: bool,
    threads: int,
    **bounds: float | None,
) -> None:
    """Score rows over HTTP: JSON, Arrow or Parquet in, probabilities out.

    RUN is a run's folder, or a file of `bitfold export --text`. `POST /reload` loads it again
    while the old one answers. The page at / scores a row by hand; /openapi.json has the rest.

    \b
    bitfold serve RUN --port 8000
    curl localhost:8000/score -H 'content-type: application/json' \\
        -d '{"rows": [{"user": 7, "item": "a"}]}'
    """
    try:
        import aiohttp  # noqa: F401
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise BitfoldError(
            "the server is not installed", got=f"no {error.name}",
            fix="pip install 'bitfold[serve]'",
        ) from None  # fmt: skip

    from bitfold.service.app import App
    from bitfold.service.deltas import Deltas
    from bitfold.service.limits import Limits
    from bitfold.service.server import bound
    from bitfold.service.server import run as serving
    from bitfold.service.sources import Source

    limits = Limits(**{name: value for name, value in bounds.items() if value is not None})  # type: ignore[arg-type]
    token = _token(token_file)
    if runs is not None and not Path(runs).is_dir():
        raise BitfoldError("the folder of --runs is not there", got=runs)
    source = Source(Path(run), None if runs is None else Path(runs))
    if not source.is_file:
        _use(threads)
    app = App(source, limits, token)
    if deltas is not None:
        if token is None or source.is_file:
            raise BitfoldError(
                "this server cannot take deltas",
                got="no token" if token is None else "an exported file",
                expected="a token, since whoever sends a delta changes the model; and a run",
                fix="say --token-file FILE, or leave out --deltas",
            )
        app.swapping.deltas = Deltas(Path(deltas), source.path)
    app.models.swap(app.source.loading())
    sock = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    digest = app.models.current.digest if app.models.current else ""

    def ready() -> None:
        click.echo(f"serving {run} at http://{shown}:{sock.getsockname()[1]} (run {digest[:12]})")

    serving(app, sock, watching=watch, access_log=access_log, ready=ready)


def _use(threads: int) -> None:
    """Let the model use so many threads."""
    import torch

    from bitfold.threads import agree

    torch.set_num_threads(threads)
    agree(threads)


def _token(file: str | None) -> str | None:
    """The token that clients must send; None if any may ask."""
    if file is not None:
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BitfoldError(
                "the token cannot be read", got=f"{file}: {error}", expected="a file of text"
            ) from None
    else:
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            return None
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise BitfoldError(
            "that is no token",
            got=f"{len(token)} characters",
            expected=f"{_SHORTEST} or more letters, digits and signs, without blanks",
        )
    return token
