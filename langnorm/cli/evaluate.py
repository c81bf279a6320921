"""`langnorm eval`: compares ways to answer a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    MaxTokensOption,
    ModelOption,
)
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import OptionError
from langnorm.files import own_name

if TYPE_CHECKING:
    from langnorm.evaluation.methods import Method

EXAMPLES = """Examples:

langnorm eval --task abacus --num-problems 40

langnorm eval --model some.gguf --task gsm8k.jsonl --methods recursion,steering,majority

langnorm eval --methods steering --own 'strong={"steering": {"beta": 0.5}}'"""


def evaluate(
    *,
    task: Annotated[
        str,
        typer.Option(
            metavar="FILE", help='JSON lines with a "question" and an "answer" each, such as GSM8K\'s, or abacus.'
        ),
    ] = BUNDLED_MODEL,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="With commas between: baseline, recursion, steering, block, suppression, suppression-random, "
            "selection, selection:SCORE, majority, adaptive, random, oracle.",
        ),
    ] = "baseline,selection,majority,adaptive,random,oracle",
    own: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=OPTIONS",
            help="A method of your own, one answer with these call options, as JSON: "
            'strong={"steering": {"beta": 0.5}}. May be repeated.',
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where answers and report are kept.", show_default="eval-TASK-MODEL"),
    ] = None,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    n: Annotated[int, typer.Option("-n", "--n", min=2, metavar="N", help="Samples that selections choose from.")] = 8,
    num_problems: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Only the first questions.", show_default="all; 200 of abacus"),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="The prompt, with {question} in it.",
            show_default="the question; for numbers also to answer step by step, in \\boxed{}",
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, metavar="T", help="0 is greedy, without selections.")] = 0.7,
    max_tokens: MaxTokensOption = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Sequences that run together.")] = 16,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="From which all answers follow.")] = 0,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever a run that was stopped has left.")
    ] = False,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Compare ways to answer a task: one answer, interventions, and the best of n samples.

    Every answer is kept at once: a run that is stopped goes on when the same command is given again. Samples are drawn
    once, and methods that are added later are computed from them.
    """
    from langnorm.evaluation.methods import resolve_methods
    from langnorm.evaluation.runner import evaluate as run
    from langnorm.evaluation.tasks import load_task

    names: list[str | Method] = [name.strip() for name in methods.split(",") if name.strip()]
    names += map(_own_method, own or [])
    resolve_methods(names, n)  # before a model is loaded
    asked = load_task(task, num_problems=num_problems, template=template)
    # Not `stem`, which would make one name of Qwen2.5-7B and Qwen2.5-14B.
    folder = out or Path(f"eval-{asked.name}-{own_name(Path(model)).removesuffix('.gguf')}")
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        temperature=temperature,
        max_tokens=max_tokens,
        max_batch_size=batch_size,
    )
    report = run(chat, asked, names, folder=folder, n=n, seed=seed, num_problems=num_problems, restart=restart)
    typer.echo(report.to_markdown())
    typer.echo(f"Answers and report: {folder}")


def _own_method(text: str) -> Method:
    """Return the method that an `--own` means.

    Raises:
        BadParameter: It means none. What it holds are options of a call, in whose names the error is, and none of ours.
    """
    from langnorm.evaluation.methods import own_method

    try:
        return own_method(text)
    except OptionError as error:
        raise typer.BadParameter(str(error), param_hint="--own") from error
