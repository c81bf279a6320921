"""Models are loaded once however they are named, and what does not load says what mends it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.errors as hub
import pytest
import torch
import transformers
from pydantic import SecretStr

import langnorm
from langnorm import ChatLangNorm, NormProfile
from langnorm.engines import registry
from langnorm.engines.registry import get_engine
from langnorm.engines.transformers import files, load_errors
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import MissingDependencyError, ModelError, OptionError
from langnorm.testing import ScriptedEngine


@pytest.fixture(autouse=True)
def _nothing_loaded(monkeypatch) -> None:
    monkeypatch.setattr(registry, "_loaded", {})


@pytest.fixture
def folder(tmp_path, model_of, tokenizer) -> Path:
    """Returns the folder of a tiny model in float32."""
    model_of("qwen3").save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def load(model, **model_kwargs) -> TransformersEngine:
    """Returns the engine of a model."""
    return get_engine("transformers", model, model_kwargs)


def test_every_spelling_of_a_model_shares_its_weights(folder, monkeypatch) -> None:
    """Text, path, relative, with a slash, by a link, and with arguments that say what holds anyway."""
    monkeypatch.chdir(folder.parent)
    (folder.parent / "link").symlink_to(folder, target_is_directory=True)
    engine = load(folder)
    for name in (
        str(folder),
        f"{folder}/",
        "tiny",
        "tiny/",
        "./tiny",
        Path("tiny"),
        "link",
        f"{folder.parent}/x/../tiny",
    ):
        if "x/.." in str(name):
            (folder.parent / "x").mkdir()
        assert load(name) is engine, name
    for kwargs in (
        {"dtype": "float32"},
        {"dtype": torch.float32},
        {"torch_dtype": "torch.float32"},
        {"dtype": "float"},
        {"dtype": "auto"},
        {"dtype": None, "token": "hf_abcdefghijkl", "device_map": None, "revision": "main"},
        {"trust_remote_code": False, "local_files_only": True},
    ):
        assert load(folder, **kwargs) is engine, kwargs
    assert ChatLangNorm(model=folder).loaded_engine() is ChatLangNorm(model=f"{folder}/").loaded_engine() is engine
    narrow = load(folder, dtype="bfloat16")
    assert narrow is not engine
    assert load("tiny/", torch_dtype=torch.bfloat16) is narrow


def test_a_model_of_the_hub_shares_its_weights_too(folder, tmp_path) -> None:
    """Its default dtype is known when its files are here."""
    snapshot = tmp_path / "hub" / "models--some--repo" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    (tmp_path / "hub" / "models--some--repo" / "refs").mkdir()
    (tmp_path / "hub" / "models--some--repo" / "refs" / "main").write_text("abc")
    folder.rename(snapshot)
    where = {"cache_dir": str(tmp_path / "hub")}
    engine = load("some/repo", **where)
    assert load("some/repo", **where, dtype="float32", revision="main") is engine
    assert engine.name == "some/repo"


def test_a_relative_name_follows_the_working_folder(folder, tmp_path, monkeypatch) -> None:
    """The same name in another folder is another model."""
    monkeypatch.chdir(folder.parent)
    engine = load("tiny")
    (tmp_path / "other" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(ModelError, match="its folder is empty"):
        load("tiny")
    assert load(folder) is engine


def test_unload_frees_the_weights(folder) -> None:
    """They are loaded again by the next call."""
    chat = ChatLangNorm(model=folder, temperature=0, max_tokens=2)
    said = chat.invoke("hi").content
    weights = weakref.ref(chat.loaded_engine().model)
    langnorm.unload()
    end = time.monotonic() + 20  # the worker that ran the last batch may still be ending
    while weights() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.05)
    assert weights() is None
    assert chat.invoke("hi").content == said


def test_locks_are_kept_only_while_they_are_used(folder, monkeypatch) -> None:
    """Names that were asked for once leave nothing behind, and a lock in use is one for all."""
    load(folder)
    gc.collect()
    assert not registry._locks
    started, counted = threading.Barrier(4), []

    def count(model, *_options) -> object:
        counted.append(model)
        return object()

    monkeypatch.setattr(registry, "_get_loader", lambda _: count)
    monkeypatch.setattr(registry, "_loaded", {})
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: started.wait(20) is None or load(folder), range(4)))
    assert len(counted) == 1


def test_messages_name_the_model_of_an_engine(folder, model_of, tokenizer) -> None:
    """Not the bundled one: where it was loaded from, its class, or what the user calls it."""
    made = TransformersEngine(model_of("qwen3"), tokenizer)
    assert made.name == "Qwen3ForCausalLM"
    read = TransformersEngine(transformers.AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    for chat, name in (
        (ChatLangNorm(engine=made, max_tokens=4), "Qwen3ForCausalLM"),
        (ChatLangNorm(engine=read, max_tokens=4), str(folder)),
        (ChatLangNorm(engine=made, model="mine", max_tokens=4), "mine"),
        (ChatLangNorm(engine=ScriptedEngine(["a"])), "ScriptedEngine"),
    ):
        assert chat.model == name
        assert chat.invoke("hi").response_metadata["model_name"] == name
        assert chat._get_ls_params()["ls_model_name"] == name
    profile = NormProfile.calibrate(
        ChatLangNorm(engine=made, temperature=1, max_tokens=4), ["hi"], num_tokens=2, show_progress=False
    )
    assert profile.name == "Qwen3ForCausalLM"


def test_an_engine_runs_one_model() -> None:
    """A call that names another one is refused, not answered by this one."""
    chat = ChatLangNorm(engine=ScriptedEngine(["a"]), model="mine")
    with pytest.raises(OptionError, match="`model='other'` is another model than `mine`"):
        chat.invoke("hi", model="other")
    assert chat.invoke("hi", model="mine").content == "a"


def write(path: Path, value: object) -> None:
    """Writes JSON to a file."""
    path.write_text(json.dumps(value))


def config_of(folder: Path, **changes: object) -> None:
    """Changes fields of a config; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | changes
    write(folder / "config.json", {name: value for name, value in config.items() if value is not None})


SPOILERS = {
    "empty": (lambda folder: [path.unlink() for path in folder.iterdir()], "its folder is empty"),
    "no config": (lambda folder: (folder / "config.json").unlink(), r"no config\.json.*save_pretrained"),
    "no tokenizer": (
        lambda folder: [path.unlink() for path in folder.glob("tokenizer*")],
        r"no tokenizer\.json. Copy the tokenizer's files",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"no weights \(model\.safetensors\)"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "is no JSON object"),
    "a list": (lambda folder: write(folder / "config.json", []), "is no JSON object"),
    "no type": (lambda folder: config_of(folder, model_type=None), "no `model_type`"),
    "unknown type": (
        lambda folder: config_of(folder, model_type="qwen33"),
        r"`model_type='qwen33'`, which transformers [\d.]+ does not know.*--upgrade.*Did you mean `qwen3`",
    ),
    "no causal model": (lambda folder: config_of(folder, model_type="vit"), "no causal language model"),
    "adapter": (
        lambda folder: (folder / "config.json").rename(folder / "adapter_config.json"),
        "holds an adapter. Merge it",
    ),
    "cut short": (
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
        "damaged or cut short: download it again",
    ),
    "nested": (
        lambda folder: (
            (folder / "checkpoint-5").mkdir(),
            (folder / "config.json").rename(folder / "checkpoint-5" / "config.json"),
        ),
        "no config.json. Give `.*checkpoint-5`",
    ),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_folder_that_lacks_something_says_what(folder, spoiler) -> None:
    """And what to do about it."""
    spoil, said = SPOILERS[spoiler]
    spoil(folder)
    with pytest.raises(ModelError, match=rf"The model `{folder}` could not be loaded.*{said}"):
        load(folder)


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"dtype": "flot32"}, r"`dtype='flot32'` of `model_kwargs`.*\"bfloat16\".*Did you mean `float32`"),
        ({"torch_dtype": "int8"}, "`dtype='int8'`"),
        ({"dtype": 16}, "`dtype=16`"),
        ({"device_map": "gpu"}, r"`device_map='gpu'`.*this machine has \"cpu\""),
        ({"device_map": "cuda:77"}, "`device_map='cuda:77'`"),
        ({"device": "cpu"}, "Use `device_map`"),
        (
            {"trust_remote_code": "false"},
            "`trust_remote_code='false'` of `model_kwargs` is not allowed. Use True or False",
        ),
        ({"chat_template": Path("/no/such/file")}, "chat template `/no/such/file` cannot be read"),
    ],
)
def test_a_wrong_argument_says_what_is_allowed(folder, kwargs, said, monkeypatch) -> None:
    """Before a file of the weights is opened."""
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(OptionError, match=said):
        load(folder, **kwargs)


def test_an_unknown_argument_is_told(folder) -> None:
    """It is not one of the folder's faults."""
    with pytest.raises(ModelError, match="'foo'.*`model_kwargs` has an argument that neither langnorm nor"):
        load(folder, foo=3)


def test_a_subfolder_that_is_not_there(folder) -> None:
    """Is named."""
    with pytest.raises(ModelError, match="no subfolder `inner`"):
        load(folder, subfolder="inner")


def test_a_subfolder_is_read(folder) -> None:
    """Both the weights and the tokenizer."""
    assert load(folder.parent, subfolder=folder.name) is load(folder)


def test_a_file_that_is_no_gguf_names_the_folder(folder) -> None:
    """The weights alone are no model."""
    with pytest.raises(ModelError, match="is a file, and not a GGUF file. Give the folder"):
        load(folder / "model.safetensors")


RESPONSE = type("Response", (), {"headers": {}, "request": None, "status_code": 401})()


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (hub.GatedRepoError("x", response=RESPONSE), "grants access on the page of `some/repo`.*hf auth login"),
        (hub.RepositoryNotFoundError("x", response=RESPONSE), "no such model on the hub, or it is private"),
        (hub.RevisionNotFoundError("x", response=RESPONSE), "no such revision"),
        (hub.RemoteEntryNotFoundError("x", response=RESPONSE), "is on the hub, and has no such file"),
        (hub.OfflineModeIsEnabled("x"), "looked for on the hub, which cannot be reached. Connect"),
        (ConnectionError("x"), "looked for on the hub, which cannot be reached"),
        (MemoryError(), r"does not fit into memory.*\"dtype\": \"bfloat16\""),
        (ValueError("odd"), "Check its files and `model_kwargs`"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_the_hub_name_the_mend(monkeypatch, cause, said) -> None:
    """Whatever transformers wraps around them."""

    def fail(*_args, **_kwargs):
        msg = "transformers says this"
        raise OSError(msg) from cause

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(ModelError, match=said):
        load("some/repo")


def test_a_missing_package_is_an_error_of_its_own(folder, monkeypatch) -> None:
    """With the package's name, as transformers says it."""

    def fail(*_args, **_kwargs):
        msg = "pip install bitsandbytes"
        raise ImportError(msg)

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(MissingDependencyError, match="pip install bitsandbytes.*Install the package"):
        load(folder)


def test_the_token_reaches_the_loader_and_nothing_else(folder, monkeypatch) -> None:
    """Given as text or hidden, nested or not; an error's text and its traceback show asterisks."""
    token = "hf_abcdefghijklmnop"
    given = []

    def fail(*_args, **kwargs):
        given.append(kwargs)
        msg = f"401 for {kwargs['token']} at {kwargs['proxies']['https']}"
        raise OSError(msg)

    monkeypatch.setattr(files, "check_folder_of_model", lambda _: None)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    proxies = {"https": "http://user:pass1234@proxy"}
    for value in (token, SecretStr(token)):
        chat = ChatLangNorm(model=folder, model_kwargs={"token": value, "proxies": proxies})
        with pytest.raises(ModelError) as raised:
            chat.invoke("hi")
        shown = "".join(traceback.format_exception(raised.value))
        assert token not in shown.replace(Path(__file__).read_text(), "")
        assert "pass1234" not in str(raised.value)
        assert "**********" in str(raised.value)
    assert [kwargs["token"] for kwargs in given] == [token, token]
    assert given[0]["proxies"] == proxies
    monkeypatch.undo()
    engine = load(folder, token=token)
    assert token not in repr(engine.tokenizer.init_kwargs) + repr(engine.model.config) + repr(vars(engine))
    assert token not in repr(registry._loaded)


CUSTOM_CODE = """
from pathlib import Path
Path("ran").write_text("x")
from transformers import Qwen3Config, Qwen3ForCausalLM
class OwnConfig(Qwen3Config):
    model_type = "own"
class OwnModel(Qwen3ForCausalLM):
    config_class = OwnConfig
"""


@pytest.mark.parametrize("kwargs", [{}, {"trust_remote_code": None}, {"trust_remote_code": False}])
@pytest.mark.parametrize("kind", ["own", "qwen3"])
def test_code_of_a_model_is_not_run_and_nothing_asks(folder, monkeypatch, kwargs, kind) -> None:
    """Whatever standard input says; the error names the argument. A family that transformers knows runs without it."""
    (folder / "own.py").write_text(CUSTOM_CODE)
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config_of(folder, model_type=kind, auto_map=auto_map)
    program = (
        "import sys; from langnorm import ChatLangNorm\n"
        f"print(ChatLangNorm(model={str(folder)!r}, model_kwargs={kwargs!r}, max_tokens=1).invoke('hi').type)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input="y\n" * 9, capture_output=True, text=True, cwd=folder.parent, check=False
    )
    assert not (folder.parent / "ran").exists()
    assert "[y/N]" not in done.stdout
    if kind == "own":
        assert 'run only if you trust it: `model_kwargs={"trust_remote_code": True}`' in done.stderr
    else:
        assert done.stdout == "ai\n", done.stderr


def test_code_of_a_model_is_run_where_it_is_trusted(folder, tmp_path, monkeypatch) -> None:
    """`trust_remote_code=True` is handed on."""
    (folder / "own.py").write_text(CUSTOM_CODE)
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config_of(folder, model_type="own", auto_map=auto_map, architectures=["OwnModel"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert type(load(folder, trust_remote_code=True).model).__name__ == "OwnModel"
    assert (tmp_path / "ran").exists()


def test_a_template_is_given_as_text_or_file(folder, tmp_path) -> None:
    """Where a model has none, or another one is wanted."""
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (tmp_path / "t.jinja").write_text(template)
    for given in (template, tmp_path / "t.jinja"):
        assert load(folder, chat_template=given).tokenizer.chat_template == template
    with pytest.raises(OptionError, match="it is no text in UTF-8"):
        load_errors.read_template(folder / "model.safetensors")
