"""What a model is able to do, as far as its files say so: no weights are loaded and nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from langchain_core.language_models import ModelProfile

import langnorm.abacus
from langnorm.engines.base import ABILITIES, Engine
from langnorm.engines.registry import BUNDLED_MODEL
from langnorm.text.marks import THINKING_TAGS

_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def describe_abilities(engine: str | Engine, model: str, model_kwargs: Mapping[str, Any]) -> ModelProfile:
    """Return LangChain's description of a model; of a model whose files are not here, only what holds for all.

    Args:
        engine: Name of the engine, or an engine, which knows its model.
        model: `"abacus"`, a folder, or a name on the Hugging Face hub.
        model_kwargs: For the engine's loader.
    """
    abilities = ABILITIES if isinstance(engine, str) else getattr(engine, "abilities", ABILITIES)
    has_grammars = "grammar" in abilities and all(find_spec(package) for package in ("llguidance", "jsonschema"))
    profile = ModelProfile(
        text_inputs=True,
        text_outputs=True,
        image_inputs=False,
        audio_inputs=False,
        structured_output=has_grammars,
    )
    if isinstance(engine, str):
        config = _read_json(_find_file(model, "config.json", model_kwargs))
        given = model_kwargs.get("chat_template")
        template = _read_text(given) if isinstance(given, Path) else given or _read_template(model, model_kwargs)
        length = (config.get("text_config") or config).get("max_position_embeddings")
    else:
        length, template = engine.context_length, getattr(engine.tokenizer, "chat_template", None)
    if isinstance(length, int):
        profile["max_input_tokens"] = length
    if template:
        takes_tools = "tools" in str(template)
        profile["tool_calling"] = takes_tools
        profile["tool_choice"] = takes_tools and has_grammars
        profile["reasoning_output"] = any(opening in str(template) for opening, _ in THINKING_TAGS)
    return profile


def _read_template(model: str, model_kwargs: Mapping[str, Any]) -> Any:
    for name in _TEMPLATE_FILES:
        path = _find_file(model, name, model_kwargs)
        if path is None:
            continue
        template = (
            path.read_text(encoding="utf-8") if path.suffix == ".jinja" else _read_json(path).get("chat_template")
        )
        if template:
            return template
    return None


def _find_file(model: str, name: str, model_kwargs: Mapping[str, Any]) -> Path | None:
    """Return a file of a model that is on this machine, or None."""
    subfolder = str(model_kwargs.get("subfolder") or "")
    folder = langnorm.abacus.path() if model == BUNDLED_MODEL else Path(model, subfolder)
    if folder.is_dir():
        path = folder / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    where = {key: model_kwargs[key] for key in ("cache_dir", "revision") if key in model_kwargs}
    try:
        cached = try_to_load_from_cache(model, "/".join(filter(None, (subfolder, name))), **where)
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _read_text(path: Path) -> str:
    """Return what a text file says, and nothing where there is none; that it is missing is said by the first call."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read_json(path: Path | None) -> dict[str, Any]:
    """Return what a JSON file says, and nothing where there is none or it is none."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}
