"""The beginning of an answer, from which another answer to the same messages goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from langnorm.engines.requests import Completion, PrefixHit, Request, TokenLogprob
from langnorm.errors import OptionError
from langnorm.stored import PlainJSON, Stored, StoredForm
from langnorm.text.detokenizer import Detokenizer
from langnorm.trace import KEY

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from transformers import PreTrainedTokenizerBase

RESUME = "resume"
"""Where `additional_kwargs["langnorm"]` has what a message needs to be gone on from."""

_GREATEST = 3.4028235e38  # JSON has no word for the norm of a state that overflowed, nor for what is no number


class AnswerPrefix(Stored):
    """The first tokens of an answer as the model generated them; without any, a whole answer is asked for.

    A call that is given one says on its message what is needed to go on from that in turn.

    Attributes:
        token_ids: The k tokens.
        layers: The layers whose norms were recorded.
        norms: A row for each token with one norm per layer; none where nothing was recorded.
        logprobs: Their log-probabilities, an entry of OpenAI's form for each, or None.
    """

    token_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    norms: tuple[tuple[float, ...], ...] = ()
    logprobs: tuple[dict[str, PlainJSON], ...] | None = None

    @model_validator(mode="after")
    def _fits(self) -> AnswerPrefix:
        if any(len(row) != len(self.layers) for row in self.norms):
            msg = f"it has other than {len(self.layers)} norms, one for each layer"
            raise ValueError(msg)
        if any(not isinstance(entry.get("logprob"), int | float) for entry in self.logprobs or ()):
            msg = "it has a token without a log-probability"
            raise ValueError(msg)
        return self

    def join(self, completion: Completion, request: Request, tokenizer: PreTrainedTokenizerBase) -> Completion:
        """Return the whole answer: these tokens and what the model has generated after them.

        Its text is decoded anew, because a character, or a stop text, may begin in one part and end in the other.

        Args:
            completion: What was generated after these tokens.
            request: That it answers; its prompt ends with these tokens.
            tokenizer: The model's.
        """
        ids = [*self.token_ids, *completion.token_ids]
        text = Detokenizer(tokenizer, request.sampling.stop)
        for token_id in ids:
            text.add(token_id)
            if text.is_stopped:
                break
        text.finish()
        num_tokens, num_kept = len(text.pieces), len(self.token_ids)
        rows = [*map(list, self.norms), *completion.norms] if request.norm_layers else []
        logprobs = [TokenLogprob(float(entry["logprob"])) for entry in self.logprobs or ()]  # type: ignore[arg-type]
        hit, most = completion.prefix_hit, len(request.prompt_ids) - num_kept
        if hit and most < hit.tokens:  # kept tokens count as those of the answer
            hit = PrefixHit(most, hit.bytes * most // hit.tokens)
        return replace(
            completion,
            token_ids=ids[:num_tokens],
            pieces=text.pieces,
            finish_reason="stop" if text.is_stopped else completion.finish_reason,
            norms=rows[: num_tokens - 1],
            logprobs=[*logprobs, *completion.logprobs][:num_tokens] if completion.logprobs else [],
            prefix_hit=hit,
        )


_FORM = StoredForm(AnswerPrefix, "an answer that can be gone on from", "Take it as the model gave it.")


def resume_field(completion: Completion, layers: tuple[int, ...]) -> dict[str, Any]:
    """Return what a message carries so that another call can go on from it, in plain JSON types."""
    return {
        "token_ids": list(completion.token_ids),
        "layers": list(layers),
        "norms": [[value if value <= _GREATEST else _GREATEST for value in row] for row in completion.norms],
    }


def prefix_of(message: BaseMessage, num_tokens: int) -> AnswerPrefix | None:
    """Return the first tokens of a message's answer, or None where it does not carry what that needs.

    Raises:
        OptionError: What it carries is something else, or has fewer tokens.
    """
    extra = message.additional_kwargs.get(KEY)
    stored = extra.get(RESUME) if isinstance(extra, Mapping) else None
    if stored is None:
        return None
    content = (message.response_metadata.get("logprobs") or {}).get("content")
    whole = _FORM.check({**stored, "logprobs": content}, "What this message carries")
    if num_tokens > len(whole.token_ids):
        msg = f"The first {num_tokens} tokens of an answer of {len(whole.token_ids)} are asked for. Ask for fewer."
        raise OptionError(msg)
    return AnswerPrefix(
        token_ids=whole.token_ids[:num_tokens],
        layers=whole.layers,
        norms=whole.norms[:num_tokens],
        logprobs=None if whole.logprobs is None else whole.logprobs[:num_tokens],
    )


def without_resume(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's `additional_kwargs` without what only a call that goes on from it needs."""
    of_ours = extra.get(KEY)
    if not isinstance(of_ours, Mapping) or RESUME not in of_ours:
        return dict(extra)
    rest = {name: value for name, value in of_ours.items() if name != RESUME}
    return {name: value for name, value in extra.items() if name != KEY} | ({KEY: rest} if rest else {})
