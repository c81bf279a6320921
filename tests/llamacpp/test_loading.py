"""What loads, what does not and why, and what is said on the way."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from langnorm import ChatLangNorm, unload
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Request
from langnorm.errors import ModelError
from tests.support.gguf_files import write_gguf

QUESTION = "Calculate 47 + 385."


def test_gguf_files_run_on_llama_cpp_unless_transformers_is_asked_for(tiny_file, caplog) -> None:
    """Messages and the log say which engine it is; answers are the same."""
    unload()
    with caplog.at_level(logging.INFO, logger="langnorm"):
        replies = {
            engine: ChatLangNorm(model=tiny_file, max_tokens=5, model_kwargs=kwargs).invoke(QUESTION)
            for engine, kwargs in (("llamacpp", {}), ("transformers", {"dtype": "float32"}))
        }
    for engine, reply in replies.items():
        assert reply.response_metadata["engine"] == engine
        assert f"{tiny_file} runs on the engine {engine}" in caplog.text
    assert replies["llamacpp"].content == replies["transformers"].content


def test_nothing_is_written_unless_asked(abacus_file, capfd) -> None:
    """llama.cpp's own log goes to standard error with `verbose`, and nowhere without."""
    get_engine("llamacpp", abacus_file, {}, {"num_threads": 1, "context_length": 256})
    assert "llama" not in capfd.readouterr().err
    get_engine("llamacpp", abacus_file, {}, {"num_threads": 1, "context_length": 256, "verbose": True})
    assert "llama_context" in capfd.readouterr().err
    get_engine("llamacpp", abacus_file, {}, {"num_threads": 1, "context_length": 257})  # takes the log back
    capfd.readouterr()


def test_files_that_llama_cpp_cannot_run(tmp_path, model_of, tokenizer) -> None:
    """The error has llama.cpp's own reason, of this file and not of an earlier one."""
    path = write_gguf(tmp_path / "m.gguf", model_of("qwen2"), tokenizer, architecture="phi3")
    for _ in range(2):
        with pytest.raises(ModelError, match=r"llama.cpp cannot load `.*m.gguf`: .*wrong shape") as error:
            get_engine("llamacpp", path, {})
    assert str(error.value).count("error loading model") == 1


def test_a_context_that_no_machine_has(abacus_file) -> None:
    """Is refused before the system ends the process for it."""
    with pytest.raises(ModelError, match=r"Lower `context_length` of `engine_kwargs`"):
        get_engine("llamacpp", abacus_file, {}, {"context_length": 10**9})
    options = {"context_length": 256, "cache_type": "q8_0", "flash_attention": False}
    with pytest.raises(ModelError, match=r"cannot make a context of 256 tokens.*flash"):
        get_engine("llamacpp", abacus_file, {}, options)


@pytest.mark.parametrize("cache_type", ["f16", "bf16", "q8_0", "q4_0"])
def test_keys_and_values_of_every_type(abacus_file, cache_type) -> None:
    """The answer is right with each."""
    chat = ChatLangNorm(
        model=abacus_file, engine="llamacpp", engine_kwargs={"cache_type": cache_type, "context_length": 512}
    )
    assert "432" in str(chat.bind(temperature=0).invoke(QUESTION).content)


def test_the_file_may_say_how_to_sample(tmp_path, abacus_engine) -> None:
    """As a model's generation configuration does."""
    stored = {"general__sampling__temp": "0.7", "general__sampling__top_k": "20"}
    path = write_gguf(tmp_path / "m.gguf", abacus_engine.model, abacus_engine.tokenizer, **stored)
    engine = get_engine("llamacpp", path, {})
    assert engine.sampling_defaults == {"temperature": 0.7, "top_k": 20}
    assert ChatLangNorm(engine=engine).is_sampling()


def test_python_exits_in_the_midst_of_an_answer(abacus_file) -> None:
    """Without an abort, with a thread that waits for it."""
    code = f"""
import threading, time
from langnorm import ChatLangNorm
chat = ChatLangNorm(model={str(abacus_file)!r}, engine="llamacpp", repetition_penalty=5.0, max_tokens=1900)
begun = threading.Event()

def read():
    for _ in chat.stream("Count."):
        begun.set()

threading.Thread(target=read, daemon=True).start()
assert begun.wait(60)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_forks_are_told_to_load_their_own(abacus) -> None:
    """Instead of waiting for threads that are the parent's."""
    code = """
import os, sys
from langnorm.engines.options import Sampling
from langnorm.engines.registry import get_engine
from langnorm.engines.requests import Request
engine = get_engine("llamacpp", sys.argv[1], {}, {"num_threads": 1})
requests = [Request((5, 6, 7), Sampling(max_tokens=5))]
engine.generate(requests)
pid = os.fork()
if not pid:
    try:
        engine.generate(requests)
    except RuntimeError as error:
        os._exit(42 if "spawn" in str(error) else 1)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, abacus.name],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.stdout.strip() == "42", run.stderr


def test_the_prefix_of_another_turn_is_reported(abacus) -> None:
    """And forgotten on demand."""
    prompt = tuple(range(5, 60))
    abacus.clear_prefix_cache()
    answer = abacus.generate([Request(prompt, Sampling(max_tokens=5))])[0].completions[0]
    assert answer.prefix_hit is None
    following = Request((*prompt, *answer.token_ids, 7, 8), Sampling(max_tokens=2))
    hit = abacus.generate([following])[0].completions[0].prefix_hit
    assert hit
    assert hit.tokens >= len(prompt) + 4
    assert hit.bytes == hit.tokens * 2 * 12 * 2 * 32 * 4  # keys and values, layers, heads, size of a head, float32
    abacus.clear_prefix_cache()
    assert abacus.generate([following])[0].completions[0].prefix_hit is None
