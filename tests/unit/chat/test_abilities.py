"""What a model is able to do is said by its files, before weights are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from langnorm import ChatLangNorm
from langnorm.testing import ScriptedEngine

WITH_TOOLS = "{% if tools %}{{ tools }}{% endif %}{{ messages }}"


def folder_with(path: Path, config: Any, **files: Any) -> str:
    """Returns a folder that has these files of a model."""
    (path / "config.json").write_text(json.dumps(config))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize(
    ("files", "takes_tools"),
    [
        ({"chat_template__jinja": WITH_TOOLS}, True),
        ({"chat_template__jinja": "{{ messages }}"}, False),
        ({"tokenizer_config__json": {"chat_template": WITH_TOOLS}}, True),
        ({"tokenizer_config__json": {"chat_template": [{"name": "tool_use", "template": WITH_TOOLS}]}}, True),
        ({"tokenizer_config__json": {"chat_template": "{{ messages }}"}}, False),
    ],
)
def test_tools_are_claimed_where_the_template_has_a_place_for_them(
    tmp_path: Path, files: dict[str, Any], takes_tools: bool
) -> None:
    """Agents choose by it; the length of the context is there too."""
    profile = ChatLangNorm(model=folder_with(tmp_path, {"max_position_embeddings": 4096}, **files)).profile
    assert profile is not None
    assert profile["tool_calling"] is takes_tools
    assert profile["tool_choice"] is takes_tools
    assert profile["max_input_tokens"] == 4096


def test_a_template_that_was_given_counts(tmp_path: Path) -> None:
    """It replaces that of the tokenizer."""
    model = folder_with(
        tmp_path, {"text_config": {"max_position_embeddings": 8}}, chat_template__jinja="{{ messages }}"
    )
    profile = ChatLangNorm(model=model, model_kwargs={"chat_template": WITH_TOOLS + "<think>"}).profile
    assert profile is not None
    assert (profile["tool_calling"], profile["reasoning_output"], profile["max_input_tokens"]) == (True, True, 8)


@pytest.mark.parametrize("model", ["./no-such-folder", "some/name-that-is-not-here", "a b c"])
def test_what_is_not_known_is_not_said(model: str) -> None:
    """A model of the hub whose files are not here yet has neither tools nor a length, and nothing is fetched."""
    profile = ChatLangNorm(model=model).profile
    assert profile is not None
    assert "tool_calling" not in profile
    assert "max_input_tokens" not in profile
    assert profile["text_inputs"]


def test_files_that_are_broken_say_nothing(tmp_path: Path) -> None:
    """The error comes when the model is loaded."""
    profile = ChatLangNorm(model=folder_with(tmp_path, [1], tokenizer_config__json="{")).profile
    assert profile is not None
    assert "tool_calling" not in profile


def test_an_engine_knows_its_model() -> None:
    """It is asked, and not the name."""
    profile = ChatLangNorm(engine=ScriptedEngine(["x"], context_length=77)).profile
    assert profile is not None
    assert (profile["max_input_tokens"], profile["tool_calling"]) == (77, True)
    bundled = ChatLangNorm().profile
    assert bundled is not None
    assert (bundled["max_input_tokens"], bundled["tool_calling"], bundled["reasoning_output"]) == (2048, True, True)


def test_an_engine_without_grammars_has_no_structured_output() -> None:
    """An agent would choose it, and be refused."""

    class Plain(ScriptedEngine):
        """An engine that generates text."""

        abilities = ScriptedEngine.abilities - {"grammar"}

    for engine, is_able in ((Plain(["x"]), False), (ScriptedEngine(["x"]), True)):
        profile = ChatLangNorm(engine=engine).profile
        assert profile is not None
        assert (profile["structured_output"], profile["tool_choice"]) == (is_able, is_able)
        assert profile["tool_calling"]
