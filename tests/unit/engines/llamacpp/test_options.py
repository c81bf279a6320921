"""Options of the llama.cpp engine, and which models it is taken for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from langnorm.checks import build_options
from langnorm.engines import registry
from langnorm.engines.llamacpp import loading
from langnorm.engines.llamacpp.options import LlamaOptions
from langnorm.errors import MissingDependencyError, ModelError, OptionError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Returns a file that looks like a GGUF file from outside."""
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    return path


@pytest.fixture
def _is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "find_spec", lambda _name: object())


def test_defaults_are_those_of_a_laptop() -> None:
    """All cores, a GPU if llama.cpp was built for one, the context of the model but not of a million tokens."""
    options = LlamaOptions()
    assert options.threads() >= 1
    assert options.num_gpu_layers == -1
    assert (options.cells(2048), options.cells(131_072)) == (2048, 16_384)
    assert LlamaOptions(context_length=4096).cells(2048) == 4096
    assert LlamaOptions(num_threads=3).threads() == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_ctx": 5}, "`engine_kwargs` has no option `n_ctx`. Use `context_length`"),
        ({"context_lenght": 512}, "Did you mean `context_length`"),
        ({"context_length": 3}, "16 tokens or more"),
        ({"context_length": True}, "16 tokens or more"),
        ({"num_threads": 0}, "1 or more"),
        ({"num_gpu_layers": -2}, "-1"),
        ({"max_sequences": 1000}, "1 to 255"),
        ({"chunk": 16}, "33 tokens or more, above"),
        ({"flash_attention": "yes"}, "flash_attention"),
        ({"cache_type": "q5"}, "cache_type"),
        ({"verbose": 1}, "verbose"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_options_name_the_mend(given: dict[str, object], words: str) -> None:
    """Before anything is loaded."""
    with pytest.raises(OptionError) as error:
        build_options(LlamaOptions, "engine_kwargs", given)
    assert words in str(error.value)


@pytest.mark.usefixtures("_is_installed")
def test_gguf_files_are_taken_where_nothing_is_for_transformers(file: Path) -> None:
    """What only transformers knows of asks for transformers."""
    assert registry.choose_engine("auto", str(file), {}) == "llamacpp"
    assert registry.choose_engine("auto", str(file.parent), {"gguf_file": "m.gguf"}) == "llamacpp"
    assert registry.choose_engine("auto", str(file), {"chat_template": "x", "token": "t"}) == "llamacpp"
    assert registry.choose_engine("auto", str(file), {"dtype": "bfloat16"}) == "transformers"
    assert registry.choose_engine("auto", "abacus", {}) == "transformers"
    assert registry.choose_engine("auto", "no/such:", {}) == "transformers"
    assert registry.choose_engine("transformers", str(file), {}) == "transformers"


def test_without_llama_cpp_gguf_files_are_for_transformers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And asking for it says how to install it."""
    monkeypatch.setattr(loading, "find_spec", lambda _name: None)
    assert registry.choose_engine("auto", str(file), {}) == "transformers"
    if importlib.util.find_spec("llama_cpp") is None:
        with pytest.raises(MissingDependencyError, match=r"langnorm\[llamacpp\]"):
            loading.load(str(file), {}, {})


def test_arguments_of_others_are_refused(file: Path) -> None:
    """The error says whose they are."""
    with pytest.raises(OptionError, match=r"does not know `dtype` of `model_kwargs`.*`engine_kwargs`"):
        loading.load(str(file), {"dtype": "bfloat16"}, {})
    with pytest.raises(ModelError, match="runs GGUF files, and `abacus` is not one"):
        loading.load("abacus", {}, {})
    with pytest.raises(OptionError, match="transformers` has no `engine_kwargs`"):
        registry.get_engine("transformers", "abacus", {}, {"num_threads": 2})


def test_one_file_with_the_same_options_is_one_engine(file: Path, tmp_path: Path) -> None:
    """However it is named, and whatever the token is that fetches it."""
    link, other_name = tmp_path / "link", tmp_path / "n.gguf"
    link.symlink_to(file.parent)
    other_name.symlink_to(file)

    def key(model: str, options: dict[str, object] | None = None, **model_kwargs: object) -> str:
        return loading.weights_key(model, model_kwargs, options or {})

    one = key(str(file))
    assert one == key(str(link / "m.gguf")) == key(str(tmp_path), gguf_file="m.gguf") == key(str(file), token="t")
    assert one == key(str(other_name)) == key(str(tmp_path), gguf_file="./m.gguf")
    assert one == key(str(tmp_path.parent), gguf_file="m.gguf", subfolder=tmp_path.name)
    assert one == key(str(file), gguf_cache=False, local_files_only=True)
    assert one != key(str(file), {"context_length": 512})
    assert one != key(str(file), chat_template="x")
    on_hub = key("some/model:m.gguf")
    assert on_hub == key("some/model", gguf_file="m.gguf", revision="main") == key("some/model:m.gguf", subfolder=None)
    assert on_hub != key("some/model:m.gguf", revision="v2")
    assert on_hub != key("some/model:n.gguf")
