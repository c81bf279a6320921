"""A model and its context in llama.cpp: what the engine needs of the C library, with errors of our own.

Nothing here decides anything. All calls of one context come from one thread.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from langnorm.engines.llamacpp.options import CACHE_TYPES, LlamaOptions
from langnorm.errors import MissingDependencyError, ModelError

_NO_PLACE = 1  # what `llama_decode` returns when keys and values of a pass have no place in memory
_ERROR = 4  # among the levels of ggml's log
_LONGEST_VALUE = 256  # bytes of a text of metadata


def import_llama_cpp() -> Any:
    """Return the low-level module of llama-cpp-python.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        from llama_cpp import llama_cpp
    except ImportError as error:
        msg = (
            "The engine `llamacpp` needs llama-cpp-python. Install it with `pip install 'langnorm[llamacpp]'`, which "
            "compiles it where no wheel fits."
        )
        raise MissingDependencyError(msg) from error
    return llama_cpp


@dataclass(frozen=True, slots=True)
class PassTokens:
    """The tokens of one sequence in a forward pass; they follow one another.

    Attributes:
        slot: Which sequence of the context they belong to.
        first_position: Position of the first of them.
        token_ids: The tokens.
        num_logits: Of how many of them, the last ones, the logits are asked for. In the last layer only these have
            states.
    """

    slot: int
    first_position: int
    token_ids: Sequence[int]
    num_logits: int


class LlamaModel:
    """The weights of a GGUF file.

    Args:
        path: The file.
        options: How it is run.

    Raises:
        MissingDependencyError: llama-cpp-python is not installed.
        ModelError: llama.cpp cannot read the file.
    """

    def __init__(self, path: Path, options: LlamaOptions) -> None:
        self.api = import_llama_cpp()
        self._log = _LogCatcher(self.api, is_shown=options.verbose)
        self.api.llama_backend_init()
        params = self.api.llama_model_default_params()
        params.n_gpu_layers = options.num_gpu_layers if options.num_gpu_layers >= 0 else 10_000
        self.pointer = self.api.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            msg = f"llama.cpp cannot load `{path}`: {self.last_error}"
            raise ModelError(msg)
        vocabulary = self.api.llama_model_get_vocab(self.pointer)
        self.num_layers = int(self.api.llama_model_n_layer(self.pointer))
        self.hidden_size = int(self.api.llama_model_n_embd(self.pointer))
        self.trained_length = int(self.api.llama_model_n_ctx_train(self.pointer))
        self.vocabulary_size = int(self.api.llama_vocab_n_tokens(vocabulary))
        self.end_ids = tuple(
            token for token in range(self.vocabulary_size) if self.api.llama_vocab_is_eog(vocabulary, token)
        )
        self.architecture = self.metadata("general.architecture") or "unknown"
        self.description = self._describe()
        self.has_recurrent_state = bool(
            self.api.llama_model_is_recurrent(self.pointer) or self.api.llama_model_is_hybrid(self.pointer)
        )

    def metadata(self, key: str) -> str | None:
        """Return what the file says of itself under a key, or None for nothing."""
        buffer = ctypes.create_string_buffer(_LONGEST_VALUE)
        length = self.api.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode(errors="replace")

    def bytes_per_token(self, cache_type: str) -> int:
        """Return how much memory keys and values of a token take."""
        usual = self.hidden_size // max(1, self.api.llama_model_n_head(self.pointer))
        sizes = [self.metadata(f"{self.architecture}.attention.{what}_length") for what in ("key", "value")]
        of_head = sum(usual if size is None else int(size) for size in sizes)
        values = self.num_layers * self.api.llama_model_n_head_kv(self.pointer) * of_head
        return int(values * CACHE_TYPES[cache_type][1])

    def _describe(self) -> str:
        buffer = ctypes.create_string_buffer(_LONGEST_VALUE)
        self.api.llama_model_desc(self.pointer, buffer, len(buffer))
        return buffer.value.decode(errors="replace")

    @property
    def last_error(self) -> str:
        """What llama.cpp's log last said of an error."""
        return self._log.last_error() or "it does not say why"

    def close(self) -> None:
        """Free the weights."""
        if self.pointer:
            self.api.llama_model_free(self.pointer)
            self.pointer = None


class LlamaContext:
    """Keys and values of the sequences of a model, and forward passes that add to them.

    Args:
        model: The model.
        options: How it is run.
        on_tensor: Called by every pass with each tensor of the graph that it wants: see `StateObserver.callback`.

    Raises:
        ModelError: llama.cpp cannot make the context.
    """

    def __init__(self, model: LlamaModel, options: LlamaOptions, on_tensor: Callable[..., bool]) -> None:
        api = self._api = model.api
        self._model = model
        self.num_cells = options.cells(model.trained_length)
        self.bytes_per_token = model.bytes_per_token(options.cache_type)
        _check_memory(self.num_cells, self.bytes_per_token)
        params = api.llama_context_default_params()
        params.n_ctx = self.num_cells
        params.n_batch = params.n_ubatch = options.chunk  # one graph per pass, so that rows keep their order
        params.n_seq_max = options.max_sequences + 1  # the last one is for texts that are scored
        params.n_threads = params.n_threads_batch = options.threads()
        params.type_k = params.type_v = CACHE_TYPES[options.cache_type][0]
        params.kv_unified, params.swa_full, params.no_perf = True, True, True
        if options.flash_attention is not None:
            params.flash_attn_type = int(options.flash_attention)
        self._callback = api.ggml_backend_sched_eval_callback(on_tensor)  # must live as long as the context
        params.cb_eval = self._callback
        self._pointer = api.llama_init_from_model(model.pointer, params)
        if not self._pointer:
            msg = (
                f"llama.cpp cannot make a context of {self.num_cells} tokens: {model.last_error}. Lower "
                "`context_length` of `engine_kwargs`."
            )
            raise ModelError(msg)
        self._memory = api.llama_get_memory(self._pointer)
        self._batch = api.llama_batch_init(options.chunk, 0, 1)
        self.most_tokens = options.chunk

    def run(self, parts: Sequence[PassTokens]) -> bool:
        """Run a forward pass over the tokens of some sequences; return whether there was memory for it.

        Raises:
            ModelError: The pass failed.
        """
        batch, row = self._batch, 0
        for part in parts:
            for offset, token in enumerate(part.token_ids):
                batch.token[row] = token
                batch.pos[row] = part.first_position + offset
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = part.slot
                batch.logits[row] = offset >= len(part.token_ids) - part.num_logits
                row += 1
        batch.n_tokens = row
        code = self._api.llama_decode(self._pointer, batch)
        if code not in (0, _NO_PLACE):
            msg = f"llama.cpp failed in a forward pass (code {code}): {self._model.last_error}."
            raise ModelError(msg)
        return bool(code == 0)

    def logits(self, row: int) -> NDArray[np.float32]:
        """Return the logits (V,) of the token at a row of the last pass, as a copy."""
        pointer = self._api.llama_get_logits_ith(self._pointer, row)
        return np.ctypeslib.as_array(pointer, (self._model.vocabulary_size,)).copy()

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Let a slot begin with the first tokens of another one; both share the memory."""
        self._api.llama_memory_seq_cp(self._memory, source, target, 0, num_tokens)

    def cut(self, slot: int, num_tokens: int) -> bool:
        """Keep only the first tokens of a slot; return whether that is possible with this model."""
        return bool(self._api.llama_memory_seq_rm(self._memory, slot, num_tokens, -1))

    def clear(self) -> None:
        """Forget all sequences."""
        self._api.llama_memory_clear(self._memory, ctypes.c_bool(1))

    def close(self) -> None:
        """Free the memory."""
        if self._pointer:
            self._api.llama_batch_free(self._batch)
            self._api.llama_free(self._pointer)
            self._pointer = None


def _check_memory(num_cells: int, bytes_per_token: int) -> None:
    """Raise `ModelError` if keys and values take more memory than there is: the system may end a process that tries."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    needed, there = num_cells * bytes_per_token, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > there:
        msg = (
            f"Keys and values of {num_cells} tokens take {needed / 2**30:,.0f} GiB, and this machine has "
            f"{there / 2**30:,.0f}. Lower `context_length` of `engine_kwargs`."
        )
        raise ModelError(msg)


class _LogCatcher:
    """Takes llama.cpp's log, which is one for the whole process: shows it or keeps its last error."""

    _errors: ClassVar[list[str]] = []
    _callback: ClassVar[Any] = None

    def __init__(self, api: Any, *, is_shown: bool) -> None:
        self._errors.clear()

        def take(level: int, text: bytes, _data: Any) -> None:
            line = text.decode(errors="replace")
            if is_shown:
                sys.stderr.write(line)
            elif level == _ERROR and line.strip():
                _LogCatcher._errors[:] = [*_LogCatcher._errors[-3:], line.strip()]

        _LogCatcher._callback = api.llama_log_callback(take)  # must live as long as the process
        api.llama_log_set(_LogCatcher._callback, ctypes.c_void_p(0))

    def last_error(self) -> str:
        """Return what was last said of an error."""
        return "; ".join(self._errors)
