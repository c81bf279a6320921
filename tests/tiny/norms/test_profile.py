"""A profile belongs to one model, says so, and is never half-written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from langnorm import ChatLangNorm, NormProfile, NormTrace
from langnorm.engines.transformers.engine import TransformersEngine
from langnorm.errors import OptionError
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.profile import FILE_NAME
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.step_ranks import StepSample
from langnorm.norms.token_sums import TokenSums

IDENTITY = ModelIdentity("Qwen3ForCausalLM", "0a1b", "float32", 3, "2c3d")


def profile(identity: ModelIdentity = IDENTITY, value: float = 7.0, layers: tuple[int, ...] = (0, 1, 2)) -> NormProfile:
    """Return a profile of ten equal tokens."""
    sketch = QuantileSketch(layers)
    sketch.update(torch.full((10, len(layers)), value))
    return NormProfile("mine", identity, sketch)


@pytest.fixture
def chat(engine_of, tokenizer) -> ChatLangNorm:
    """Return a chat model over a tiny engine."""
    return ChatLangNorm(engine=engine_of("qwen3"), temperature=0, max_tokens=6)


def fitted(chat: ChatLangNorm) -> NormProfile:
    """Return a profile of one answer of the model of `chat`."""
    engine = chat.loaded_engine()
    sketch = QuantileSketch(range(engine.num_layers))
    rows = NormTrace.from_message(chat.invoke("Hi", layers="all", norms="tokens")).token_norms
    sketch.update(torch.tensor(rows))
    return NormProfile("mine", engine.identity, sketch)


def test_a_file_gives_back_its_profile(tmp_path: Path) -> None:
    """All of it, and nothing else is in the folder."""
    profile().save(tmp_path / "p.json")
    assert NormProfile.load(tmp_path / "p.json") == profile()
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When writing fails, the file that was there stays, and nothing is left beside it."""
    profile().save(tmp_path / "p.json")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("langnorm.files.os.fsync", fail)
    with pytest.raises(OptionError, match="cannot be written .No space left on device"):
        profile(value=8.0).save(tmp_path / "p.json")
    assert NormProfile.load(tmp_path / "p.json") == profile()
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"langnorm_profile": 1}', '{"langnorm_profile": 2, "name": "x"}'])
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, text: str) -> None:
    """The error says how to make one."""
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(OptionError, match=r"p\.json` is not a profile .* `langnorm calibrate`"):
        NormProfile.load(tmp_path / "p.json")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(OptionError, match=r"`.*p\.json` cannot be read .No such file"):
        NormProfile.load(tmp_path / "p.json")


def test_profiles_of_the_same_model_are_merged() -> None:
    """The tokens of both."""
    mine = profile()
    mine.merge(profile(value=9.0))
    assert mine.num_tokens == 20
    assert mine.sketch.quantile(1.0).tolist() == [9.0] * 3


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dtype": "bfloat16", "weights": "ffff"}, r": dtype `float32` here, `bfloat16` there\. "),
        ({"weights": "ffff"}, r": weights `0a1b` here, `ffff` there\. "),
        ({"chat_template": "ffff"}, "chat template `2c3d` here, `ffff` there"),
        ({"num_layers": 4, "weights": "ffff"}, "weights `0a1b` here, .* num layers `3` here, `4` there"),
    ],
)
def test_a_profile_of_another_model_is_refused(changed: dict[str, object], said: str) -> None:
    """The error says what differs, and only what is a reason."""
    with pytest.raises(OptionError, match=said):
        profile().merge(profile(replace(IDENTITY, **changed)))  # type: ignore[arg-type]


def test_profiles_of_other_layers_are_not_merged() -> None:
    """There would be layers with fewer tokens."""
    with pytest.raises(OptionError, match="layer"):
        profile().merge(profile(layers=(0, 1)))


def test_the_name_of_a_model_does_not_matter(chat: ChatLangNorm) -> None:
    """The same weights in another folder are the same model."""
    found = fitted(chat)
    found.name = "anything"
    found.check(chat.loaded_engine().identity)


def test_other_weights_are_another_model(chat: ChatLangNorm, model_of, tokenizer) -> None:
    """One changed layer is enough."""
    other = TransformersEngine(model_of("qwen3", seed=5), tokenizer)
    assert other.identity != chat.loaded_engine().identity
    with pytest.raises(OptionError, match="does not belong to this model: weights"):
        fitted(chat).check(other.identity)


def test_a_call_with_the_profile_of_another_model_is_refused(chat: ChatLangNorm) -> None:
    """Before anything is computed, in the constructor's field and in a call."""
    with pytest.raises(OptionError, match="does not belong to this model"):
        chat.invoke("Hi", profile=profile())
    with pytest.raises(OptionError, match="does not belong to this model"):
        ChatLangNorm(engine=chat.engine, profile=profile()).invoke("Hi")


def test_a_layer_that_the_profile_lacks_is_refused(chat: ChatLangNorm) -> None:
    """The error names both."""
    engine = chat.loaded_engine()
    with pytest.raises(OptionError, match=r"has no layer 1; it has 0\."):
        chat.invoke("Hi", layers=[0, 1], profile=profile(engine.identity, layers=(0,)))


def test_a_profile_gives_intensities(chat: ChatLangNorm, tmp_path: Path) -> None:
    """As an object, as a path, in a call, in `bind` and in the constructor."""
    made = fitted(chat)
    made.save(tmp_path / "p.json")
    by_path = ChatLangNorm(engine=chat.engine, temperature=0, max_tokens=6, profile=tmp_path / "p.json")
    for reply in (
        chat.invoke("Hi", profile=made),
        chat.bind(profile=str(tmp_path / "p.json")).invoke("Hi"),
        by_path.invoke("Hi"),
    ):
        trace = NormTrace.from_message(reply)
        assert trace.profile == "mine"
        assert trace.intensity is not None
        assert trace.thresholds is not None
    assert NormTrace.from_message(by_path.invoke("Hi", profile=None)).profile in (None, "online")


def test_a_file_that_changed_is_read_again(chat: ChatLangNorm, tmp_path: Path) -> None:
    """A profile that is calibrated anew needs no new process."""
    path = tmp_path / "p.json"
    fitted(chat).save(path)
    assert NormTrace.from_message(chat.invoke("Hi", profile=path)).profile == "mine"
    renamed = fitted(chat)
    renamed.name = "new"
    renamed.save(path)
    assert NormTrace.from_message(chat.invoke("Hi", profile=path)).profile == "new"


@pytest.mark.parametrize("option", [3, ["p.json"], True])
def test_what_is_no_profile_is_refused(option: object) -> None:
    """At once, by the constructor."""
    with pytest.raises(OptionError, match="`profile=.* is not allowed"):
        ChatLangNorm(profile=option)


def test_langchains_own_profile_is_left_to_it() -> None:
    """`chat.profile` is what LangChain and its agents read."""
    assert ChatLangNorm().profile["max_input_tokens"] == 2048  # type: ignore[index]
    assert ChatLangNorm(profile={"max_input_tokens": 7}).profile == {"max_input_tokens": 7}
    assert ChatLangNorm(profile=None).norm_profile is None


def test_the_bundled_model_ships_its_profile() -> None:
    """It fits the weights, so that a first answer has intensities."""
    reply = ChatLangNorm(temperature=0, max_tokens=20).invoke("What is 47 + 385?")
    trace = NormTrace.from_message(reply)
    assert trace.profile == "abacus"
    assert trace.intensity is not None
    assert trace.trigger_rate is not None
    json.dumps(reply.response_metadata, allow_nan=False)


def test_a_profile_that_does_not_fit_its_folder_is_left_aside(model_of, tokenizer) -> None:
    """In another dtype the shipped profile says nothing, and that is no error."""
    engine = TransformersEngine(model_of("qwen3"), tokenizer, profile=profile())
    assert engine.profile is None
    assert FILE_NAME == "norm_profile.json"


def with_tokens(value: float = 7.0, layers: tuple[int, ...] = (1, 2)) -> NormProfile:
    """Return a profile of ten tokens that knows what is usual for three ids."""
    made = profile(value=value)
    sums = TokenSums(layers)
    sums.update([5, 5, 5, 8, 8, 8, 8, 8, 8, 600], torch.linspace(value, 2 * value, 10)[:, None].repeat(1, len(layers)))
    made.tokens = sums.table()
    return made


def test_a_table_of_tokens_lies_beside_its_profile(tmp_path: Path) -> None:
    """Both files give back the profile, and one without a table takes the earlier one away."""
    with_tokens().save(tmp_path / "p.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.json", "p.tokens"]
    loaded = NormProfile.load(tmp_path / "p.json")
    assert loaded == with_tokens()
    assert loaded != profile()
    assert repr(loaded).endswith("tokens=TokenTable(layers=[1, 2], num_ids=3, num_tokens=10))")
    assert NormProfile.from_dict(loaded.to_dict()) == profile()
    loaded.save(tmp_path / "p.json")
    assert NormProfile.load(tmp_path / "p.json") == loaded
    profile().save(tmp_path / "p.json")
    assert [path.name for path in tmp_path.iterdir()] == ["p.json"]
    assert NormProfile.load(tmp_path / "p.json") == profile()


@pytest.mark.parametrize("moment", range(3))
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_profile_never_lies_beside_the_table_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, is_killed: bool
) -> None:
    """Whatever stops a save, and where: what was there is read, and the next save leaves two files."""
    path, calls = tmp_path / "p.json", []
    with_tokens().save(path)
    real = Path.replace

    def replace_or_stop(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == moment + 1:
            raise KeyboardInterrupt
        if len(calls) > moment + 1 and is_killed:
            raise SystemExit  # nobody tidies up any more
        return real(self, target)

    for number in range(2):
        calls.clear()
        moment = min(moment, 2 - number)  # a table that was put aside already need not be again
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace_or_stop)
            if is_killed:
                patch.setattr(Path, "unlink", lambda *_, **__: None)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                with_tokens(8.0).save(path)
        assert NormProfile.load(path) == with_tokens()
    with_tokens(9.0).save(path)
    assert NormProfile.load(path) == with_tokens(9.0)
    assert {entry.name for entry in tmp_path.iterdir() if ".partial" not in entry.name} == {"p.json", "p.tokens"}


def test_a_table_that_cannot_be_put_aside_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there stays."""

    def replace(*_: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    with_tokens().save(tmp_path / "p.json")
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OptionError, match=r"p\.tokens` cannot be written .Permission denied"):
        with_tokens(8.0).save(tmp_path / "p.json")
    assert NormProfile.load(tmp_path / "p.json") == with_tokens()


def test_a_table_that_is_missing_or_foreign_is_refused(tmp_path: Path) -> None:
    """The error names it, and says to copy both files."""
    with_tokens().save(tmp_path / "p.json")
    with_tokens(8.0).save(tmp_path / "q.json")
    (tmp_path / "q.tokens").replace(tmp_path / "p.tokens")
    with pytest.raises(OptionError, match=r"p\.tokens` is not the table of tokens of `.*p\.json`.* Copy both"):
        NormProfile.load(tmp_path / "p.json")
    with pytest.raises(OptionError, match=r"q\.tokens` cannot be read .No such file.*copy both"):
        NormProfile.load(tmp_path / "q.json")


def test_files_of_others_are_never_overwritten(tmp_path: Path) -> None:
    """A profile whose table would have the name of one is refused, and one without a table leaves it alone."""
    (tmp_path / "p.tokens").write_bytes(b"another's")
    with pytest.raises(OptionError, match=r"p\.tokens` is no table of tokens, .* another name"):
        with_tokens().save(tmp_path / "p.json")
    profile().save(tmp_path / "p.json")
    assert (tmp_path / "p.tokens").read_bytes() == b"another's"
    with pytest.raises(OptionError, match="another name"):
        with_tokens().save(tmp_path / "p.tokens")


def test_tables_of_tokens_are_merged_with_their_profiles() -> None:
    """The tokens of both; one without a table, or of other layers, is refused and nothing is changed."""
    mine = with_tokens()
    mine.merge(with_tokens(9.0))
    assert mine.tokens is not None
    assert (mine.num_tokens, mine.tokens.num_tokens) == (20, 20)
    assert mine.tokens.counts.tolist() == [6, 12, 2]
    for other in (profile(), with_tokens(layers=(2,))):
        with pytest.raises(OptionError, match="only one has a table|cannot be added"):
            mine.merge(other)
    assert mine.num_tokens == 20


def with_steps(share: float = 0.5, layers: tuple[int, ...] = (0, 1, 2)) -> NormProfile:
    """Return a profile with sixty equal steps."""
    made = profile(layers=layers)
    made.steps["layer"] = StepSample(layers, np.full((60, len(layers)), share))
    return made


def test_steps_are_kept_with_their_profile(tmp_path: Path) -> None:
    """In the same file."""
    with_steps().save(tmp_path / "p.json")
    read = NormProfile.load(tmp_path / "p.json")
    assert read == with_steps()
    assert read.step_intensities("layer", (0, 2)) == (0.5,) * 60
    assert read.step_intensities("token", (0, 2)) is None


def test_steps_are_merged_with_their_profiles() -> None:
    """Those of both; where only one has any, nobody knows how the others' would rank."""
    mine = with_steps()
    mine.merge(with_steps(0.25))
    assert mine.step_intensities("layer", (1,)) == (0.25,) * 60 + (0.5,) * 60
    mine.merge(profile())
    assert mine.step_intensities("layer", (1,)) is None


def test_steps_of_layers_that_a_profile_lacks_are_refused() -> None:
    """Somebody has edited the file."""
    stored = with_steps().to_dict()
    stored["steps"]["layer"]["layers"] = [0, 1, 7]
    with pytest.raises(OptionError, match=r"its steps by layer have layers that it lacks: \[7\]"):
        NormProfile.from_dict(stored)


def test_layers_are_selected_from_a_table_of_tokens() -> None:
    """Or nothing is known of them."""
    made = with_tokens()
    assert made.tokens is not None
    assert made.select_tokens((1, 2)) is made.tokens
    assert made.select_tokens((2,)) == made.tokens.select((2,))
    assert made.select_tokens((0, 1)) is None
    assert profile().select_tokens((1,)) is None
