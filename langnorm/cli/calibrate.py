"""`langnorm calibrate`: fits a profile of norms to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import OptionError
from langnorm.files import check_folder, is_stream

EXAMPLES = """Examples:

langnorm calibrate --model some.gguf --prompts prompts.txt --out some.json

langnorm ask --model some.gguf --profile some.json "Why is the sky blue?\""""


def calibrate(
    *,
    prompts: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A text file with one prompt a line, or JSON lines with a prompt or messages each.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the profile is written.", show_default=False)],
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    num_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tokens to record. The report says how many would be enough.")
    ] = 20_000,
    temperature: Annotated[
        float | None, typer.Option(min=0, metavar="T", help="0 is greedy.", show_default="the model's own")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Most tokens of an answer.", show_default="1024, or the model's own limit"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Prompts that run together.")] = 16,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, whatever a run that was stopped has left.")
    ] = False,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Fit a profile of norms to a model, so that its intensities mean something.

    A run that is stopped goes on when the same command is given again; with other settings it has to --restart. Loops
    and attention sinks are left out, and a report says how good the profile is. The profile is then the option
    `profile` of ChatLangNorm; as norm_profile.json in the model's own folder it is found by itself. Beside it, as
    .tokens of the same name, lie the usual norms of tokens; the two belong together.
    """
    from langnorm.norms.calibration_prompts import read_prompts
    from langnorm.norms.profile import NormProfile
    from langnorm.norms.token_file import check_beside

    asked = read_prompts(prompts)
    check_folder(out)
    if not is_stream(out):
        check_beside(out)
        if out.exists() and out.samefile(prompts):
            msg = f"`--out {out}` would write over the prompts. Give another name."
            raise OptionError(msg)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature,
        max_batch_size=batch_size,
    )
    # Beside the profile, so that a second command in another folder has its own.
    checkpoint = None if is_stream(out) else out.with_name(f"{out.name}.partial")
    profile = NormProfile.calibrate(chat, asked, num_tokens=num_tokens, checkpoint=checkpoint, restart=restart)
    profile.save(out)
    typer.echo(f"{out}: {profile.num_tokens} tokens, {len(profile.layers)} layers of {profile.name}")
    typer.echo("\n".join(profile.report.lines() if profile.report else ()))
