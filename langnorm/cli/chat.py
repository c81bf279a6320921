"""`langnorm chat`: a conversation, with the norms of each token while it is written."""

from __future__ import annotations

import sys

from langnorm.cli import loading
from langnorm.cli.asking import profile_of, temperature_of
from langnorm.cli.options import (
    ChatTemplateOption,
    DebugOption,
    DeviceOption,
    DtypeOption,
    EngineKwargsOption,
    EngineOption,
    GgufOption,
    IntensityOption,
    LayersOption,
    MaxTokensOption,
    ModelOption,
    NoThinkOption,
    ProfileOption,
    SeedOption,
    StepSplitterOption,
    SystemOption,
    TemperatureOption,
)
from langnorm.cli.process import new_console, raising_interrupts
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL

EXAMPLES = """Examples:

langnorm chat

langnorm chat --model some.gguf --system "You are brief."
"""


def chat(
    *,
    model: ModelOption = BUNDLED_MODEL,
    gguf: GgufOption = None,
    engine: EngineOption = AUTO_ENGINE,
    engine_option: EngineKwargsOption = None,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    chat_template: ChatTemplateOption = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    seed: SeedOption = None,
    no_think: NoThinkOption = False,
    layers: LayersOption = "late",
    profile: ProfileOption = None,
    intensity: IntensityOption = "layer",
    step_splitter: StepSplitterOption = "sentence",
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Talk with a model, and see the norms of each token while it writes.

    Ctrl-C ends an answer, Ctrl-D the conversation; /help lists what else can be done.
    """
    loaded = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature_of(temperature, model, is_sampling=False),
        seed=seed,
        enable_thinking=not no_think,
        layers=layers,
        norm_profile=profile_of(profile),
        intensity=intensity,
        step_splitter=step_splitter,
        norms="tokens",
    )
    from langnorm.cli.conversation import Conversation

    console = new_console()
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        _edit_lines()
        console.print("/help lists commands, Ctrl-C ends an answer, Ctrl-D leaves.", style="dim")

    def read() -> str:
        with raising_interrupts():
            return input("> " if is_terminal else "")

    Conversation(loaded, console, system).run(read)


def _edit_lines() -> None:
    """Let the arrow keys edit lines and bring back earlier ones, where Python was built with that."""
    try:
        import readline  # noqa: F401 (importing it is all it takes)
    except ImportError:
        return
