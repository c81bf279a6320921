"""The model that lm-evaluation-harness asks."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
import torch
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import DEFAULT_MAX_LENGTH, has_bos_prefix
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from langnorm import ChatLangNorm, __version__
from langnorm.chat.preparing import PreparedCall
from langnorm.chat.prompts import Prompt
from langnorm.checks import build_options
from langnorm.errors import OptionError, PromptError
from langnorm.selection.options import Selection
from langnorm.text.marks import THINKING_TAGS
from langnorm_lm_eval.batches import run_by_length
from langnorm_lm_eval.generation import Generation, Seeds, answer_text, chosen_completion, read_gen_kwargs
from langnorm_lm_eval.intervention_counts import InterventionCounts
from langnorm_lm_eval.options import HarnessOptions, read_model_args

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

_log = logging.getLogger("lm_eval.langnorm")  # the harness shows what its own loggers say

TokenPair = tuple[tuple[str, str] | None, list[int], list[int]]
"""What is asked, if it is to be cached; the tokens of a context, and those of what follows."""


@register_model("langnorm")
class LangNormLM(TemplateLM):
    """A model run by langnorm, with what it does while the model decodes.

    With none of that, answers and log-likelihoods are those of the harness' own model `hf`.

    Args:
        **model_args: Fields of `ChatLangNorm` (`pretrained` stands for `model`), arguments of its loader such as
            `dtype`, and the fields of `HarnessOptions`. Options of options are given as dicts or, as in
            `**{"recursion.max_extra": 1}`, by themselves.

    Raises:
        OptionError: An argument is unknown, or its value is not allowed.
        ModelError: The weights cannot be loaded.
    """

    def __init__(self, **model_args: Any) -> None:
        super().__init__()
        self._chat, self._options = _build_chat(model_args)
        self._engine = self._chat.loaded_engine()
        self.tokenizer = self._engine.tokenizer
        self._selection = build_options(Selection, "selection", self._chat.selection)
        self._counts = InterventionCounts()
        if self._options.max_length and self._options.max_length > (self._engine.context_length or 2**62):
            msg = (
                f"`max_length={self._options.max_length}` is more than this model's context of "
                f"{self._engine.context_length}. Leave it out to use all of that."
            )
            raise OptionError(msg)

    @staticmethod
    def check_args(model_args: Mapping[str, Any]) -> None:
        """Do nothing if a model could be made with these arguments, as far as that needs no weights.

        Raises:
            OptionError: An argument is unknown, or its value is not allowed.
        """
        _build_chat(model_args)

    @property
    def max_length(self) -> int:
        """Most tokens of a text."""
        return self._options.max_length or self._engine.context_length or DEFAULT_MAX_LENGTH

    @property
    def _scored_length(self) -> int:
        """Most tokens of a text that is scored, which is run but for its last one."""
        return min(self.max_length, self._engine.scored_length or self.max_length)

    @property
    def max_gen_toks(self) -> int:
        """Most tokens of an answer whose task names no number."""
        return self._options.max_gen_toks

    @property
    def batch_size(self) -> int:
        """Most sequences in one forward pass."""
        return self._options.most_sequences

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        token_id: int | None = self.tokenizer.eos_token_id
        if token_id is None:
            msg = "This model's tokenizer has no token for the end of a text. Give `prefix_token_id`."
            raise OptionError(msg)
        return token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before texts that are scored from their first token on."""
        if self._options.prefix_token_id is not None:
            return self._options.prefix_token_id
        begin: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if begin is None else begin

    @property
    def tokenizer_name(self) -> str:
        """What requests are cached under."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:  # noqa: FBT001
        """Return the tokens of a text that is scored.

        Args:
            string: The text.
            add_special_tokens: Whether it gets the tokenizer's special tokens; by default, if it does not begin with
                one itself and the options do not say otherwise, as the tokenizer has it.
        """
        if add_special_tokens is None:
            add_special_tokens = self._options.add_bos_token
            if has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id)):
                add_special_tokens = False
        return self._encode(string, add_special_tokens)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:  # noqa: FBT001, FBT002
        """Return a conversation as the model's chat template writes it; one that knows no system role goes without."""
        options = dict(self._options.chat_template_args or {})
        if self._options.enable_thinking is not None:
            options["enable_thinking"] = self._options.enable_thinking

        def render(turns: list[dict[str, str]]) -> str:
            text = self.tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **options,
            )
            return str(text)

        try:
            return render(chat_history)
        except jinja2.exceptions.TemplateError:
            _log.warning("The chat template refuses this conversation; it is asked again without the system's turn.")
            return render([turn for turn in chat_history if turn["role"] != "system"])

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:  # noqa: FBT001, FBT002
        """Return the log-likelihood of each continuation after its context, and whether greedy decoding says it.

        Raises:
            OptionError: Something is switched on that has no effect on given texts.
        """
        self._check_scoring()
        results: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: FBT001, FBT002
        """Return the log-likelihood of each text from its first token on, in windows of the model's context.

        Raises:
            OptionError: Something is switched on that has no effect on given texts.
        """
        self._check_scoring()
        windows: list[TokenPair] = []
        numbers: list[int] = []
        for number, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            for pair in get_rolling_token_windows(ids, self.prefix_token_id, self._scored_length, 1):
                windows.append((None, *make_disjoint_window(pair)))
                numbers.append(number)
        totals = [0.0] * len(requests)
        scored = self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm)
        for number, (logprob, _) in zip(numbers, scored, strict=True):
            totals[number] += logprob
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: FBT001, FBT002
        """Return the answers, each of them up to the first of its stop texts.

        Raises:
            OptionError: A task asks for something that langnorm cannot do, or a selection is to choose among answers
                that are all the same.
        """
        defaults = self._engine.sampling_defaults
        how = [read_gen_kwargs(request.args[1], self._options, defaults) for request in requests]
        prompts = [self._prompt(request.args[0], each.max_tokens) for request, each in zip(requests, how, strict=True)]
        seeds = Seeds(torch.initial_seed() if self._options.seed is None else self._options.seed)
        calls = [
            self._prepare(prompt, each, seeds.next(request.args[0]))
            for prompt, each, request in zip(prompts, how, requests, strict=True)
        ]
        for call in calls:  # before the first answer
            self._engine.check(call.request)

        def answer(numbers: Sequence[int]) -> Iterator[str]:
            responses = self._engine.generate([calls[number].request for number in numbers])
            for number, response in zip(numbers, responses, strict=True):
                completion, parsed = chosen_completion(calls[number], response)
                self._counts.add(completion.interventions, len(completion.token_ids))
                text = answer_text(self.tokenizer, completion, parsed, how[number].until, self._options)
                self.cache_hook.add_partial("generate_until", requests[number].args, text)
                yield text

        num_samples = max((call.request.sampling.n for call in calls), default=1)
        answers = run_by_length(
            [len(call.request.prompt_ids) for call in calls],
            max(1, self.batch_size // num_samples),
            answer,
            title="Running generate_until requests",
            is_quiet=disable_tqdm,
        )
        for line in self._counts.lines():
            _log.info(line)
        return answers

    def get_model_info(self) -> dict[str, Any]:
        """Return what the results say of the model."""
        identity = self._engine.identity
        return {
            "model_dtype": identity.dtype,
            "langnorm": {
                "version": __version__,
                "engine": self._engine.kind,
                "model": self._chat.model,
                "weights": identity.weights,
                "interventions": self._counts.to_dict(),
            },
        }

    def _loglikelihood_tokens(
        self,
        requests: list[TokenPair],
        disable_tqdm: bool = False,  # noqa: FBT001, FBT002 (the harness calls it so)
        **_: Any,
    ) -> list[tuple[float, bool]]:
        prompts, continuations = [], []
        for _asked, context, continuation in requests:
            if len(continuation) > self._scored_length:
                msg = (
                    f"A text of {len(continuation)} tokens is to be scored at once, and this model's context has room "
                    f"for {self._scored_length}."
                )
                raise PromptError(msg)
            # The last token is not run, so there may be one more than the context holds.
            num_before = self._scored_length + 1 - len(continuation)
            if len(context) > num_before:
                _log.warning("A context of %d tokens is cut to its last %d.", len(context), num_before)
            prompts.append(context[-num_before:])
            continuations.append(continuation)

        def score(numbers: Sequence[int]) -> Iterator[tuple[float, bool]]:
            scored = self._engine.score(
                [prompts[number] for number in numbers], [continuations[number] for number in numbers]
            )
            for number, likelihood in zip(numbers, scored, strict=True):
                result = (likelihood.logprob, likelihood.is_greedy)
                if (asked := requests[number][0]) is not None:
                    self.cache_hook.add_partial("loglikelihood", asked, result)
                yield result

        return run_by_length(
            [len(prompt) + len(continuation) for prompt, continuation in zip(prompts, continuations, strict=True)],
            self.batch_size,
            score,
            title="Running loglikelihood requests",
            is_quiet=disable_tqdm,
        )

    def _check_scoring(self) -> None:
        """Raise `OptionError` where log-likelihoods would be those of the model without what is switched on."""
        names = ("recursion", "steering", "suppression", "selection")
        switched_on = [name for name in names if getattr(self._chat, name) is not None]
        if self._options.enable_thinking:
            switched_on.append("enable_thinking")
        if switched_on:
            msg = (
                f"A task scores given texts, where `{switched_on[0]}` has no effect: it acts while answers are "
                "generated. Leave it out, or choose tasks that generate."
            )
            raise OptionError(msg)

    def _prompt(self, text: str, max_tokens: int) -> Prompt:
        """Return the prompt of a context; what is too long for it and an answer is cut at its beginning."""
        room = self.max_length - max_tokens
        if room < 1:
            msg = (
                f"`max_gen_toks={max_tokens}` leaves no room for a prompt in this model's context of "
                f"{self.max_length}. Lower it by `--gen_kwargs max_gen_toks=...`."
            )
            raise OptionError(msg)
        begins_itself = has_bos_prefix(text, self.tokenizer.bos_token)
        ids = self._encode(text, False if begins_itself else self._options.add_bos_token)
        if len(ids) > room:
            _log.warning("A prompt of %d tokens is cut to its last %d.", len(ids), room)
        is_thinking = text.rstrip().endswith(tuple(opening for opening, _ in THINKING_TAGS))
        return Prompt(tuple(ids[-room:]), is_thinking)

    def _prepare(self, prompt: Prompt, how: Generation, seed: int) -> PreparedCall:
        """Return the call of a request."""
        selection = self._selection
        if selection and selection.n > 1 and how.settings["temperature"] == 0:
            msg = (
                f"A selection needs answers that differ, and a task asks for {selection.n} greedy ones, which are all "
                "the same. Add `--gen_kwargs do_sample=true,temperature=0.7`, or leave `selection` out."
            )
            raise OptionError(msg)
        settings: Mapping[str, Any] = {"seed": seed, **how.settings}
        return self._chat.prepare_prompt(prompt, **settings)

    def _encode(self, text: str, add_special_tokens: bool | None) -> list[int]:  # noqa: FBT001
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(text, **options))


def _build_chat(model_args: Mapping[str, Any]) -> tuple[ChatLangNorm, HarnessOptions]:
    """Return the chat model that some arguments mean, without its weights, and the other options."""
    fields, options = read_model_args(model_args)
    # Nothing reads the norms of messages here, as there are none.
    return ChatLangNorm(norms="off", max_batch_size=options.most_sequences, **fields), options
