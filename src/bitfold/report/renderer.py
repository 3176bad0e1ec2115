"""Charts to pictures, drawn by a process that may die without taking ours with it."""

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bitfold.errors import BitfoldError
from bitfold.report.figures import plain

SECONDS = 60.0
"""How long one chart may take."""

_SCRIPT = Path(__file__).with_name("renderer_process.py")


class ChartFailed(BitfoldError):
    """A chart that the chart library cannot draw."""


class Renderer:
    """One drawing process, started with the first chart and again after one that ended it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()

    def draw(self, kind: str, spec: dict[str, Any]) -> bytes:
        """A Vega-Lite specification as `svg` or `png`.

        Raises:
            ChartFailed: the library refuses, dies, or takes too long.
        """
        request = json.dumps({"kind": kind, "spec": plain_spec(spec)}, allow_nan=False)
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            verdict, size = self._read_line(process).split()
            answer = self._read(process, int(size))
        except TimeoutError:
            self.close()
            raise _failed(f"nothing after {self.seconds:.0f} seconds") from None
        except (OSError, EOFError, ValueError):
            raise _failed(self._how_it_ended()) from None
        if verdict != b"ok":
            raise _failed(answer.decode("utf-8", "replace").splitlines()[0] if answer else "")
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._owner == os.getpid():
            return self._process
        self._owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, str(_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        return self._process

    def _read_line(self, process: subprocess.Popen[bytes]) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            line += self._read(process, 1)
        return line

    def _read(self, process: subprocess.Popen[bytes], size: int) -> bytes:
        assert process.stdout is not None
        until, parts, left = time.monotonic() + self.seconds, [], size
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while left:
                if not selector.select(max(until - time.monotonic(), 0)):
                    raise TimeoutError
                part = os.read(process.stdout.fileno(), min(left, 1 << 16))
                if not part:
                    raise EOFError
                parts.append(part)
                left -= len(part)
        return b"".join(parts)

    def _how_it_ended(self) -> str:
        process, self._process = self._process, None
        code = 0
        if process is not None:
            _close_pipes(process)
            code = process.wait()
        if code < 0:
            return f"it died of {signal.Signals(-code).name}"
        return f"it ended with code {code}"

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            _close_pipes(process)
            process.wait()


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _failed(why: str) -> ChartFailed:
    return ChartFailed("the chart library cannot draw a chart", got=why[:300])


def plain_spec(value: Any) -> Any:
    """A specification without what the library cannot take: it ends its process at some of it."""
    return plain(value)


RENDERER = Renderer()
atexit.register(RENDERER.close)
