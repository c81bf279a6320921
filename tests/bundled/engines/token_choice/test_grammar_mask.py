"""The bundled model thinks freely before an answer that a grammar constrains."""

from __future__ import annotations

import json

from langnorm import ChatLangNorm


def test_reasoning_stays_free_and_ends(abacus_engine) -> None:
    """The thought comes first, as long as there is room for it; what follows is held to the schema."""
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    chat = ChatLangNorm(engine=abacus_engine, temperature=0)
    reply = chat.invoke("Calculate 47 + 385.", response_format={"type": "json_object", "schema": schema})
    assert "432" in reply.additional_kwargs["reasoning_content"]
    assert set(json.loads(str(reply.content))) == {"answer"}
    short = chat.invoke(
        "Start with 9. Add 3. Add 4. Multiply by 12. Add 88. Subtract 7. What is the result?",
        response_format={"type": "json_object", "schema": schema},
        max_tokens=60,
    )
    assert set(json.loads(str(short.content))) == {"answer"}
