"""What a server takes on, and what it refuses: sizes, seconds, rows and connections."""

from dataclasses import dataclass, fields

from bitfold.errors import BitfoldError


@dataclass(frozen=True)
class Limits:
    """Bounds of one server; beyond each of them a client gets one clear answer.

    Args:
        body_bytes: the largest body of a request (413).
        delta_bytes: the largest delta (413).
        rows: the most rows of a request (413).
        read_seconds: a head is read in this time (else the connection is closed), then a body in
            as much (408), and an answer taken; a connection on which nothing is asked for so long
            is closed.
        answer_seconds: an answer is there in this time after its request (503).
        waiting_rows: rows that may wait for the model (429 with Retry-After).
        connections: open connections; more wait until one is closed.
        stop_seconds: what was accepted is finished within this time when the server stops.
    """

    body_bytes: int = 8 << 20
    delta_bytes: int = 256 << 20
    rows: int = 10_000
    read_seconds: float = 10.0
    answer_seconds: float = 10.0
    waiting_rows: int = 100_000
    connections: int = 10_000
    stop_seconds: float = 20.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0 < value < float("inf"):
                raise BitfoldError(
                    f"the limit {each.name} is no positive number", got=value, expected="above 0"
                )
        if self.waiting_rows < self.rows:
            raise BitfoldError(
                "fewer rows may wait than one request may have",
                got=f"waiting_rows {self.waiting_rows:,}, rows {self.rows:,}",
                expected="as many at least",
                fix="raise --waiting-rows or lower --rows",
            )

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that all connections together may hold."""
        return max(8 * self.body_bytes, 256 << 20) + self.delta_bytes


HEAD_BYTES = 32 << 10
"""About the most of a request line and its headers; of one of them a quarter of it (431)."""

HEADERS = 100
"""The most headers of a request (431)."""

LINGER_SECONDS = 2.0
"""How long a refused client may go on sending before it is cut off: so it reads its answer."""
