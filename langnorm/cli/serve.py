"""`langnorm serve`: a model behind OpenAI's `/v1/chat/completions`."""

from __future__ import annotations

from importlib.util import find_spec
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
    LayersOption,
    MaxTokensOption,
    TemperatureOption,
)
from langnorm.credentials import KEY_VARIABLE
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import MissingDependencyError

_PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def serve(
    model: Annotated[
        str, typer.Argument(help="A folder, a GGUF file, a name on the Hugging Face hub, or abacus.")
    ] = BUNDLED_MODEL,
    *,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; the default is reached from this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="The port; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            envvar=KEY_VARIABLE,
            help="What clients must send as their key. Better set by the variable: lists of processes show options.",
            show_default=False,
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="What clients call the model.", show_default="as it is loaded")
    ] = None,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    layers: LayersOption = "late",
    norms: Annotated[
        str, typer.Option(metavar="WHAT", help="What is recorded where a request does not say: steps, tokens or off.")
    ] = "steps",
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Sequences that run together.")] = 16,
    max_requests: Annotated[
        int, typer.Option(min=1, metavar="N", help="Requests at once; further ones are told to come again.")
    ] = 128,
    max_samples: Annotated[int, typer.Option(min=1, metavar="N", help="Most answers of one request.")] = 32,
    max_body_bytes: Annotated[int, typer.Option(min=1, metavar="N", help="Largest request.")] = 8 * 2**20,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Longest time of one request.")] = 600,
    grace: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long running requests may go on after Ctrl-C.")
    ] = 5,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Serve a model to any client that speaks OpenAI's chat completions.

    Norms, recursion, selection and what else only langnorm has come in as "langnorm": {...} of a request, and what was
    found goes out as "langnorm" of the message. /health, /v1/models and /metrics (Prometheus) are there too.
    """
    if missing := [package for package in _PACKAGES if find_spec(package) is None]:
        msg = f'`langnorm serve` needs {" and ".join(missing)}. Install them: `pip install "langnorm[serve]"`.'
        raise MissingDependencyError(msg)
    from langnorm.server.options import ServerOptions
    from langnorm.server.running import Server, listen, warn_if_open

    options = ServerOptions(
        host=host,
        port=port,
        api_key=api_key or None,
        name=name,
        max_requests=max_requests,
        max_samples=max_samples,
        max_tokens=max_tokens,
        max_body_bytes=max_body_bytes,
        timeout=timeout,
        grace=grace,
    )
    if temperature is None and model == BUNDLED_MODEL:
        temperature = 0
    with listen(options) as listener:
        chat = loading.load_chat(
            model=model,
            gguf=gguf,
            engine=engine,
            engine_option=engine_option,
            dtype=dtype,
            device=device,
            chat_template=chat_template,
            temperature=temperature,
            layers=layers,
            norms=norms,
            max_batch_size=batch_size,
        )
        warn_if_open(options)
        server = Server(chat, options)
        typer.echo(f"{server.model_name} is served at {server.url(listener)} (Ctrl-C ends it)")
        server.run([listener])
