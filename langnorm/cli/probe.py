"""`langnorm probe`: whether the norm is a signal in a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langnorm.cli import loading
from langnorm.cli.options import (
    ChatTemplateOption,
    DeviceOption,
    DtypeOption,
    EngineOption,
    GgufOption,
    ModelOption,
    parse_layers,
)
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import OptionError
from langnorm.files import check_folder, write_atomically

probe = typer.Typer(
    name="probe",
    help="Find out whether the norm is a signal in a model.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

TasksOption = Annotated[
    str,
    typer.Option(
        metavar="FILE", help="Problems: JSON lines with a question and an answer each, as GSM8K has them; or abacus."
    ),
]
NumTasksOption = Annotated[int, typer.Option(min=2, metavar="N", help="How many of them, from the first.")]
OutOption = Annotated[
    Path,
    typer.Option(metavar="FILE", help="The page that is written; beside it, all figures as .json.", show_default=False),
]
BatchOption = Annotated[int, typer.Option(min=1, metavar="N", help="Answers that run together.")]
AnswerLengthOption = Annotated[int, typer.Option(min=2, metavar="N", help="Most tokens of an answer.")]


def _numbers(kind: type[int] | type[float]) -> Any:
    def parse(value: str) -> list[Any]:
        try:
            return [kind(part) for part in value.split(",")]
        except ValueError:
            msg = f"`{value}` is no list of numbers. Use such as {'0,1,2' if kind is int else '0.9,0.99'}."
            raise typer.BadParameter(msg) from None

    return parse


def _out_files(out: Path, suffix: str) -> tuple[Path, Path]:
    """Return the page and the file of figures, both of which can be written."""
    if out.suffix == ".json":
        msg = (
            f"`{out}` is to be a page, and its figures come beside it as .json. Use such as {out.with_suffix(suffix)}."
        )
        raise OptionError(msg)
    figures = out.with_suffix(".json")
    for path in (out, figures):
        check_folder(path)
    return out, figures


SeedsOption = Annotated[
    Any, typer.Option(parser=_numbers(int), metavar="S,...", help="Each problem is answered with each of them.")
]
HeatOption = Annotated[float, typer.Option(min=0, metavar="T", help="0 is greedy.")]


@probe.command()
def signal(
    *,
    out: OutOption,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    tasks: TasksOption = BUNDLED_MODEL,
    num_tasks: NumTasksOption = 100,
    seeds: SeedsOption = "0",
    temperature: HeatOption = 0.7,
    max_tokens: AnswerLengthOption = 512,
    batch_size: BatchOption = 16,
) -> None:
    """See what the norms of a model do: the first thing to run on a new model; a page of HTML with plots.

    Each problem is answered with reasoning and without. The page shows norms by layer, attention sinks, how often each
    threshold rule finds a norm high, what norms go with (token, surprisal, position), and whether they are higher on
    reasoned answers and on right ones. Plots need the extra plots.
    """
    from langnorm.probes.figures import write_figures
    from langnorm.probes.signal import probe_signal
    from langnorm.probes.signal_page import check_plots, signal_page
    from langnorm.probes.tasks import read_tasks

    check_plots()
    asked = read_tasks(tasks, num_tasks)
    page, file = _out_files(out, ".html")
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_batch_size=batch_size,
    )
    figures = probe_signal(chat, asked, seeds=seeds, temperature=temperature, max_tokens=max_tokens)
    write_figures(file, {"model": model, "tasks": tasks, **figures})
    write_atomically(page, signal_page(figures, f"{model} on {tasks}"))
    typer.echo(f"Written to {page} and {file}.")


@probe.command()
def causal(
    *,
    out: OutOption,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    tasks: TasksOption = BUNDLED_MODEL,
    num_tasks: NumTasksOption = 100,
    layers: Annotated[
        list[Any] | None,
        typer.Option(
            parser=parse_layers,
            metavar="LAYERS",
            help="Layers to suppress: late, deep, middle, all, or such as 3,4,5. Given again: one after the other.",
            show_default="late",
        ),
    ] = None,
    quantiles: Annotated[
        Any,
        typer.Option(
            parser=_numbers(float), metavar="Q,...", help="Which shares of a layer's norms are not high: the doses."
        ),
    ] = "0.9,0.99",
    action: Annotated[
        str, typer.Option(metavar="ACTION", help="mul multiplies by FACTOR; clamp goes to a quarter of the threshold.")
    ] = "mul",
    factor: Annotated[float, typer.Option(metavar="FACTOR", help="See --action.")] = 0.1,
    seeds: SeedsOption = "0,1,2",
    temperature: HeatOption = 0.7,
    max_tokens: AnswerLengthOption = 512,
    batch_size: BatchOption = 16,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever a run that was stopped has left.")
    ] = False,
) -> None:
    """Check whether suppressing high norms costs more right answers than suppressing as many others; a Markdown page.

    A run that is stopped goes on when the same command is given again; with other settings it has to --restart.
    """
    from langnorm.probes.causal import CausalCheck, run_causal_check
    from langnorm.probes.causal_report import causal_page, causal_report
    from langnorm.probes.figures import write_figures
    from langnorm.probes.tasks import read_tasks

    check = CausalCheck(
        layers=layers or ("late",),
        quantiles=quantiles,
        action=action,
        factor=factor,
        seeds=seeds,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    asked = read_tasks(tasks, num_tasks)
    page, figures = _out_files(out, ".md")
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_batch_size=batch_size,
    )
    store = page.with_name(f"{page.name}.partial")
    if restart:
        store.unlink(missing_ok=True)
    about = {"model": asdict(chat.loaded_engine().identity), "settings": chat.deciding_settings()}
    result = run_causal_check(chat, asked, check, store=store, about=about)
    report = {"model": model, "tasks": tasks, **causal_report(result)}
    text = causal_page(report, f"{model} on {tasks}")
    write_figures(figures, report)
    write_atomically(page, text)
    store.unlink(missing_ok=True)
    typer.echo(text)
    typer.echo(f"Written to {page} and {figures}.")
