"""`langnorm lm-eval`: lm-evaluation-harness, with `langnorm` among its models."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from typing import Annotated

import typer

from langnorm.errors import MissingDependencyError, OptionError

NAME = "lm-eval"

# Arguments go to the harness as they are, `--help` among them.
CONTEXT_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []}

_OWN_MODEL = ("--model", "langnorm")
_NAMES_A_MODEL = ("--model", "-M", "--config", "-C")

# Where the harness reads and checks what its user typed. It leaves mistakes to a traceback.
_READS_INPUT = ("lm_eval._cli", "lm_eval.api.registry", "lm_eval.config", "lm_eval.evaluator", "lm_eval.tasks")


def lm_eval(arguments: Annotated[list[str] | None, typer.Argument(metavar="[run|ls|validate] ...")] = None) -> None:
    """Run lm-evaluation-harness on a model of langnorm.

    All arguments are the harness' own: `langnorm lm-eval --help` and `langnorm lm-eval run --help` list them. The model
    is `langnorm` unless --model or --config says otherwise, and what it takes stands in docs/lm-eval.md: for example
    `--model_args pretrained=FOLDER recursion.max_extra=1`.
    """
    if importlib.util.find_spec("lm_eval") is None:
        msg = 'This needs lm-evaluation-harness, which is not installed. Run `pip install "langnorm[lm-eval]"`.'
        raise MissingDependencyError(msg)
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging

    from langnorm_lm_eval import LangNormLM  # which registers it

    setup_logging()
    sys.argv = [f"langnorm {NAME}", *with_own_model(arguments or [])]
    try:
        harness = HarnessCLI()
        parsed = harness.parse_args()
        if getattr(parsed, "model", None) == "langnorm":
            # The harness would come to this after a minute, in which it looks at all of its tasks.
            LangNormLM.check_args(parsed.model_args or {})
        harness.execute(parsed)
    except (OSError, TypeError, ValueError) as error:
        if _is_about_input(error):
            raise OptionError(str(error)) from error
        raise


def with_own_model(arguments: list[str]) -> list[str]:
    """Return the arguments with the model `langnorm`, where they run tasks and name no other one."""
    is_run = arguments[:1] == ["run"]
    if not is_run and not (arguments and arguments[0].startswith("-")):
        return arguments  # another command of the harness, or none
    asks_for_help = {"-h", "--help"} & set(arguments)
    names = {argument.split("=")[0] for argument in arguments}
    if asks_for_help or names.intersection(_NAMES_A_MODEL) or len(arguments) == is_run:
        return arguments
    return [*arguments[:is_run], *_OWN_MODEL, *arguments[is_run:]]


def _is_about_input(error: Exception) -> bool:
    """Return whether the harness raised an error because of what its user typed."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith(_READS_INPUT)
