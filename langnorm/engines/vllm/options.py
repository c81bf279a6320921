"""How vLLM is run: arguments of its own, and three of langnorm's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langnorm.checks import check_flag, refuse
from langnorm.errors import OptionError, closest

OWN = ("in_process", "interventions", "verbose")
"""The options that are langnorm's own."""

_OWNER = "engine_kwargs"

_ELSEWHERE = {
    "model": "`model`",
    "tokenizer": "`model`, whose tokenizer it is",
    "dtype": '`model_kwargs={"dtype": ...}`',
    "revision": '`model_kwargs={"revision": ...}`',
    "trust_remote_code": '`model_kwargs={"trust_remote_code": ...}`',
    "hf_token": '`model_kwargs={"token": ...}`',
    "skip_tokenizer_init": "nothing: langnorm has the tokenizer",
    "logits_processors": "nothing: langnorm has one of its own",
}
"""Arguments of vLLM, and what says what they say."""

REFUSED = {
    "data_parallel_size": "with several engines behind one, norms come back from the first one alone",
    "pipeline_parallel_size": "the layers would be spread over processes that do not know each other's",
    "prefill_context_parallel_size": "the tokens of a sequence would be spread over processes",
    "decode_context_parallel_size": "the keys and values of a sequence would be spread over processes",
    "speculative_config": "tokens that were only guessed would be acted on",
    "enable_dbo": "a pass would be cut in two",
    "ubatch_size": "a pass would be cut in parts",
    "enable_sp": "each process would have some of the tokens only",
    "enable_hc_sp": "each process would have some of the tokens only",
    "enable_batch_sharded_sampling": "each process would choose the tokens of some sequences only",
    "kv_sharing_fast_prefill": "the later layers would be run for some of the tokens only",
    "runner": "only models that generate are run",
}
"""Arguments of vLLM that are left at their defaults, and why."""


def check_possible(arguments: Mapping[str, Any]) -> None:
    """Raise `OptionError` if an argument of vLLM's has a value with which langnorm cannot observe a model."""
    for name, value in arguments.items():
        if name in REFUSED and (value is True or value not in (None, False, 1, "auto")):  # True is 1
            msg = f"`{name}` is not possible with langnorm: {REFUSED[name]}. Leave it out."
            raise OptionError(msg)


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Options of the vLLM engine.

    Attributes:
        in_process: Whether the model is run in this process, on a thread of its own; else in processes of its own. Of a
            model that vLLM runs with layers of transformers it changes the classes there: the engine `transformers`
            cannot run that family afterwards.
        interventions: Whether states can be acted on in a model that vLLM compiles: its graphs then end at each layer,
            which takes somewhat longer. With `enforce_eager` they always can.
        verbose: Whether vLLM's own log goes to standard error, errors aside.
        arguments: Of vLLM's `EngineArgs`.

    Raises:
        OptionError: A value is not allowed, or an argument is said elsewhere.
    """

    in_process: bool
    interventions: bool
    verbose: bool
    arguments: Mapping[str, Any]

    @classmethod
    def from_dict(cls, engine_kwargs: Mapping[str, Any]) -> VllmOptions:
        """Return the options that `engine_kwargs` is meant to be."""
        arguments = dict(engine_kwargs)
        own = {name: arguments.pop(name, False) for name in OWN}
        for name, value in own.items():
            check_flag(name, value, owner=_OWNER)
        options = cls(**own, arguments=arguments)
        for name in arguments:
            if name in _ELSEWHERE:
                msg = f"`{name}` is not for `{_OWNER}`: it is said by {_ELSEWHERE[name]}."
                raise OptionError(msg)
        check_possible(arguments)
        if not isinstance(arguments.get("additional_config", {}), Mapping):
            refuse("additional_config", arguments["additional_config"], "a mapping", _OWNER)
        if options.in_process and arguments.get("tensor_parallel_size", 1) != 1:
            msg = "With `tensor_parallel_size` above 1 the model is run in several processes. Leave `in_process` out."
            raise OptionError(msg)
        return options

    def check_names(self, known: list[str]) -> None:
        """Raise `OptionError` if there is an argument that vLLM does not know.

        Args:
            known: The names of those that it knows.
        """
        for name in self.arguments:
            if name not in known:
                hint = closest(name, [*known, *OWN])
                msg = (
                    f"`{_OWNER}` has no option `{name}`. Use {', '.join(f'`{own}`' for own in OWN)}, or an argument of "
                    f"vLLM's `EngineArgs`, such as `max_model_len` or `tensor_parallel_size`.{hint}"
                )
                raise OptionError(msg)
