"""A call and a loaded engine to a request: everything that the call needs is resolved here, once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from langnorm.chat.answer_prefix import AnswerPrefix
from langnorm.chat.candidates import AnswerWindows, CandidateReader
from langnorm.chat.grammars import build_grammar
from langnorm.chat.prompts import Prompt, render_prompt
from langnorm.chat.recording import Recording
from langnorm.chat.settings import CallSettings
from langnorm.engines.base import Engine, has_ability
from langnorm.engines.deadline import Deadline
from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request, Response
from langnorm.engines.stoppable import run_in_time
from langnorm.errors import OptionError
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.baseline import NormSnapshot
from langnorm.norms.layers import select_layers
from langnorm.norms.thresholds import needs_distribution
from langnorm.selection.options import Selection
from langnorm.selection.score_pruner import ScorePruner
from langnorm.text.readers import Reader, reader_factory
from langnorm.text.tool_calls import UNKNOWN, detect_tool_form

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

_UNKNOWN_FORM = (
    "This model's chat template takes tools, and does not show in which form the model calls them. Only an answer that "
    "as a whole is JSON with the name of a tool and its arguments is read as a call; other forms stay text. Force a "
    "call by `tool_choice`, which holds any model to a form that is read, or give its tokenizer a `response_template`."
)

_STEERED_SELECTION = (
    "Steering moves the norms by which this selection ranks: in the paper both together are worse than either. Switch "
    "one off for this call (`steering=None` or `selection=None`), or rank by a score that reads no norms, such as "
    '`score="mean_logprob"`.'
)


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """One call, ready to be run.

    Attributes:
        engine: Runs it.
        model_name: As the caller named the model.
        prompt: The messages, rendered.
        request: What the engine is asked.
        recording: The norms of the call, or None where nobody reads any.
        new_reader: Returns a reader of one answer.
        has_logprobs: Whether the messages say the log-probabilities.
        has_distribution: Whether they keep how sure the model was of each token.
        has_lens: Whether they keep how late it settled.
        candidates: Reads completions of which the one message is chosen; None where all of them become messages.
        first_call_index: Number of the first tool call among the chunks of a stream.
        answer_prefix: What the answers begin with, or None; the request's prompt ends with it.
    """

    engine: Engine
    model_name: str
    prompt: Prompt
    request: Request
    recording: Recording | None
    new_reader: Callable[[], Reader]
    has_logprobs: bool = False
    has_distribution: bool = False
    has_lens: bool = False
    candidates: CandidateReader | None = None
    first_call_index: int = 0
    answer_prefix: AnswerPrefix | None = None

    @property
    def has_beginning(self) -> bool:
        """Whether the answers begin with given tokens."""
        return self.answer_prefix is not None and bool(self.answer_prefix.token_ids)

    def whole(self, response: Response) -> Response:
        """Return the answers with what they begin with."""
        if self.answer_prefix is None or not self.has_beginning:
            return response
        join = self.answer_prefix.join
        return Response(tuple(join(each, self.request, self.engine.tokenizer) for each in response.completions))


def prepare_call(
    settings: CallSettings, engine: Engine, messages: Sequence[BaseMessage], *, first_call_index: int = 0
) -> PreparedCall:
    """Return a call, ready to be run: prompt, grammar, sampling, layers, baseline and thresholds are resolved.

    All norms of the call, those that messages report, that scores read and that interventions act upon, are compared
    with one snapshot of what is known of the model.

    Raises:
        PromptError: The messages cannot be put to this model.
        ModelError: The model has no chat template, or none with a place for tools.
        OptionError: An option does not fit this model.
    """
    prompt = render_prompt(
        engine.tokenizer,
        messages,
        enable_thinking=settings.enable_thinking,
        special_tokens=settings.special_tokens,
        tools=settings.tool_use.tools,
        context_length=engine.context_length,
    )
    return prepare_prompt(settings, engine, prompt, first_call_index=first_call_index)


def prepare_prompt(
    settings: CallSettings, engine: Engine, prompt: Prompt, *, first_call_index: int = 0
) -> PreparedCall:
    """Return what `prepare_call` returns, for a prompt that is rendered already.

    Raises:
        OptionError: An option does not fit this model.
    """
    tokenizer, use = engine.tokenizer, settings.tool_use
    if settings.selection and not has_ability(engine, "distribution"):  # as engines of other packages may be
        settings = replace(settings, selection=settings.selection.without_distributions())
    selection, top_logprobs = settings.selection, settings.top_logprobs
    form = detect_tool_form(str(tokenizer.chat_template))
    sampling = resolve_sampling(settings, engine)
    if form is UNKNOWN and use.tools and not (use.must_call or getattr(tokenizer, "response_template", None)):
        warnings.warn(_UNKNOWN_FORM, stacklevel=2)
    grammar = build_grammar(
        tokenizer,
        use=use,
        schema=settings.schema,
        form=form,
        is_thinking=prompt.is_thinking,
        may_think=settings.enable_thinking,
        room=_room(sampling, engine, prompt),
    )
    if "steering" in settings.interventions and selection and selection.reads_norms:
        warnings.warn(_STEERED_SELECTION, stacklevel=2)
    is_comparing = (
        settings.norms != "off"
        or any(needs_distribution(options.rule) for options in settings.interventions.values())
        or (selection and selection.needs_norms)
    )
    # A call that reads no norms must not be refused for the profile of another model.
    snapshot = NormSnapshot(engine, settings.norm_profile if is_comparing else None)
    recording = _resolve_recording(settings, engine, snapshot)
    new_reader = reader_factory(tokenizer, prompt.ids, use.tools, form, is_thinking=prompt.is_thinking)
    candidates = CandidateReader(selection, recording, new_reader) if selection else None
    beginning = settings.answer_prefix or AnswerPrefix()
    top_logprobs = 0 if top_logprobs is None and selection and selection.needs_logprobs else top_logprobs
    _check_beginning(beginning, recording, top_logprobs)
    request = Request(
        prompt_ids=(*prompt.ids, *beginning.token_ids),
        sampling=_sampling_after(beginning, sampling),
        record=_build_record(recording, settings, engine),
        max_batch_size=settings.max_batch_size,
        timeout=settings.timeout,
        plans=_resolve_plans(settings, engine, snapshot),
        grammar=grammar,
        top_logprobs=top_logprobs,
        pruner=_build_pruner(selection, recording, engine),
        windows=AnswerWindows(candidates) if candidates and candidates.selection.may_stop else None,
    )
    return PreparedCall(
        engine=engine,
        model_name=settings.model,
        prompt=prompt,
        request=request,
        recording=recording,
        new_reader=new_reader,
        has_logprobs=settings.top_logprobs is not None,
        has_distribution=settings.distribution,
        has_lens=settings.lens is not None,
        candidates=candidates,
        first_call_index=first_call_index,
        answer_prefix=settings.answer_prefix,
    )


def prepare_in_time(
    settings: CallSettings, engine: Engine, messages: Sequence[BaseMessage], *, first_call_index: int = 0
) -> PreparedCall:
    """Return what `prepare_call` returns; the timeout of the call holds here too: templates may run for ever.

    Raises:
        TimeoutError: It took longer than the call may.
    """
    prepare = partial(prepare_call, settings, engine, messages, first_call_index=first_call_index)
    if settings.timeout is None:
        return prepare()
    deadline = Deadline(settings.timeout)
    call = run_in_time(prepare, deadline)
    return replace(call, request=replace(call.request, since=deadline.start))


def resolve_sampling(settings: CallSettings, engine: Engine) -> Sampling:
    """Return how a call samples: what it says, and for the rest what the model's own configuration says.

    Raises:
        OptionError: A selection is to choose among answers that are all the same.
    """
    sampling = Sampling(**{**engine.sampling_defaults, **settings.sampling})
    selection = settings.selection
    if selection is None:
        return sampling
    if selection.n > 1 and sampling.is_greedy:
        msg = (
            f"A selection needs responses that differ, and `temperature={sampling.temperature}` gives the same one "
            f"{selection.n} times. Set `temperature=0.7`, or switch it off with `selection=None`."
        )
        raise OptionError(msg)
    return replace(sampling, n=selection.n)


def _check_beginning(beginning: AnswerPrefix, recording: Recording | None, top_logprobs: int | None) -> None:
    """Raise `OptionError` where the given tokens of an answer lack what is recorded of the others."""
    if not beginning.token_ids:
        return
    num_tokens, layers = len(beginning.token_ids), recording.layers if recording else ()
    if recording and (beginning.layers != layers or len(beginning.norms) != num_tokens):
        msg = (
            f"This call records the layers {list(layers)} and goes on from an answer with the norms of "
            f"{list(beginning.layers)}. Ask both with the same `layers` and `norms`."
        )
        raise OptionError(msg)
    if top_logprobs is not None and len(beginning.logprobs or ()) != num_tokens:
        msg = "This call reports log-probabilities and goes on from an answer without. Ask both with `logprobs=True`."
        raise OptionError(msg)


def _sampling_after(beginning: AnswerPrefix, sampling: Sampling) -> Sampling:
    """Return how a call samples after the given tokens of an answer, which count for `max_tokens`.

    Raises:
        OptionError: They leave no room.
    """
    if not beginning.token_ids or sampling.max_tokens is None:
        return sampling
    num_left = sampling.max_tokens - len(beginning.token_ids)
    if num_left < 1:
        msg = (
            f"An answer is to go on from its first {len(beginning.token_ids)} tokens, and "
            f"`max_tokens={sampling.max_tokens}` allows no more. Raise it."
        )
        raise OptionError(msg)
    return replace(sampling, max_tokens=num_left)


def _room(sampling: Sampling, engine: Engine, prompt: Prompt) -> int | None:
    """Return how many tokens an answer may have, or None where there is no limit."""
    in_context = None if engine.context_length is None else engine.context_length - len(prompt.ids)
    return min((limit for limit in (sampling.max_tokens, in_context) if limit is not None), default=None)


def _resolve_recording(settings: CallSettings, engine: Engine, snapshot: NormSnapshot) -> Recording | None:
    """Return what the call records of norms, or None where nobody reads any.

    Raises:
        OptionError: A layer is outside the model, or a score compares norms with thresholds and there are none yet.
    """
    selection = settings.selection
    in_messages, in_scores = settings.norms != "off", selection is not None and selection.needs_norms
    if not (in_messages or in_scores):
        return None
    layers = select_layers(settings.layers, engine.num_layers)
    baseline = snapshot.baseline(layers, settings.threshold, settings.low_below, settings.intensity)
    is_without_thresholds = baseline.thresholds is None and baseline.estimator is None
    if selection and selection.needs_thresholds and is_without_thresholds:
        msg = (
            f"The score `{selection.to_dict()['score']}` compares norms with thresholds, and nothing is known yet "
            "of this model's norms. Calibrate a NormProfile, give a `threshold` per layer, or use a score without "
            "thresholds, such as `mean`."
        )
        raise OptionError(msg)
    keeps_tokens = settings.norms == "tokens"
    return Recording(layers, settings.splitter, baseline, in_messages, in_scores, keeps_tokens)


def _build_record(recording: Recording | None, settings: CallSettings, engine: Engine) -> Record | None:
    """Return what is kept of the call's sequences: what messages say, and what the score reads beside."""
    selection = settings.selection
    lens = "late" if settings.lens is None and selection and selection.needs_lens else settings.lens
    reduced: dict[str, Any] = {
        "distribution": settings.distribution or (selection is not None and selection.needs_distribution),
        "lens": () if lens is None else select_layers(lens, engine.num_layers),
        "updates": selection is not None and selection.needs_updates,
        "mean_states": selection is not None and selection.needs_mean_states,
    }
    if recording is None:
        return Record(norms=False, **reduced) if any(reduced.values()) else None
    is_live = recording.keeps_tokens and getattr(engine, "streams_norms", False)
    return Record(layers=recording.layers, live=is_live, **reduced)


def _resolve_plans(settings: CallSettings, engine: Engine, snapshot: NormSnapshot) -> Plans:
    """Return what a call does to its states.

    Raises:
        OptionError: A layer is outside the model or has no threshold.
    """
    plans: dict[str, Any] = {}
    for name, options in settings.interventions.items():
        layers = select_layers(options.layers, engine.num_layers)
        plans[name] = Plan(options, layers, snapshot.thresholds(options.rule, options.acts_after(layers)))
    return Plans(**plans)


def _build_pruner(selection: Selection | None, recording: Recording | None, engine: Engine) -> ScorePruner | None:
    """Return what stops samples early, or None where nothing does."""
    if selection is None or selection.prune is None:
        return None
    is_scored = recording and recording.in_scores
    layers, baseline = (recording.layers, recording.baseline) if recording and is_scored else ((), None)
    return ScorePruner(selection, layers, baseline, engine.tokenizer)
