"""What langnorm knows of vLLM's engine: how it is asked. But for `starting`, the rest of the package imports no vLLM.

It is `LLMEngine`, whose steps are taken by a thread of ours, and not `AsyncLLM`: that one cannot be run in this
process, and needs an event loop; what is done in a step is the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from langnorm.engines.vllm.order import Order
from langnorm.engines.vllm.starting import CONFIG_NAME, default_arguments, import_vllm, in_process
from langnorm.errors import ModelError

if TYPE_CHECKING:
    from langnorm.engines.vllm.options import VllmOptions


@dataclass(frozen=True, slots=True)
class NewTokens:
    """What a sequence gained in a step.

    Attributes:
        key: Of the sequence.
        token_ids: Its new tokens.
        logprobs: By token id, for each of them, vLLM's `Logprob` of it and of the likeliest, where they were asked for.
        num_cached: Number of tokens of its prompt whose keys and values were there already.
        error: Why vLLM has given it up, or None.
        prompt_logprobs: Of a text that is scored, the same as `logprobs` for each of the tokens of the prompt but the
            first, which has None.
    """

    key: str
    token_ids: Sequence[int]
    logprobs: Sequence[Mapping[int, Any]]
    num_cached: int
    error: Exception | None
    prompt_logprobs: Sequence[Any] = ()


class VllmCore:
    """vLLM's engine with a loaded model. Only one thread at a time may call it.

    Args:
        engine: An `LLMEngine`, in whose workers `langnorm_vllm` is at work.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        try:
            description = self._call("describe")[0]
            self.num_layers: int = description["num_layers"]
            """Number of decoder layers."""
        except Exception as error:
            msg = (
                "vLLM has not loaded the plugin `langnorm`. If the environment variable `VLLM_PLUGINS` is set, add "
                f"`langnorm` to it; otherwise install langnorm again. ({error})"
            )
            raise ModelError(msg) from error
        self._knows_arguments: bool = description["knows_arguments"]
        self.reason_against_recursion = ""
        """Why no layer can be run again, or nothing."""

    @classmethod
    def start(cls, arguments: Mapping[str, Any], options: VllmOptions) -> VllmCore:
        """Return vLLM's engine for a model, which is loaded.

        Args:
            arguments: Of vLLM's `EngineArgs`: the model and how its files are read.
            options: How it is run.

        Raises:
            MissingDependencyError: vLLM is not installed, or a version that is not known.
            OptionError: vLLM does not know an argument.
            ModelError: vLLM has not loaded langnorm's plugin.
            Exception: Whatever vLLM raises when a model does not start.
        """
        if not options.verbose:
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
        engine_args, engine_class, executor = import_vllm()
        options.check_names([field.name for field in fields(engine_args)])
        ours: dict[str, Any] = {
            **default_arguments(),
            **options.arguments,
            **arguments,
            "additional_config": {
                **options.arguments.get("additional_config", {}),
                CONFIG_NAME: {"in_process": options.in_process, "interventions": options.interventions},
            },
            "skip_tokenizer_init": True,
            "max_logprobs": -1,  # all requests are langnorm's
            "disable_log_stats": True,
            "use_tqdm_on_load": options.verbose,
        }
        if options.in_process:
            ours["distributed_executor_backend"] = "uni"
        with in_process(options.in_process):
            config = engine_args(**ours).create_engine_config()  # which langnorm's plugin adapts
            engine = engine_class(
                config, executor.get_class(config), log_stats=False, multiprocess_mode=not options.in_process
            )
        return cls(engine)

    @property
    def config(self) -> Any:
        """The `VllmConfig`."""
        return self._engine.vllm_config

    @property
    def can_act(self) -> bool:
        """Whether states can be acted on: layers are called one by one, or compiled into graphs that end at each."""
        own = self.config.additional_config[CONFIG_NAME]
        return bool(self.config.model_config.enforce_eager or own["interventions"])

    @property
    def bytes_per_token(self) -> int:
        """Memory that the keys and values of a token take, in all layers and on all devices."""
        model = self.config.model_config
        num_values: int = 2 * model.get_total_num_kv_heads() * model.get_head_size() * self.num_layers
        return num_values * int(model.dtype.itemsize)

    def add(self, order: Order, prompt_ids: Sequence[int], num_logprobs: int | None = None) -> None:
        """Let a sequence enter.

        Args:
            order: What is recorded of it, and done to it, and how its tokens are chosen.
            prompt_ids: Its prompt.
            num_logprobs: How many likely tokens are reported beside each one; None for no log-probabilities.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        prompt: dict[str, Any] = {"prompt_token_ids": list(prompt_ids)}
        if order.plans.layers:
            # Its keys and values are not the model's own: nobody else may begin with them.
            prompt["cache_salt"] = order.key
        sampling = SamplingParams(
            temperature=0.0,  # its workers put langnorm's choice in place of the logits
            max_tokens=order.max_tokens,
            stop_token_ids=list(order.end_ids),
            logprobs=num_logprobs,
            detokenize=False,
            ignore_eos=True,
            output_kind=RequestOutputKind.DELTA,
            extra_args={CONFIG_NAME: order.to_dict()},
            skip_reading_prefix_cache=order.records_prompt or None,
        )
        self._engine.add_request(order.key, prompt, sampling)

    def add_text(self, key: str, prompt_ids: Sequence[int], continuation_ids: Sequence[int]) -> None:
        """Let a text enter that is to be scored: its last token is chosen for vLLM, and all others are a prompt.

        Args:
            key: Its name.
            prompt_ids: Tokens of its beginning, whose log-probabilities nobody asks for.
            continuation_ids: Tokens of the rest; there is at least one.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprobs=1,
            prompt_logprobs=1 if len(continuation_ids) > 1 else None,
            allowed_token_ids=[continuation_ids[-1]],
            detokenize=False,
            ignore_eos=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._engine.add_request(key, {"prompt_token_ids": [*prompt_ids, *continuation_ids[:-1]]}, sampling)

    def abort(self, keys: Sequence[str]) -> None:
        """Give up sequences; nothing more comes of them."""
        if keys:
            self._engine.abort_request(list(keys))

    def step(self) -> list[NewTokens]:
        """Wait for the next tokens and return them.

        Raises:
            ModelError: The processes of vLLM have ended.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            outputs = self._engine.step()
        except EngineDeadError as error:
            msg = (
                "The processes of vLLM have ended, and what they say stands above. After `langnorm.unload()`, the next "
                "call loads the model again."
            )
            raise ModelError(msg) from error
        gained = []
        for output in outputs:
            completion = output.outputs[0]
            gained.append(
                NewTokens(
                    output.request_id,
                    completion.token_ids,
                    completion.logprobs or (),
                    output.num_cached_tokens or 0,
                    _error_of(completion),
                    output.prompt_logprobs or (),
                )
            )
        return gained

    def take(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return what was recorded of sequences, as fields of `Taken`, and let the workers forget them."""
        taken: list[Mapping[str, Any] | None] = self._call("take", list(keys), list(num_rows))[0]
        return taken

    def peek(self, keys: Sequence[str], num_rows: Sequence[int]) -> list[Mapping[str, Any] | None]:
        """Return what `take` returns of sequences that go on, but not what was done to their states."""
        seen: list[Mapping[str, Any] | None] = self._call("peek", list(keys), list(num_rows))[0]
        return seen

    def norms(self, keys: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes]:
        """Return the norms of some generated tokens of sequences that go on.

        Args:
            keys: Of the sequences.
            starts: Number of the first token of each.
            ends: Number of the token after the last one.

        Returns:
            As `Taken.norms`, without the prompt; less than asked for where rows are missing.
        """
        rows: list[bytes] = self._call("norms", list(keys), list(starts), list(ends))[0]
        return rows

    def forget(self, keys: Sequence[str]) -> None:
        """Let the workers forget sequences."""
        if keys:
            self._call("forget", list(keys))

    def reset_prefix_cache(self) -> None:
        """Forget the prompts and answers of earlier sequences."""
        self._engine.reset_prefix_cache()

    def try_out(self, prompt_ids: Sequence[int]) -> None:
        """Run a few tokens, and see whether norms come back and layers can be run again.

        Args:
            prompt_ids: A few tokens that the model knows.

        Raises:
            ModelError: Norms do not come back.
        """
        layers, num_tokens = tuple(range(self.num_layers)), 3
        order = Order(
            key=f"trial-{secrets.token_hex(4)}",  # another process may try out the same engine now
            num_prompt_tokens=len(prompt_ids),
            layers=layers,
            max_tokens=num_tokens,
            is_trial=self.can_act and self._knows_arguments,
        )
        self.add(order, prompt_ids)
        while self._engine.has_unfinished_requests():
            for gained in self.step():
                if gained.error:
                    raise gained.error
        record = self.take([order.key], [num_tokens - 1])[0]
        norms = np.frombuffer(record["norms"] if record else b"", dtype=np.float32)
        if len(norms) != (num_tokens - 1) * len(layers) or not bool((norms > 0).all()):
            msg = (
                "In a trial, vLLM ran tokens without the norms of their states: hooks on its decoder layers are not "
                'called. Use `engine="transformers"`, and report this with your version of vLLM.'
            )
            raise ModelError(msg)
        self.reset_prefix_cache()
        self.reason_against_recursion = self._find_reason_against_recursion()

    def _find_reason_against_recursion(self) -> str:
        model, config = self.config.model_config, self.config
        if model.is_hybrid or model.is_attention_free:
            return "some of its layers have a recurrent state, which a second pass would change"
        if config.kv_transfer_config is not None:
            return "keys and values leave for a connector while they are computed"
        if not self._knows_arguments:
            return "its layers take tensors that are known inside its graphs alone; `enforce_eager` does without graphs"
        found = self._call("describe")[0]["rerun"]
        if found["writing"]:
            return f"a second pass of the layers {found['writing']} changes keys and values, as a trial has shown"
        if found["differing"]:
            return f"the layers {found['differing']} give something else when they are run again, as a trial has shown"
        if self.can_act and len(found["tried"]) != self.num_layers:
            return "a trial has not reached all of its layers"
        return ""

    def close(self) -> None:
        """End the processes, and free the memory."""
        self._engine.engine_core.shutdown()

    def _call(self, name: str, *args: Any) -> list[Any]:
        answers: list[Any] = self._engine.collective_rpc(f"langnorm_{name}", args=args)
        return answers


def _error_of(completion: Any) -> Exception | None:
    """Return why vLLM has given a sequence up, or None."""
    if completion.finish_reason not in ("abort", "error"):
        return None
    if isinstance(completion.stop_reason, Exception):  # of a client of a server
        return completion.stop_reason
    return RuntimeError(f"vLLM gave the sequence up ({completion.finish_reason}).")
