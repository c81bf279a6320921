"""`langnorm probe`: whether the norm is a signal in a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from langnorm.cli import loading
from langnorm.cli.options import (
    ChatTemplateOption,
    DebugOption,
    DeviceOption,
    DtypeOption,
    EngineKwargsOption,
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
_KINDS_OF_PAGE = {".html": "HTML", ".md": "Markdown"}
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


def _out_files(out: Path, suffix: str, tasks: str) -> tuple[Path, Path]:
    """Return the page and the file of figures, both of which can be written and are not that of the problems."""
    if out.suffix != suffix:
        kind = _KINDS_OF_PAGE[suffix]
        as_page = out.with_suffix(suffix)
        msg = f"`--out {out}` is to be a page of {kind}, with its figures beside it as .json. Use such as {as_page}."
        raise OptionError(msg)
    figures = out.with_suffix(".json")
    for path in (out, figures):
        check_folder(path)
        if path.exists() and Path(tasks).exists() and path.samefile(tasks):
            msg = f"`--out {out}` would write over the problems in `{tasks}`. Give another name."
            raise OptionError(msg)
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
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    tasks: TasksOption = BUNDLED_MODEL,
    num_tasks: NumTasksOption = 100,
    seeds: SeedsOption = "0",
    temperature: HeatOption = 0.7,
    max_tokens: AnswerLengthOption = 512,
    batch_size: BatchOption = 16,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """See what the norms of a model do: the first thing to run on a new model; a page of HTML with plots.

    Each problem is answered with reasoning and without. The page shows norms by layer, attention sinks, how often each
    threshold rule finds a norm high, what norms go with (token, surprisal, position), and whether they are higher on
    reasoned answers and on right ones. Plots need the extra viz.
    """
    from langnorm.probes.figures import write_figures
    from langnorm.probes.problems import read_problems
    from langnorm.probes.signal import probe_signal
    from langnorm.probes.signal_page import check_plots, signal_page

    check_plots()
    asked = read_problems(tasks, num_tasks)
    page, file = _out_files(out, ".html", tasks)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
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
    engine_option: EngineKwargsOption = None,
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
    controls: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="What it is compared with, suppressing as many others: random, same_class; one alone takes less time.",
        ),
    ] = "random,same_class",
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
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Check whether suppressing high norms costs more right answers than suppressing as many others; a Markdown page.

    A run that is stopped goes on when the same command is given again; with other settings it has to --restart.
    """
    from langnorm.probes.causal import CausalCheck, run_causal_check
    from langnorm.probes.causal_report import causal_page, causal_report
    from langnorm.probes.figures import write_figures
    from langnorm.probes.problems import read_problems

    check = CausalCheck(
        layers=layers or ("late",),
        quantiles=quantiles,
        controls=[name.strip() for name in controls.split(",")],
        action=action,
        factor=factor,
        seeds=seeds,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    asked = read_problems(tasks, num_tasks)
    page, figures = _out_files(out, ".md", tasks)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
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


@probe.command()
def sae(
    *,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where everything is written; it is made.", show_default=False)
    ],
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    tasks: TasksOption = BUNDLED_MODEL,
    num_tasks: Annotated[int, typer.Option(min=4, metavar="N", help="How many of them, from the first.")] = 200,
    layers: Annotated[
        Any,
        typer.Option(
            parser=parse_layers,
            metavar="LAYERS",
            help="Layers that get an SAE each: late, deep, middle, all, or such as 3,4,5.",
            show_default="the deepest late one",
        ),
    ] = None,
    published: Annotated[
        Path | None,
        typer.Option(
            "--sae",
            metavar="FOLDER",
            help="An SAE of that layer in SAELens' format, in place of one that is trained.",
            show_default=False,
        ),
    ] = None,
    architecture: Annotated[str, typer.Option(metavar="KIND", help="topk, or standard: ReLU with an L1 penalty.")] = (
        "topk"
    ),
    expansion: Annotated[int, typer.Option(min=1, metavar="N", help="Features for each entry of a state.")] = 4,
    k: Annotated[int, typer.Option("--k", min=1, metavar="K", help="Active features of a state, of topk.")] = 32,
    l1: Annotated[float, typer.Option("--l1", min=0, metavar="L1", help="Weight of the penalty, of standard.")] = 0.01,
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Steps of training.")] = 3000,
    step_states: Annotated[int, typer.Option(min=1, metavar="N", help="States of a step.")] = 1024,
    seeds: SeedsOption = "0",
    temperature: HeatOption = 0.7,
    max_tokens: AnswerLengthOption = 512,
    batch_size: BatchOption = 16,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Train a sparse autoencoder on a model's own states, and see which features go with reasoning and with the norm.

    Each problem is answered with reasoning and without. A run that is stopped answers again and goes on with the
    training from its last checkpoint when the same command is given again. FOLDER gets report.md, report.json, and for
    each layer a folder in SAELens' format.
    """
    from langnorm.probes.figures import write_figures
    from langnorm.probes.problems import read_problems
    from langnorm.probes.sae_page import sae_page
    from langnorm.probes.sae_probe import SAEProbe, probe_sae
    from langnorm.probes.sae_training import SAETraining

    options = SAEProbe(
        layers=layers,
        expansion=expansion,
        architecture=architecture,
        k=k,
        training=SAETraining(num_steps=steps, batch_size=step_states, l1=l1),
        seeds=seeds,
        temperature=temperature,
        max_tokens=max_tokens,
    )
    asked = read_problems(tasks, num_tasks)
    page, figures = out / "report.md", out / "report.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"`{out}` cannot be made ({error.strerror}). Give a folder that is yours."
        raise OptionError(msg) from error
    for path in (page, figures):
        check_folder(path)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine="transformers",
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_batch_size=batch_size,
    )
    transformers: Any = chat.loaded_engine()
    place = str(transformers.model.device)  # which `device` need not be: it may be "auto"
    report = probe_sae(chat, asked, out, options, published=published, device=place)
    write_figures(figures, {"model": model, "tasks": tasks, **report})
    text = sae_page(report, f"{model} on {tasks}")
    write_atomically(page, text)
    typer.echo(text)
    typer.echo(f"Written to {out}.")
