"""`langnorm trace`: where in an answer the model worked hardest, token by token, on the terminal or as a page."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from langnorm.cli import loading
from langnorm.cli.asking import messages_of, profile_of, read_question, selection_of, temperature_of
from langnorm.cli.options import (
    ChatTemplateOption,
    CombineOption,
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
    QuestionArgument,
    ScoreOption,
    SeedOption,
    SelectOption,
    StepSplitterOption,
    SystemOption,
    TemperatureOption,
    VoteOption,
)
from langnorm.cli.process import new_console
from langnorm.cli.wording import in_options
from langnorm.engines.registry import AUTO_ENGINE, BUNDLED_MODEL
from langnorm.errors import OptionError
from langnorm.files import check_folder

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage
    from langchain_core.outputs import ChatGeneration

    from langnorm.chat_models import ChatLangNorm
    from langnorm.selection.options import Selection

_EXAMPLE = 'langnorm trace "Calculate 47 + 385." --html out.html'
EXAMPLES = f"""Examples:

{_EXAMPLE}

langnorm trace --model some.gguf --layers all --html sky.html "Why is the sky blue?"

langnorm trace --select 4 --html best.html "What is 12 * 14 - 39?\""""


def trace(
    question: QuestionArgument,
    *,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page for a browser: one file, no network.", show_default=False),
    ] = None,
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
    select: SelectOption = None,
    score: ScoreOption = None,
    combine: CombineOption = None,
    vote: VoteOption = None,
    debug: DebugOption = False,  # noqa: ARG001 (its callback does it all)
) -> None:
    """Answer a question, and show where the model worked hardest: each token in the colour of its norms.

    With --select, the page has all answers beside each other, best first.
    """
    text = read_question(question, _EXAMPLE)
    selection = selection_of(select, score=score, combine=combine, vote=vote)
    if selection and (selection.needs_updates or selection.needs_mean_states):
        msg = (
            f"`--score {score}` reads hidden states, which messages do not keep, and `trace` ranks whole messages. Use "
            "another score, or `langnorm ask --select`."
        )
        raise OptionError(msg)
    if html:
        check_folder(html)
    chat = loading.load_chat(
        model=model,
        gguf=gguf,
        engine=engine,
        engine_option=engine_option,
        dtype=dtype,
        device=device,
        chat_template=chat_template,
        max_tokens=max_tokens,
        temperature=temperature_of(temperature, model, is_sampling=selection is not None),
        seed=seed,
        enable_thinking=not no_think,
        layers=layers,
        norm_profile=profile_of(profile),
        intensity=intensity,
        step_splitter=step_splitter,
        norms="tokens",
        logprobs=True,
    )
    from langnorm.trace import NormTrace
    from langnorm.viz.pages import heatmap, ranking
    from langnorm.viz.terminal import print_summary, print_tokens

    started = time.perf_counter()
    messages = _answers(chat, messages_of(system, text), selection)
    seconds = time.perf_counter() - started
    console = new_console()
    print_tokens(console, NormTrace.from_message(messages[0]))
    print_summary(console, messages[0], seconds, wording=in_options)
    if html:
        page = ranking(messages, title=text) if selection else heatmap(messages[0], title=text)
        page.save(html)
        console.print(f"{html} shows it in a browser.", soft_wrap=True)


def _answers(chat: ChatLangNorm, messages: list[tuple[str, str]], selection: Selection | None) -> list[AIMessage]:
    """Return the answer, or several answers, best first."""
    if selection is None:
        with loading.working("Answering"):
            return [chat.invoke(messages)]
    from langchain_core.messages.utils import convert_to_messages

    from langnorm.selection.selector import rank

    if not chat.is_able_to("distribution"):
        selection = selection.without_distributions()
    chat.prepare(messages, selection=selection)  # what it lacks for that is said before anything is sampled
    kept: dict[str, Any] = {"distribution": selection.needs_distribution, "lens": selection.needs_lens}
    with loading.working(f"Sampling {selection.n} answers"):
        result = chat.generate([convert_to_messages(messages)], n=selection.n, **kept)
    answers = [cast("AIMessage", cast("ChatGeneration", each).message) for each in result.generations[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the page and the last lines say it too
        return rank(answers, selection)
