"""A process may end, or be forked, in the middle of an answer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORK = """
import os, signal
from langnorm import ChatLangNorm
from langnorm.engines.registry import get_engine

engine = get_engine("transformers", "abacus", {})
config = engine.generation_config.to_dict()
chat = ChatLangNorm(engine=engine, temperature=0, max_tokens=30)
question = "Start with 12. Add 30. Add 41. Subtract 9. What is it?"
expected = chat.invoke(question)
stream = chat.stream(question)
text = next(stream)
child = os.fork()
if not child:
    signal.alarm(60)
    is_same = chat.invoke(question).content_blocks == expected.content_blocks
    os._exit(0 if is_same and engine.generation_config.to_dict() == config else 1)
for chunk in stream:
    text += chunk
assert os.waitpid(child, 0)[1] == 0
assert text.content_blocks == expected.content_blocks
print("forked")
"""
END = """
from langnorm import ChatLangNorm

stream = ChatLangNorm(temperature=0).stream("Start with 12. Add 30. Add 41. Subtract 9. What is it?")
next(stream), next(stream)
stream.close()
"""


@pytest.fixture(scope="module")
def process() -> subprocess.CompletedProcess[str]:
    """A process that is forked in the middle of an answer, where that can be, and ends in the middle of another."""
    program = FORK + END if hasattr(os, "fork") else END
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment)


@pytest.mark.timeout(300)  # it loads the model again
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_forked_process_gets_its_own_answer(process: subprocess.CompletedProcess[str]) -> None:
    """A process that was forked in the middle of an answer gets the same answers, and the parent goes on with its."""
    assert process.stdout == "forked\n", process.stderr


def test_a_script_may_end_in_the_middle_of_an_answer(process: subprocess.CompletedProcess[str]) -> None:
    """Python exits cleanly although a stream was broken off just before."""
    assert process.returncode == 0, process.stderr
