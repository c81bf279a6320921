"""The norms of single tokens while an answer is streamed: each chunk of text has those of its tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from langnorm.chat.recording import Recording
from langnorm.engines.requests import Delta
from langnorm.norms.reading import read_tokens
from langnorm.trace_builder import rounded_rows

Piece = tuple[int, str]

_SENT = ("token_norms", "token_percentiles", "token_distances", "token_ids")
"""What chunks say token by token; the rest of what a message says is said by the last one."""


class LiveNorms:
    """Holds text back until the norms of its tokens are known, which is when the next token is chosen.

    What it puts on the chunks of an answer is, all together, what `NormTrace.token_dict` has of the whole.

    Args:
        recording: What the norms are compared with.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._waiting: deque[Piece] = deque()
        self._rows: list[tuple[int, list[float]]] = []
        self.num_sent = 0
        """Number of the tokens whose norms are on chunks."""

    def add(self, delta: Delta) -> Iterator[Piece]:
        """Yield the text that may be shown now: that of tokens whose norms are known, and at the end all of it."""
        self._waiting += delta.pieces
        if completion := delta.completion:
            known = len(self._rows)
            self._rows += zip(completion.token_ids[known:], completion.norms[known:], strict=False)
        else:
            self._rows += delta.norms
        while self._waiting and (delta.completion or self._waiting[0][0] < len(self._rows)):
            yield self._waiting.popleft()

    def take(self, token: int) -> dict[str, list[Any]]:
        """Return what a chunk says of the tokens up to this one that no chunk has said yet; nothing if there are none.

        Args:
            token: Index of the token that the chunk's text ends with.
        """
        new = self._rows[self.num_sent : token + 1]
        if not new:
            return {}
        self.num_sent += len(new)
        ids, rows = [token_id for token_id, _ in new], [row for _, row in new]
        reading = read_tokens(rows, self._recording.layers, self._recording.baseline, ids)
        of_tokens = {
            "token_norms": rounded_rows(rows),
            "token_percentiles": reading.percentiles,
            "token_distances": reading.distances,
        }
        lists: dict[str, list[Any]] = {n: list(map(list, v)) for n, v in of_tokens.items() if v is not None}
        return lists | {"token_ids": ids}

    def rest(self, of_ours: dict[str, Any]) -> dict[str, Any]:
        """Return what the last chunk says: of what the whole answer has, all that no chunk has said yet."""
        return {name: value[self.num_sent :] if name in _SENT else value for name, value in of_ours.items()}
