"""Errors of the library in the words of the command line."""

from __future__ import annotations

import pytest

from langnorm.cli.wording import in_options


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('take `model_kwargs={"dtype": "bfloat16"}`.', "take `--dtype bfloat16`."),
        ('as `model_kwargs={"chat_template": "..."}`.', "as `--chat-template FILE`."),
        ("`device_map='gpu'` of `model_kwargs` is not", "`--device gpu` is not"),
        ("Use `device_map`", "Use `--device`"),
        ("raise `max_tokens`.", "raise `--max-tokens`."),
        ("`vote='most'` of `selection` is not", "`--vote most` is not"),
        ("`n=0` is not", "`--select 0` is not"),
        ('Use `layers="late"` or', "Use `--layers late` or"),
        ("`max_tokens=0` is not", "`--max-tokens 0` is not"),
        ("Give `gguf_cache=False`, `a == b`", "Give `gguf_cache=False`, `a == b`"),
        ("switch it off with `selection=None`.", "switch it off with `--select 1`."),
        ('Give `engine_kwargs={"enforce_eager": True}`.', "Give `--engine-option enforce_eager=true`."),
        ("`chunk=0` of `engine_kwargs` is not", "`--engine-option chunk=0` is not"),
        ("`timeout=0` of `engine_kwargs` is not", "`--engine-option timeout=0` is not"),
        ("Raise `context_length` of `engine_kwargs`, or", "Raise `context_length` of `--engine-option`, or"),
        ('`model_kwargs={"token": ...}`', '`model_kwargs={"token": ...}`'),
    ],
)
def test_arguments_become_options(said, shown) -> None:
    """Arguments that an option stands for have its name; others stay as they are."""
    assert in_options(said) == shown
