"""What a task asks for as the settings of a call, and a completion as the text that the task reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text

from langnorm.chat.choosing import choose_completion
from langnorm.chat.preparing import PreparedCall
from langnorm.engines.requests import Completion, Response
from langnorm.errors import OptionError
from langnorm.text.readers import ParsedAnswer, parse_answer
from langnorm_lm_eval.options import HarnessOptions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_OF_SAMPLING = ("top_p", "top_k", "min_p")  # without effect on greedy answers
_ALWAYS = ("repetition_penalty",)
_WITHOUT_EFFECT = ("use_cache", "num_beams")  # of transformers, where they have their defaults


@dataclass(frozen=True, slots=True)
class Generation:
    """How the answers of one request are generated.

    Attributes:
        settings: Of the call, by the names of `ChatLangNorm`; without `stop` where stop texts are looked for later.
        until: The texts that end an answer.
        max_tokens: Most tokens of an answer.
    """

    settings: Mapping[str, Any]
    until: tuple[str, ...]
    max_tokens: int


def read_gen_kwargs(
    gen_kwargs: Mapping[str, Any], options: HarnessOptions, sampling_defaults: Mapping[str, Any]
) -> Generation:
    """Return how a task wants its answers generated.

    Args:
        gen_kwargs: The task's, with those of the command line: `until`, `max_gen_toks`, `do_sample`, `temperature` and
            others.
        options: Of the model.
        sampling_defaults: The model's own choice of sampling, for a task that samples and names no temperature.

    Raises:
        OptionError: Something is asked for that langnorm does not have.
    """
    asked: dict[str, Any] = dict(normalize_gen_kwargs(dict(gen_kwargs), options.max_gen_toks))
    until = asked.pop("until")
    if not all(isinstance(text, str) for text in until):
        msg = f"`until={until!r}` is not allowed. Use a text or a list of texts."
        raise OptionError(msg)
    max_tokens, is_sampling = asked.pop("max_gen_toks"), asked.pop("do_sample")
    temperature = asked.pop("temperature", None)
    settings: dict[str, Any] = {"max_tokens": max_tokens, "temperature": 0.0}
    if is_sampling:
        settings["temperature"] = (
            (sampling_defaults.get("temperature") or 1.0) if temperature is None else float(temperature)
        )
    for name, value in asked.items():
        if name in _ALWAYS or (name in _OF_SAMPLING and is_sampling):
            settings[name] = value
        elif name not in (*_OF_SAMPLING, *_WITHOUT_EFFECT) or (name == "num_beams" and value != 1):
            known = ("until", "max_gen_toks", "do_sample", "temperature", *_OF_SAMPLING, *_ALWAYS)
            msg = f"langnorm cannot generate with `{name}={value!r}`. Leave it out; there are: {', '.join(known)}."
            raise OptionError(msg)
    until = tuple(text for text in until if text)
    if not options.cuts_reasoning:
        # Else a stop text in the reasoning would end the answer before it began.
        settings["stop"] = until
    return Generation(settings, until, max_tokens)


class Seeds:
    """The seeds of requests: each is that of its text, whatever else is asked, and of its number among equal ones.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._num_asked: Counter[str] = Counter()

    def next(self, context: str) -> int:
        """Return the seed of the next request with this text."""
        repeat = self._num_asked[context]
        self._num_asked[context] += 1
        digest = blake2b(f"{self._seed}\0{repeat}\0{context}".encode(errors="surrogatepass"), digest_size=7).digest()
        return int.from_bytes(digest)


def chosen_completion(call: PreparedCall, response: Response) -> tuple[Completion, ParsedAnswer]:
    """Return the completion of a call, the best one where it selects, with its reasoning and answer told apart."""
    if call.candidates:
        choice = choose_completion(call.candidates, response)
        return choice.completion, choice.answer
    (completion,) = response.completions
    return completion, parse_answer(call.new_reader(), completion.pieces)


def answer_text(
    tokenizer: PreTrainedTokenizerBase,
    completion: Completion,
    answer: ParsedAnswer,
    until: Sequence[str],
    options: HarnessOptions,
) -> str:
    """Return the text that a task reads, which ends before the first stop text.

    Reasoning is part of it unless the options say otherwise.
    """
    if options.enable_thinking and options.think_end_token is None:
        return str(postprocess_generated_text(answer.text("answer"), list(until), None))
    ids, end = _before_stop_tokens(tokenizer, completion.token_ids, until), options.think_end_token
    if isinstance(end, int) and end in ids:
        ids = ids[len(ids) - ids[::-1].index(end) :]
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    if isinstance(end, int):
        text = text.lstrip()
    return str(postprocess_generated_text(text, list(until), end if isinstance(end, str) else None))


def _before_stop_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], until: Sequence[str]) -> list[int]:
    """Return the tokens before the first one that is a stop text: a control token, which has no text to be found by."""
    special = dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
    ends = {special[text] for text in until if text in special}
    at = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return list(ids[:at])
