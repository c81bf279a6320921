"""What an engine returns, as LangChain's messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.outputs import ChatGeneration, ChatResult

from langnorm.chat.answer_prefix import RESUME, resume_field
from langnorm.chat.choosing import Choice, choose_completion
from langnorm.chat.preparing import PreparedCall
from langnorm.chat.traces import build_message_trace, num_reasoning_tokens
from langnorm.engines.requests import Completion, Response
from langnorm.norms.reading import learn_norms
from langnorm.reductions import DISTRIBUTION, LENS
from langnorm.text.readers import ParsedAnswer, parse_answer
from langnorm.trace import KEY

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def build_result(call: PreparedCall, response: Response) -> ChatResult:
    """Return the messages of all completions, or that of the selected one."""
    response = call.whole(response)
    if call.candidates:
        choice = choose_completion(call.candidates, response)
        messages = [build_message(call, choice.completion, choice.answer, choice)]
    else:
        messages = [build_message(call, c, parse_answer(call.new_reader(), c.pieces)) for c in response.completions]
    return ChatResult(generations=[_build_generation(message) for message in messages])


def build_message(
    call: PreparedCall, completion: Completion, answer: ParsedAnswer, choice: Choice | None = None
) -> AIMessage:
    """Return the whole message of a completion."""
    fields = closing_fields(call, completion, answer, choice)
    if reasoning := answer.text("reasoning"):
        fields["additional_kwargs"] = fields["additional_kwargs"] | {"reasoning_content": reasoning}
    return AIMessage(
        content=answer.text("answer"),
        tool_calls=[
            tool_call(name=call.name, args=call.arguments, id=call.id)
            for call in answer.calls
            if call.name is not None and call.arguments is not None
        ],
        invalid_tool_calls=[
            invalid_tool_call(name=call.name, args=call.raw, id=call.id, error=call.error)
            for call in answer.calls
            if call.error is not None
        ],
        **fields,
    )


def closing_fields(
    call: PreparedCall, completion: Completion, answer: ParsedAnswer, choice: Choice | None = None
) -> dict[str, Any]:
    """Return what a message says once, when it is complete: usage, metadata and norms.

    A whole message and the last chunk of a streamed one have the same. The usage of one that was selected counts
    the tokens of all that were sampled.
    """
    num_prompt, num_tokens = len(call.prompt.ids), len(completion.token_ids)
    num_reasoning = num_reasoning_tokens(answer.segments, num_tokens)
    is_calling = completion.finish_reason == "stop" and any(tool.error is None for tool in answer.calls)
    metadata: dict[str, Any] = {
        "model_name": call.model_name,
        "engine": call.engine.kind,
        "model_provider": "langnorm",
        "finish_reason": "tool_calls" if is_calling else completion.finish_reason,
    }
    of_ours, extra = _norm_fields(call, completion, answer)
    if completion.logprobs and call.has_logprobs:
        entries = list(_logprob_entries(call.engine.tokenizer, completion))
        if call.answer_prefix and call.answer_prefix.logprobs:
            entries = [*call.answer_prefix.logprobs, *entries[len(call.answer_prefix.logprobs) :]][: len(entries)]
        metadata["logprobs"] = {"content": entries}
    if call.has_distribution and completion.reductions.distribution is not None:
        extra[KEY] = extra.get(KEY, {}) | {DISTRIBUTION: completion.reductions.distribution.to_dict()}
    if call.has_lens and completion.reductions.lens is not None:
        extra[KEY] = extra.get(KEY, {}) | {LENS: completion.reductions.lens.to_dict()}
    if choice:
        of_ours["selection"] = choice.ranking
        num_tokens, num_reasoning = choice.tokens, choice.reasoning_tokens
    if of_ours:
        metadata[KEY] = of_ours
    usage = UsageMetadata(
        input_tokens=num_prompt,
        output_tokens=num_tokens,
        total_tokens=num_prompt + num_tokens,
        output_token_details=OutputTokenDetails(reasoning=num_reasoning),
    )
    if hit := completion.prefix_hit:
        usage["input_token_details"] = InputTokenDetails(cache_read=hit.tokens)
    return {"response_metadata": metadata, "additional_kwargs": extra, "usage_metadata": usage}


def _norm_fields(
    call: PreparedCall, completion: Completion, answer: ParsedAnswer
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `response_metadata` and `additional_kwargs` say of norms and of what was done by them."""
    recording, of_ours = call.recording, {}
    extra: dict[str, Any] = {}
    if recording and recording.in_messages:
        trace = build_message_trace(completion, answer.segments, recording, keep_tokens=recording.keeps_tokens)
        # Once for each message that is kept: what candidates of a selection would teach is not learnt.
        # Steps that an intervention has acted on are not the model's own, and those that the answer begins with have
        # been learnt from the answer that they are of.
        num_given = len(call.answer_prefix.token_ids) if call.answer_prefix else 0
        steps = [step for step in trace.steps if step.start >= num_given and not completion.interventions]
        intensities = [step.intensity for step in steps if step.intensity is not None]
        sinks = [token - num_given for token in trace.sinks if token >= num_given]
        learn_norms(call.engine, completion.norms[num_given:], recording.layers, recording.baseline, sinks, intensities)
        of_ours = trace.to_dict() | ({"prefix_cache": asdict(hit)} if (hit := completion.prefix_hit) else {})
        if trace.token_norms is not None:
            extra[KEY] = trace.token_dict()
    if call.answer_prefix is not None:
        extra[KEY] = extra.get(KEY, {}) | {RESUME: resume_field(completion, recording.layers if recording else ())}
    return of_ours | completion.interventions, extra


def _logprob_entries(tokenizer: PreTrainedTokenizerBase, completion: Completion) -> Iterator[dict[str, Any]]:
    """Yield OpenAI's entry for each token."""
    for token_id, logprob in zip(completion.token_ids, completion.logprobs, strict=True):
        top = [_logprob_entry(tokenizer, other, value) for other, value in logprob.top]
        yield _logprob_entry(tokenizer, token_id, logprob.logprob) | {"top_logprobs": top}


def _logprob_entry(tokenizer: PreTrainedTokenizerBase, token_id: int, value: float) -> dict[str, Any]:
    text = str(tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    # A token may be part of a character, and then has no text of its own.
    is_whole = "\ufffd" not in text
    return {"token": text, "bytes": list(text.encode()) if is_whole else None, "logprob": value}


def _build_generation(message: AIMessage) -> ChatGeneration:
    info = {"finish_reason": message.response_metadata["finish_reason"]}
    return ChatGeneration(message=message, generation_info=info)
