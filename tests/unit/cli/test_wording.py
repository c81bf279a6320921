"""Errors of the library in the words of the command line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from langnorm import NormProfile
from langnorm.cli import app
from langnorm.cli.wording import _OPTIONS, in_options
from langnorm.errors import OptionError
from langnorm.norms.baseline import NormSnapshot
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.thresholds import IQRThreshold
from langnorm.testing import ScriptedEngine

NAMED_BY_NO_ERROR = {
    "--debug": "a flag",
    "--engine-option": "named as `engine_kwargs`, in forms of its own",
    "--html": "the command's own, which names it itself",
    "--json": "a flag",
    "--n": "checked by the command; `n` elsewhere is --select",
    "--no-think": "a flag",
    "--num-tasks": "checked by the command",
    "--own": "the command's own, which names it itself",
    "--out": "the command's own, which names it itself",
    "--prompts": "the command's own, which names it itself",
    "--restart": "a flag",
    "--sae": "the command's own; errors name the folder",
    "--step-states": "checked by the command; `batch_size` elsewhere is another one",
    "--system": "a text, of which all are allowed",
    "--verbose": "a flag",
    "--version": "a flag",
}
"""The options of commands that no error of the library names as an argument, with the reason."""


def options_of(command: Any) -> Iterator[str]:
    """Yields the long names of the options of a command and of those below it."""
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield next(name for name in parameter.opts if name.startswith("--"))
    for below in getattr(command, "commands", {}).values():
        yield from options_of(below)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('take `model_kwargs={"dtype": "bfloat16"}`.', "take `--dtype bfloat16`."),
        ('as `model_kwargs={"chat_template": "..."}`.', "as `--chat-template FILE`."),
        ('it is said by `model_kwargs={"dtype": ...}`.', "it is said by `--dtype ...`."),
        ("`device_map='gpu'` of `model_kwargs` is not", "`--device gpu` is not"),
        ("Use `device_map`", "Use `--device`"),
        ("raise `max_tokens`.", "raise `--max-tokens`."),
        ("`vote='most'` of `selection` is not", "`--vote most` is not"),
        ("`k=100000` is not", "`--k 100000` is not"),
        ("`name=''` is not", "`--name ''` is not"),
        ("`api_key` is not", "`--api-key` is not"),
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
        ("`score=None`. Name a score", "`--score none`. Name a score"),
    ],
)
def test_arguments_become_options(said, shown) -> None:
    """Arguments that an option stands for have its name; others stay as they are."""
    assert in_options(said) == shown


def test_every_option_of_the_commands_is_known() -> None:
    """One that is added has its argument's name in the table, or a reason here why no error names it."""
    options = set(options_of(typer.main.get_command(app)))
    assert options == {*_OPTIONS.values(), *NAMED_BY_NO_ERROR}
    assert not NAMED_BY_NO_ERROR.keys() & _OPTIONS.values()


def test_no_option_is_named_that_the_command_lacks() -> None:
    """An argument stays one where it cannot be given by an option."""
    said = 'Use `layers="late"`, raise `max_tokens` or `timeout=2`, or leave it: `selection=None`.'
    shown = 'Use `layers="late"`, raise `--max-tokens` or `timeout=2`, or leave it: `selection=None`.'
    assert in_options(said, {"--max-tokens", "--own"}) == shown


def test_what_a_command_cannot_do_is_no_mend() -> None:
    """It has no way to calibrate other layers, nor to do without the profile of a model."""
    engine = ScriptedEngine(["Four."])
    sketch = QuantileSketch(range(4))
    sketch.update(torch.ones(3, 4))
    snapshot = NormSnapshot(engine, NormProfile("mine", engine.identity, sketch))
    with pytest.raises(OptionError) as error:
        snapshot.baseline((0, 1), IQRThreshold(), 0.1, "token")
    assert in_options(str(error.value)).endswith("of the layers 0, 1. Use `--layers late`, or `--intensity layer`.")


def test_every_command_shows_where_an_error_arose() -> None:
    """As the line about an unforeseen one says; the harness has arguments of its own."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    probes = commands.pop("probe").commands
    without = [name for name, each in {**commands, **probes}.items() if "--debug" not in options_of(each)]
    assert without == ["lm-eval"]


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("mild", "`mild` is not NAME=OPTIONS."),
        ("a b={}", "`a b={}` is not NAME=OPTIONS."),
        ("samples={}", "`samples={}` has the name of the samples"),
        ('a={"n": 2}', '`n` of `a={"n": 2}` asks for several answers. Leave it out'),
        ('a={"steerin": {}}', "has no option `steerin`. Did you mean `steering`?"),
        ('a={"max_tokens": 0}', "`max_tokens=0` is not allowed."),
    ],
)
def test_a_wrong_method_of_ones_own_is_named_by_its_option(own, message, monkeypatch) -> None:
    """Before a model is loaded, and what stands in it by the names of a call's options."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    result = CliRunner().invoke(app, ["eval", "--own", own])
    assert result.exit_code == 2
    assert "Invalid value for --own: " in result.stderr
    assert message in result.stderr
    assert "`methods`" not in result.stderr
