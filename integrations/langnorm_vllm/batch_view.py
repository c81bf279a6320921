"""Which tokens of which requests a forward pass computes, for both of vLLM's model runners; read on the host alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BatchView(NamedTuple):
    """The R requests of a forward pass, each with consecutive tokens in consecutive rows.

    These are views of what vLLM will write into again: they hold until the pass begins.

    Attributes:
        request_ids: Of vLLM's (R,).
        first_positions: Of the first token of each (R,).
        first_rows: Of the first token of each in the states of the pass, and the number of all rows (R + 1,).
    """

    request_ids: Sequence[str]
    first_positions: NDArray[np.int32]
    first_rows: NDArray[np.int32]


def read_v1(runner: Any) -> BatchView:
    """Return the pass that a V1 runner is about to make."""
    batch = runner.input_batch
    return _view(batch.req_ids, batch.num_computed_tokens_cpu, runner.query_start_loc.np)


def read_v2(batch: Any) -> BatchView:
    """Return a pass from the `InputBatch` that a V2 runner has prepared for it."""
    return _view(batch.req_ids, batch.num_computed_tokens_np, batch.query_start_loc_np)


def _view(request_ids: Sequence[str], num_computed: Any, starts: Any) -> BatchView:
    num_requests = len(request_ids)
    return BatchView(request_ids, num_computed[:num_requests], starts[: num_requests + 1])
