"""Log-probabilities in messages of the bundled model."""

from __future__ import annotations

from langnorm import ChatLangNorm


def test_messages_have_them_in_the_form_of_openai(abacus_engine) -> None:
    """One entry per token, the same whole and streamed."""
    chat = ChatLangNorm(engine=abacus_engine, temperature=0, max_tokens=20)
    reply = chat.invoke("Hello!", logprobs=True, top_logprobs=2)
    content = reply.response_metadata["logprobs"]["content"]
    assert reply.usage_metadata is not None
    assert len(content) == reply.usage_metadata["output_tokens"]
    for entry in content:
        assert set(entry) == {"token", "bytes", "logprob", "top_logprobs"}
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert entry["top_logprobs"][0]["logprob"] >= entry["logprob"] - 1e-6
        assert len(entry["top_logprobs"]) == 2
    streamed = list(chat.stream("Hello!", logprobs=True, top_logprobs=2))[-1]
    assert streamed.response_metadata["logprobs"] == reply.response_metadata["logprobs"]
    assert "logprobs" not in chat.invoke("Hello!").response_metadata
