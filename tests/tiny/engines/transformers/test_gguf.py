"""GGUF files: whatever names one gives the model that it holds, unpacked once."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from gguf import GGMLQuantizationType

from langnorm import ChatLangNorm
from langnorm.engines import registry
from langnorm.engines.registry import get_engine
from langnorm.engines.transformers import gguf, gguf_file
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import MissingDependencyError, ModelError, OptionError
from langnorm.norms.profile import NormProfile
from tests.support.gguf_files import write_gguf


@pytest.fixture(autouse=True)
def kept_in(tmp_path, monkeypatch) -> Path:
    """Returns where unpacked weights are kept, each test in a place of its own, with nothing loaded yet."""
    folder = tmp_path / "kept"
    monkeypatch.setenv(gguf.CACHE_VARIABLE, str(folder))
    monkeypatch.setattr(registry, "_loaded", {})
    return folder


@pytest.fixture
def unpacked(monkeypatch) -> list[str]:
    """Returns the names of the files that were unpacked."""
    unpacked, unpack = [], gguf._unpack

    def counted(path, arguments):
        unpacked.append(path.name)
        return unpack(path, arguments)

    monkeypatch.setattr(gguf, "_unpack", counted)
    return unpacked


@pytest.fixture(scope="session")
def files(tmp_path_factory, model_of, tokenizer) -> Path:
    """Returns a folder with a tiny model as `plain.gguf`, in float32, and as `packed.gguf`, in blocks of 8 bits."""
    folder = tmp_path_factory.mktemp("gguf")
    model = model_of("qwen2")
    write_gguf(folder / "plain.gguf", model, tokenizer)
    write_gguf(folder / "packed.gguf", model, tokenizer, block_type=GGMLQuantizationType.Q8_0)
    return folder


def answer(model, **model_kwargs) -> str:
    """Returns what a model says to a question."""
    chat = ChatLangNorm(model=model, engine="transformers", temperature=0, max_tokens=8, model_kwargs=model_kwargs)
    return str(chat.invoke("What is 47 + 385?").content)


def test_a_file_is_the_model_it_was_made_of(files, model_of, tokenizer) -> None:
    """In float32 every weight, the tokens of every text, the chat template and every answer are the same."""
    engine = get_engine("transformers", files / "plain.gguf", {})
    given = model_of("qwen2").state_dict()
    for name, weight in engine.model.state_dict().items():
        assert torch.equal(weight, given[name]), name
    for text in ("hello 12", "<think>x\n</think> y", "ä€ \t"):
        assert engine.tokenizer.encode(text) == tokenizer.encode(text)
    assert engine.tokenizer.chat_template == tokenizer.chat_template
    plain = ChatLangNorm(engine=TransformersEngine(model_of("qwen2"), tokenizer), temperature=0, max_tokens=8)
    assert answer(files / "plain.gguf") == plain.invoke("What is 47 + 385?").content


def test_packed_weights_are_unpacked_as_transformers_does(files) -> None:
    """Exactly, and with nothing that keeps the model from being saved."""
    ours = get_engine("transformers", files / "packed.gguf", {}).model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(files, gguf_file="packed.gguf")
    assert ours.dtype == torch.float32
    assert not hasattr(ours.config, "quantization_config")
    for name, weight in theirs.state_dict().items():
        assert torch.equal(weight, ours.state_dict()[name])


def test_every_way_to_name_a_file_gives_one_engine(files, monkeypatch, unpacked) -> None:
    """Path, text, folder with `gguf_file`, folder with a colon, from elsewhere, by a link, and the default dtype."""
    monkeypatch.chdir(files.parent)
    link = files.parent / "link"
    link.symlink_to(files, target_is_directory=True)
    names = [
        (files / "packed.gguf", {}),
        (str(files / "packed.gguf"), {"dtype": "float32"}),
        (f"{files.name}/packed.gguf", {"torch_dtype": torch.float32}),
        (files, {"gguf_file": "packed.gguf"}),
        (f"{files}/", {"gguf_file": "packed.gguf", "dtype": "auto"}),
        (f"{files}:packed.gguf", {"trust_remote_code": False}),
        (link / "packed.gguf", {"token": "hf_abcdefghijkl"}),
    ]
    assert len({id(get_engine("transformers", name, kwargs)) for name, kwargs in names}) == 1
    assert unpacked == ["packed.gguf"]
    assert ChatLangNorm(model=files / "packed.gguf", engine="transformers").loaded_engine() is get_engine(
        "transformers", *names[0]
    )


def test_a_file_in_a_repository_of_the_hub(files, tmp_path, unpacked) -> None:
    """`repo/name:file.gguf` and `gguf_file` find it in the hub's cache, revisions and subfolders included."""
    repository = tmp_path / "hub" / "models--some--repo"
    (repository / "snapshots" / "abc" / "q8").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    shutil.copy(files / "packed.gguf", repository / "snapshots" / "abc" / "q8" / "m.gguf")
    shutil.copy(files / "packed.gguf", repository / "snapshots" / "abc" / "m.gguf")
    where = {"cache_dir": str(tmp_path / "hub")}
    one = get_engine("transformers", "some/repo:m.gguf", where)
    assert one.num_layers == 4
    assert one is get_engine("transformers", "some/repo", {**where, "gguf_file": "m.gguf", "revision": "main"})
    other = get_engine("transformers", "some/repo:m.gguf", {**where, "subfolder": "q8"})
    assert other.identity == one.identity
    assert unpacked == ["m.gguf"]  # what they hold is the same
    with pytest.raises(ModelError, match=r"`some/repo:n.gguf` could not be loaded.*looked for on the hub"):
        get_engine("transformers", "some/repo:n.gguf", where)


def test_unpacked_weights_are_there_at_the_next_start(files, unpacked, monkeypatch, tmp_path, kept_in) -> None:
    """Also of a file that was moved or copied; another dtype, other content or another transformers is another."""
    path = tmp_path / "one.gguf"
    shutil.copy(files / "packed.gguf", path)

    def start(path: Path, **model_kwargs) -> str:
        registry.unload()
        return answer(path, **model_kwargs)

    said = start(path)
    assert start(path) == said
    path.rename(tmp_path / "two.gguf")
    assert start(tmp_path / "two.gguf") == said
    os.utime(tmp_path / "two.gguf", (1, 1))
    shutil.copy(tmp_path / "two.gguf", path)
    assert start(path) == start(tmp_path / "two.gguf") == said
    assert unpacked == ["one.gguf"]
    assert not [path for path in kept_in.rglob("*") if "partial" in path.name]

    start(path, dtype="bfloat16")
    shutil.copy(files / "plain.gguf", path)
    start(path)
    monkeypatch.setattr(gguf, "version", lambda _: "99.0")
    start(path)
    assert unpacked == ["one.gguf"] * 4


def test_a_file_is_read_once_for_its_hash(files, monkeypatch, kept_in) -> None:
    """As long as size and times are the same; a file that was written anew in the same second is another."""
    path = files / "packed.gguf"
    kept_in.mkdir()
    first = gguf_file.content_hash(path, kept_in)
    with monkeypatch.context() as patch:
        patch.setattr(gguf_file.hashlib, "file_digest", lambda *_: pytest.fail("read again"))
        assert gguf_file.content_hash(path, kept_in) == first
    copy = kept_in / "copy.gguf"
    copy.write_bytes(b"x")
    os.utime(copy, ns=(5, 5))
    one = gguf_file.content_hash(copy, kept_in)
    time.sleep(0.02)
    copy.write_bytes(b"y")
    os.utime(copy, ns=(5, 5))
    assert gguf_file.content_hash(copy, kept_in) != one


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_identity_holds_across_the_file_and_its_conversion(files, tmp_path, dtype) -> None:
    """A profile of the one is taken for the other, kept or not, as loaded or as saved again."""
    kept = get_engine("transformers", files / "packed.gguf", {"dtype": dtype})
    registry.unload()
    fresh = get_engine("transformers", files / "packed.gguf", {"dtype": dtype, "gguf_cache": False})
    kept.model.save_pretrained(tmp_path / "saved")
    kept.tokenizer.save_pretrained(tmp_path / "saved")
    saved = get_engine("transformers", tmp_path / "saved", {"dtype": dtype})
    in_memory = TransformersEngine(fresh.model, fresh.tokenizer)
    assert kept.identity == fresh.identity == saved.identity == in_memory.identity
    other = get_engine("transformers", files / "plain.gguf", {"dtype": dtype})
    assert other.identity != kept.identity


def test_a_profile_beside_the_file_is_found(files, tmp_path) -> None:
    """As beside other weights; one of another model is left aside."""
    path = shutil.copy(files / "packed.gguf", tmp_path / "m.gguf")
    chat = ChatLangNorm(model=path, engine="transformers", temperature=1, max_tokens=8)
    NormProfile.calibrate(chat, ["hi"], num_tokens=8, show_progress=False).save(tmp_path / "norm_profile.json")
    registry.unload()
    assert ChatLangNorm(model=path, engine="transformers").loaded_engine().profile is not None
    other = shutil.copy(files / "plain.gguf", tmp_path / "n.gguf")
    assert ChatLangNorm(model=other, engine="transformers").loaded_engine().profile is None


@pytest.mark.parametrize("way", [{"gguf_cache": False}, {"gguf_cache": "elsewhere"}])
def test_where_weights_are_kept_can_be_chosen(files, kept_in, tmp_path, monkeypatch, way) -> None:
    """Nowhere, or in a folder of the user's."""
    monkeypatch.chdir(tmp_path)
    said = answer(files / "plain.gguf", **way)
    registry.unload()
    assert said == answer(files / "plain.gguf", **way)
    assert not kept_in.exists()
    assert (tmp_path / "elsewhere").exists() == ("elsewhere" in way.values())


def test_without_a_variable_they_are_beside_the_hubs_cache(monkeypatch) -> None:
    """In the folder that `HF_HOME` or `XDG_CACHE_HOME` names."""
    monkeypatch.delenv(gguf.CACHE_VARIABLE)
    from huggingface_hub import constants

    assert gguf.cache_folder() == Path(constants.HF_HOME, "langnorm")


def test_where_nothing_can_be_kept_it_is_said(files, kept_in, monkeypatch) -> None:
    """The model runs, with a warning that names the mend: a file in the place of the folder, or a full disk."""
    kept_in.write_text("a file")
    with pytest.warns(UserWarning, match=r"cannot be kept in.*LANGNORM_CACHE"):
        said = answer(files / "plain.gguf")
    registry.unload()
    kept_in.unlink()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transformers.PreTrainedTokenizerBase, "save_pretrained", full)
    with pytest.warns(UserWarning, match="No space left"):
        assert answer(files / "plain.gguf") == said
    assert not [path for path in (kept_in / "gguf").iterdir() if path.is_dir()]


def test_starts_at_once_unpack_once(files, kept_in, unpacked) -> None:
    """The second waits for the first, and what a killed process left half-written is not taken."""
    path = files / "plain.gguf"
    folders = set()

    def find(_: int) -> None:
        folders.add(gguf._kept_folder(path, "float32", kept_in))

    find(0)
    (folder,) = folders
    shutil.move(folder, f"{folder}.partial")
    (Path(f"{folder}.partial") / "model.safetensors").write_bytes(b"half")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(find, range(4)))
    assert folders == {folder}
    assert unpacked == ["plain.gguf"] * 2
    assert transformers.AutoModelForCausalLM.from_pretrained(folder).num_parameters() > 0


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("is_wanted", [True, False])
def test_progress_is_shown_on_a_terminal(files, monkeypatch, is_terminal, is_wanted) -> None:
    """Elsewhere, and where transformers' progress bars are off, unpacking is silent."""
    from transformers.utils import logging

    shown = io.StringIO()
    shown.isatty = lambda: is_terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", shown)
    was_wanted = logging.is_progress_bar_enabled()
    (logging.enable_progress_bar if is_wanted else logging.disable_progress_bar)()
    try:
        with gguf._unpacking_tools():
            gguf._unpack(files / "plain.gguf", {"dtype": "float32"})
            gguf._unpack_tokenizer(files / "plain.gguf")
        assert logging.is_progress_bar_enabled() is is_wanted
    finally:
        (logging.enable_progress_bar if was_wanted else logging.disable_progress_bar)()
    assert ("de-quantizing" in shown.getvalue()) is (is_terminal and is_wanted)
    assert bool(shown.getvalue()) is (is_terminal and is_wanted)


@pytest.mark.parametrize("cut_at", [0, 3, 20, 200, 20_000, -1])
def test_a_file_that_is_cut_short_says_so(files, tmp_path, cut_at) -> None:
    """Wherever it breaks off, and nothing is kept of it."""
    whole = (files / "packed.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:cut_at])
    with pytest.raises(ModelError, match=r"cut short or damaged|is not a GGUF file"):
        get_engine("transformers", path, {})


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"hello", "is not a GGUF file"), (b"version https://git-lfs.github.com/spec/v1", "git lfs pull")],
)
def test_a_file_of_another_kind_says_so(tmp_path, content, said) -> None:
    """Text, or a pointer to the file itself."""
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=said):
        get_engine("transformers", tmp_path / "m.gguf", {})


def test_an_architecture_that_cannot_be_read_names_those_that_can(tmp_path, model_of, tokenizer) -> None:
    """Before anything is unpacked."""
    path = write_gguf(tmp_path / "m.gguf", model_of("qwen2"), tokenizer, architecture="rwkv7")
    with pytest.raises(
        ModelError, match=r"`rwkv7`, which transformers .* cannot read.*gemma3.*llama.*qwen3.*safetensors"
    ):
        get_engine("transformers", path, {})
    assert "general" not in gguf_file.readable_architectures()


def test_a_part_of_a_model_says_so(tmp_path, model_of, tokenizer) -> None:
    """Files that are split are to be joined first."""
    path = write_gguf(tmp_path / "m.gguf", model_of("qwen2"), tokenizer, split__count=3)
    with pytest.raises(ModelError, match=r"one of 3 parts.*llama-gguf-split --merge"):
        get_engine("transformers", path, {})


def test_a_file_without_its_suffix_is_taken_by_what_it_holds(files, tmp_path) -> None:
    """Some programs keep them under a checksum."""
    path = shutil.copy(files / "plain.gguf", tmp_path / "sha256-0123")
    assert get_engine("transformers", path, {}).num_layers == 4


def test_a_missing_package_names_the_extra(files, monkeypatch) -> None:
    """`gguf` is optional."""
    monkeypatch.setattr(gguf_file, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"langnorm\[gguf\]"):
        get_engine("transformers", files / "plain.gguf", {})


@pytest.mark.parametrize(
    ("model", "kwargs", "error", "said"),
    [
        ("{files}/none.gguf", {}, ModelError, r"There is no file .*none\.gguf"),
        ("{files}", {}, ModelError, r"no config.json. It has GGUF files: give one, such as `.*packed\.gguf`"),
        ("{files}", {"gguf_file": "none.gguf"}, ModelError, r"has no file `none\.gguf`. It has GGUF files"),
        ("{files}", {"gguf_file": "n" * 300}, ModelError, r"could not be loaded \(OSError: .* too long"),
        ("{files}/plain.gguf", {"gguf_file": "x.gguf"}, OptionError, "Give one of them"),
        ("{files}", {"gguf_file": 3}, OptionError, "gguf_file=3"),
        ("{files}/plain.gguf", {"gguf_cache": 3}, OptionError, "gguf_cache=3"),
        ("a b/c:x.gguf", {}, ModelError, "There is no folder `a b/c`"),
    ],
)
def test_what_names_no_file_is_refused(files, model, kwargs, error, said) -> None:
    """With the mend."""
    with pytest.raises(error, match=said):
        get_engine("transformers", model.format(files=files), kwargs)


def test_no_token_is_kept_with_the_weights(files, kept_in) -> None:
    """Neither in the kept files nor in the engine's model and tokenizer."""
    engine = get_engine("transformers", files / "plain.gguf", {"token": "hf_abcdefghijkl"})
    for path in kept_in.rglob("*.json"):
        assert "hf_abc" not in path.read_text()
    assert "hf_abc" not in repr(engine.tokenizer.init_kwargs) + json.dumps(engine.model.config.to_dict(), default=str)
