"""The commands of `langnorm`."""

from __future__ import annotations

from typing import Annotated

import typer

from langnorm import __version__
from langnorm.cli import ask as asking
from langnorm.cli import calibrate, chat, evaluate, trace
from langnorm.cli.lm_eval import CONTEXT_SETTINGS, NAME, lm_eval
from langnorm.cli.probe import probe
from langnorm.cli.process import Commands
from langnorm.cli.serve import serve

app = typer.Typer(
    name="langnorm",
    cls=Commands,
    help="Run a local language model and see how hard it is thinking.",
    epilog=f"Try:  {asking.EXAMPLE}",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog=asking.EXAMPLES)(asking.ask)
app.command(epilog=chat.EXAMPLES)(chat.chat)
app.command(epilog=trace.EXAMPLES)(trace.trace)
app.command(epilog=calibrate.EXAMPLES)(calibrate.calibrate)
app.command("eval", epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command()(serve)
app.add_typer(probe)
app.command(NAME, context_settings=CONTEXT_SETTINGS)(lm_eval)


def _print_version(is_wanted: bool) -> None:  # noqa: FBT001 (typer calls it so)
    if is_wanted:
        typer.echo(f"langnorm {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 (its callback does it all)
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
