"""Weights are loaded once, and a name that can be no model is refused at once."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import transformers

from langnorm.engines import registry
from langnorm.engines.registry import get_engine
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import ModelError, OptionError


@pytest.fixture
def loads(monkeypatch, tmp_path) -> list[str]:
    """Returns the models that were loaded, in place of loading them."""
    loads: list[str] = []

    def load(model: str, _model_kwargs: dict, _engine_kwargs: dict) -> object:
        loads.append(model)
        time.sleep(0.05)
        return object()

    monkeypatch.setattr(registry, "_get_loader", lambda _: load)
    monkeypatch.setattr(registry, "_loaded", {})
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    return loads


def test_concurrent_calls_load_a_model_once(loads) -> None:
    """Threads that ask for a model at the same time get one engine."""
    start = threading.Barrier(8)

    def get(_: int) -> object:
        start.wait(20)
        return get_engine("transformers", "model", {"dtype": "float32"})

    with ThreadPoolExecutor(8) as pool:
        engines = list(pool.map(get, range(8)))

    assert loads == ["model"]
    assert len(set(map(id, engines))) == 1


def test_models_do_not_wait_for_each_other(monkeypatch) -> None:
    """Different models, and one model with different arguments, are loaded at the same time."""
    meeting = threading.Barrier(3)
    monkeypatch.setattr(registry, "_get_loader", lambda _: lambda *_: meeting.wait(20))
    monkeypatch.setattr(registry, "_loaded", {})
    given = [("one", {}), ("two", {}), ("two", {"dtype": "bfloat16"})]

    with ThreadPoolExecutor(3) as pool:
        places = list(pool.map(lambda item: get_engine("transformers", *item), given))

    assert sorted(places) == [0, 1, 2]


def test_model_that_could_not_be_loaded_is_tried_again(loads, monkeypatch) -> None:
    """A failure is not remembered."""
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_get_loader", lambda _: lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            get_engine("transformers", "model", {})

    assert get_engine("transformers", "model", {}) is get_engine("transformers", "model", {})
    assert loads == ["model"]


@pytest.fixture
def no_search(monkeypatch) -> None:
    """Fails a test in which a model is looked for."""
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("looked for it"))


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize(
    "model", ["/no/such/folder", "./folder", "../folder", "~/folder", r"C:\folder", "a/b/c", "a/", "a b"]
)
def test_path_that_is_no_folder_is_refused_at_once(model, tmp_path, monkeypatch) -> None:
    """What cannot be the name of a model on the hub is not looked for there."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=rf"There is no folder `{re.escape(model)}`.*Give a folder.*`model=\"abacus\"`"
    ):
        get_engine("transformers", model, {})


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("model", ["a" * 300, "a" * 300 + ":x.gguf"])
def test_path_that_the_system_does_not_take_is_refused_at_once(model) -> None:
    """As one that is not there."""
    with pytest.raises(ModelError, match=rf"The model `{model}` cannot be looked for \(.*too long\)\. Give a folder"):
        get_engine("transformers", model, {})


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("model", ["Abacus", "abakus", "abacuss"])
def test_misspelt_bundled_model_is_refused_at_once(model, tmp_path, monkeypatch) -> None:
    """A word close to `abacus` is taken for it, not for a model on the hub."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=rf"There is no model `{model}`.*Did you mean `abacus`\?"):
        get_engine("transformers", model, {})


@pytest.mark.parametrize("model", ["abacus2", "models/mine", "my models/mine/v1"])
def test_folder_of_any_name_is_loaded(model, tmp_path, monkeypatch) -> None:
    """A folder is looked into, whatever its name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / model).mkdir(parents=True)

    with pytest.raises(ModelError, match=f"`{model}` could not be loaded: its folder is empty"):
        get_engine("transformers", model, {})


@pytest.mark.parametrize("model", ["no-such-model", "nobody/no-such-model"])
def test_name_of_the_hub_is_looked_for(model, tmp_path, monkeypatch) -> None:
    """What may be the name of a model on the hub is not refused before the hub was asked."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"`{model}` could not be loaded.*looked for on the hub"):
        get_engine("transformers", model, {})


def test_an_engine_of_another_package_is_found_by_its_entry_point(monkeypatch) -> None:
    """By name, in the group `langnorm.engines`, and loaded only when it is asked for."""
    entry = EntryPoint("scripted", "tests.bundled.engines.test_registry:load_scripted", registry.ENTRY_POINTS)
    taken = EntryPoint("transformers", "no.such:module", registry.ENTRY_POINTS)
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry, taken] if group == entry.group else [])
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_others", {})
    assert get_engine("scripted", "any", {"a": 1}, {"b": 2}) == ("any", {"a": 1}, {"b": 2})
    assert get_engine("transformers", "abacus", {}).num_layers == 12
    with pytest.raises(
        OptionError,
        match=r'no engine `scriptd`. Use `"auto"`, `"remote"`, `"llamacpp"`, `"transformers"`, `"vllm"`, `"scripted"`'
        r".*`scripted`\?",
    ):
        get_engine("scriptd", "any", {})


def test_the_packages_are_not_looked_through_for_each_call(monkeypatch) -> None:
    """That takes as long as a short answer: not for an engine of langnorm, nor again for one that was found."""
    entry = EntryPoint("scripted", "tests.bundled.engines.test_registry:load_scripted", registry.ENTRY_POINTS)
    looks = []
    monkeypatch.setattr(registry, "entry_points", lambda group: looks.append(group) or [entry])
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.setattr(registry, "_others", {})
    for engine in ("transformers", "auto"):
        get_engine(engine, "abacus", {})
    assert not looks
    for _ in range(3):
        get_engine("scripted", "any", {})
    assert len(looks) == 1


def load_scripted(model: str, model_kwargs: dict, engine_kwargs: dict) -> object:
    """Stands in for the loader of another package."""
    return model, model_kwargs, engine_kwargs


def test_the_identity_of_weights_is_that_of_their_files(abacus_engine, tmp_path) -> None:
    """In memory or loaded, in another type, split over files: the same weights; a changed one is another."""
    model, tokenizer = abacus_engine.model, abacus_engine.tokenizer
    model.save_pretrained(tmp_path / "split", max_shard_size="2MB")
    tokenizer.save_pretrained(tmp_path / "split")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    loaded = get_engine("transformers", str(tmp_path / "split"), {})
    assert loaded.identity == abacus_engine.identity
    assert TransformersEngine(model, tokenizer).identity == abacus_engine.identity
    narrow = get_engine("transformers", str(tmp_path / "split"), {"dtype": "bfloat16"})
    assert narrow.identity == replace(abacus_engine.identity, dtype="bfloat16")
