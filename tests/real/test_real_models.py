"""Pretrained models, as people have them: what holds of tiny models holds of them.

By default SmolLM2. `REAL_MODELS=coder-0.5b,coder-1.5b pytest tests/real` runs on others (`benchmarks/real_models.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from langchain_core.messages import AIMessageChunk

from benchmarks.real_models import FOLDER, FetchError, fetch
from langnorm import ChatLangNorm, NormProfile, NormTrace, unload
from langnorm.engines.transformers.gguf import CACHE_VARIABLE
from langnorm.errors import ModelError
from tests.reference.norms import reference_norms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MODELS = os.environ.get("REAL_MODELS", "smollm2").split(",")
QUESTIONS = ("What is the capital of France?", "Write a haiku about rain.")
WITHOUT_TEMPLATE = {"gemma3-270m": "{% for message in messages %}{{ message.content }}\n{% endfor %}"}

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(autouse=True, scope="module")
def kept_in() -> Path:
    """Returns where unpacked weights are kept: with the models, so that the next run has them."""
    folder = FOLDER / "unpacked"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(folder))
        yield folder
    unload()


@pytest.fixture(params=MODELS, scope="module")
def path(request) -> Path:
    """Returns the GGUF file of a model; the tests are skipped with the reason where it cannot be fetched."""
    try:
        return fetch(request.param)
    except FetchError as error:
        pytest.skip(f"{request.param} could not be fetched: {error}")


@pytest.fixture(scope="module")
def chat(path) -> ChatLangNorm:
    """Returns a greedy chat model with short answers."""
    name = next((name for name in WITHOUT_TEMPLATE if name in path.name), None)
    kwargs = {"chat_template": WITHOUT_TEMPLATE[name]} if name else {}
    return ChatLangNorm(
        model=path,
        engine="transformers",
        temperature=0,
        max_tokens=24,
        layers="all",
        norms="tokens",
        model_kwargs=kwargs,
    )


def load_plainly(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Returns the model and the tokenizer of a GGUF file as transformers alone reads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    return model, AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)


@pytest.mark.no_cover  # most of it is in transformers, which counting lines slows by half
@torch.inference_mode()
def test_answers_and_norms_are_those_of_plain_transformers(chat, path) -> None:
    """The weights are equal, the tokens those of `generate`, and the norms those of one forward pass without a cache.

    So answers of the GGUF file equal those of the same weights in safetensors, which is what langnorm reads at a second
    start, and what this compares with transformers' own reading of the file.
    """
    engine = chat.loaded_engine()
    model, tokenizer = load_plainly(path)
    weights = engine.model.state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name]), name
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        template = engine.tokenizer.chat_template
        text = tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)[0]

        message = chat.invoke(question)

        answer = expected[ids.shape[1] :]
        assert message.content == tokenizer.decode(answer, skip_special_tokens=True).strip()
        assert message.usage_metadata["input_tokens"] == ids.shape[1]
        assert message.usage_metadata["output_tokens"] == len(answer)
        norms = torch.tensor(NormTrace.from_message(message).token_norms, dtype=torch.float64)
        plain = reference_norms(model, expected.tolist(), range(engine.num_layers), ids.shape[1])
        torch.testing.assert_close(norms, plain, rtol=1e-4, atol=0)


def test_a_stream_is_the_whole_answer(chat) -> None:
    """Text, usage and norms."""
    whole = chat.invoke(QUESTIONS[0])
    streamed = sum(chat.stream(QUESTIONS[0]), AIMessageChunk(""))
    assert streamed.content == whole.content
    assert streamed.usage_metadata == whole.usage_metadata
    assert NormTrace.from_message(streamed).steps == NormTrace.from_message(whole).steps


def test_a_profile_of_the_file_is_one_of_its_conversion(chat, tmp_path) -> None:
    """A folder that `save_pretrained` wrote has the same identity, the same answers and the same norms."""
    engine = chat.loaded_engine()
    profile = NormProfile.calibrate(chat, list(QUESTIONS), num_tokens=8, show_progress=False)
    engine.model.save_pretrained(tmp_path)
    engine.tokenizer.save_pretrained(tmp_path)
    converted = ChatLangNorm(model=tmp_path, temperature=0, max_tokens=24, norm_profile=profile)
    assert converted.loaded_engine().identity == engine.identity
    message, other = converted.invoke(QUESTIONS[0]), chat.invoke(QUESTIONS[0], norm_profile=profile, layers="late")
    assert message.content == other.content
    trace, of_file = NormTrace.from_message(message), NormTrace.from_message(other)
    assert trace.intensity is not None
    assert (trace.mean, trace.intensity) == (of_file.mean, of_file.intensity)


def test_a_template_without_tools_says_so(chat, path) -> None:
    """The model would never see them."""
    if "coder" in path.name.lower():
        pytest.skip("its template has tools")

    def weather(city: str) -> str:
        """Get the weather in a city."""
        return city

    for choice in ("auto", "any"):
        with pytest.raises(ModelError, match="no place for tools"):
            chat.bind_tools([weather], tool_choice=choice).invoke(QUESTIONS[0])


def test_the_command_line_takes_the_file(chat, path, kept_in) -> None:
    """`langnorm ask --model x.gguf` prints the answer and its steps, and nothing on standard error."""
    if chat.model_kwargs:
        pytest.skip("it has no template")
    command = [sys.executable, "-m", "langnorm", "ask", QUESTIONS[0], "--model", str(path), "--temperature", "0"]
    environment = os.environ | {CACHE_VARIABLE: str(kept_in), "COLUMNS": "100"}
    done = subprocess.run(
        [*command, "--max-tokens", "24", "--layers", "-1"], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(chat.invoke(QUESTIONS[0]).content.split("\n")[0])
    assert f"{path}: " in done.stdout
