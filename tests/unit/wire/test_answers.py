"""Chunks of a stream go over the wire and come out as they were."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.tool import tool_call_chunk

from langnorm.wire.answers import read_delta, write_delta

LIVE = {"token_norms": [[1.5, 2.0]], "token_texts": ["a"], "token_ids": [7]}


@pytest.mark.parametrize(
    "chunk",
    [
        AIMessageChunk("Hi"),
        AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm"}),
        AIMessageChunk("Hi", additional_kwargs={"langnorm": LIVE}),
        AIMessageChunk("", additional_kwargs={"reasoning_content": "Hm", "langnorm": LIVE}),
        AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name="f", args="", id="1", index=0)]),
        AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=None, args="{", id=None, index=0)]),
        AIMessageChunk("", tool_call_chunks=[tool_call_chunk(name=None, args="<x", id="1", index=0)]),
    ],
    ids=range(7),
)
def test_a_chunk_comes_out_as_it_was(chunk: AIMessageChunk) -> None:
    """With norms of tokens where it has some; they are sent only to those who ask for them."""
    assert read_delta(write_delta(chunk, 0, with_findings=True), None, "m") == chunk
    without = write_delta(chunk, 0, with_findings=False)
    assert "langnorm" not in without["delta"]


def test_an_empty_chunk_is_none() -> None:
    """It says nothing."""
    assert read_delta({"index": 0, "delta": {"role": "assistant", "content": ""}}, None, "m") is None
