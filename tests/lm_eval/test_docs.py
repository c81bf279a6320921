"""The commands in docs/lm-eval.md are such as the harness and the model take."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.conftest import TESTS

TEXT = (TESTS.parent / "docs" / "lm-eval.md").read_text()
COMMANDS = [block.replace("\\\n", "") for block in re.findall(r"```\n(langnorm lm-eval .*?)```", TEXT, re.DOTALL)]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_right(command) -> None:
    """Their arguments are read, up to the options of the chat model and of its calls."""
    from lm_eval._cli import HarnessCLI

    from langnorm import ChatLangNorm
    from langnorm.cli.lm_eval import with_own_model
    from langnorm_lm_eval.generation import read_gen_kwargs
    from langnorm_lm_eval.options import read_model_args

    arguments = HarnessCLI()._parser.parse_args(["run", *with_own_model(shlex.split(command)[2:])])
    assert arguments.model == "langnorm"
    fields, options = read_model_args(arguments.model_args | {"batch_size": arguments.batch_size})
    chat = ChatLangNorm(**fields)
    asked = read_gen_kwargs(arguments.gen_kwargs or {"until": []}, options, {})
    chat._settings(asked.settings)
