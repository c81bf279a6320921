"""Traces and messages for tests of pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from langchain_core.messages import AIMessage

from langnorm import NormTrace
from langnorm.norms.baseline import Baseline
from langnorm.norms.reading import read_norms, read_tokens
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.token_sums import TokenSums
from langnorm.text.steps import StepSpan
from langnorm.trace import KEY
from langnorm.trace_builder import build_trace

HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "<img src=x onerror='window.hacked = 1'>",
    "&lt;b&gt; ${window.hacked = 1} @@script@@",
    "\u2028]]>'\"`\\",
    "\u202egnorw \N{RIGHT-TO-LEFT MARK}",
    "caf\u00e9 \U0001f600 \u5b57",
)


def token_trace(
    texts: Sequence[str], layers: Sequence[int] = (9, 10), *, per_step: int = 5, is_known: bool = True, seed: int = 0
) -> NormTrace:
    """Return a trace with norms drawn at random for these tokens, a step for every `per_step` of them.

    Args:
        texts: Of the tokens.
        layers: The layers.
        per_step: Number of tokens of a step.
        is_known: Whether there is something to compare norms with.
        seed: Of the norms.
    """
    num_tokens = len(texts)
    draw = np.random.default_rng(seed)
    scale = 20.0 * np.arange(1, len(layers) + 1)
    norms = scale * draw.lognormal(0, 0.2, (num_tokens - 1, len(layers)))
    usual = scale * draw.lognormal(0, 0.2, (2000, len(layers)))
    ids = [i % 7 for i in range(num_tokens)]
    baseline = Baseline()
    if is_known:
        sketch, sums = QuantileSketch(tuple(layers)), TokenSums(tuple(layers))
        sketch.update(torch.from_numpy(usual))
        sums.update([i % 7 for i in range(len(usual))], usual, np.ones(len(usual), dtype=bool))
        baseline = Baseline(sketch, "drawn", tokens=sums.table())
    spans = [StepSpan("answer", i, min(i + per_step, num_tokens), 0, 0) for i in range(0, num_tokens, per_step)]
    rows = norms.tolist()
    return build_trace(
        num_tokens,
        layers,
        rows,
        spans,
        read_norms(rows, layers, baseline, ids),
        token_reading=read_tokens(rows, layers, baseline, ids),
        token_texts=texts,
        token_ids=ids,
        keep_tokens=True,
    )


def message_of(trace: NormTrace, **metadata: Any) -> AIMessage:
    """Return a message that carries a trace and log-probabilities."""
    entries = [{"token": "x", "logprob": -0.01 * i, "bytes": None, "top_logprobs": []} for i in range(trace.tokens)]
    given = {"model_name": "drawn", "logprobs": {"content": entries}, KEY: trace.to_dict()}
    return AIMessage(
        "".join(trace.token_texts or ()),
        response_metadata=given | metadata,
        additional_kwargs={KEY: trace.token_dict()},
    )
