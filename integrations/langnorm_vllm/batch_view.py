"""Which tokens of which requests a forward pass computes, for both of vLLM's model runners; read on the host alone."""

from __future__ import annotations

from typing import Any, NamedTuple


class Part(NamedTuple):
    """The tokens of one request in a forward pass: consecutive ones, in consecutive rows.

    Attributes:
        request_id: Of vLLM's.
        first_position: Of the first token.
        first_row: Of the first token in the states of the pass.
        num_tokens: How many.
    """

    request_id: str
    first_position: int
    first_row: int
    num_tokens: int


def read_v1(runner: Any) -> list[Part]:
    """Return the parts of the pass that a V1 runner is about to make."""
    batch, starts = runner.input_batch, runner.query_start_loc.np
    return _parts(batch.req_ids, starts, batch.num_computed_tokens_cpu)


def read_v2(batch: Any) -> list[Part]:
    """Return the parts of a pass from the `InputBatch` that a V2 runner has prepared for it."""
    return _parts(batch.req_ids, batch.query_start_loc_np, batch.num_computed_tokens_np)


def _parts(request_ids: Any, starts: Any, num_computed: Any) -> list[Part]:
    return [
        Part(request_id, int(num_computed[index]), int(starts[index]), int(starts[index + 1] - starts[index]))
        for index, request_id in enumerate(request_ids)
    ]
