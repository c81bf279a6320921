"""How a model is run by llama.cpp: what a laptop's user would choose, unless told otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from langnorm.checks import check_choice, check_flag, check_integer

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
CACHE_TYPES: Mapping[str, tuple[int, float]] = {
    "f32": (0, 4.0),
    "f16": (1, 2.0),
    "bf16": (30, 2.0),
    "q8_0": (8, 34 / 32),
    "q4_0": (2, 18 / 32),
}
"""What keys and values are kept as: how ggml numbers the type, and the bytes of a value."""

_OWNER = "engine_kwargs"
_LONGEST_DEFAULT = 16_384  # tokens: keys and values of a 7B model then take two gigabytes at most


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaOptions:
    """Options of the llama.cpp engine.

    Attributes:
        context_length: Tokens whose keys and values are kept, of all sequences together, those of earlier conversations
            among them; by default what the model was trained for, at most 16,384.
        num_threads: Threads of a decode step and of a prefill; by default one per core that this process may use.
        num_gpu_layers: How many layers run on the GPU, if llama.cpp was built for one; -1 for all.
        max_sequences: Most sequences in memory, running ones and those kept for the next turn of a conversation.
        chunk: Most tokens of a forward pass, more than `max_sequences`: a longer prompt is run in several.
        flash_attention: Whether attention is computed without its whole matrix; None leaves it to llama.cpp.
        cache_type: What keys and values are kept as.
        verbose: Whether llama.cpp's own log goes to standard error.

    Raises:
        OptionError: A value is not allowed.
    """

    context_length: int | None = None
    num_threads: int | None = None
    num_gpu_layers: int = -1
    max_sequences: int = 32
    chunk: int = 512
    flash_attention: bool | None = None
    cache_type: CacheType = "f16"
    verbose: bool = False

    def __post_init__(self) -> None:
        if self.context_length is not None:
            check_integer("context_length", self.context_length, low=16, allowed="16 tokens or more", owner=_OWNER)
        if self.num_threads is not None:
            check_integer("num_threads", self.num_threads, low=1, allowed="1 or more", owner=_OWNER)
        check_integer("num_gpu_layers", self.num_gpu_layers, low=-1, allowed="-1 (all) or more", owner=_OWNER)
        check_integer("max_sequences", self.max_sequences, low=1, high=255, allowed="1 to 255", owner=_OWNER)
        allowed = f"{self.max_sequences + 1} tokens or more, above `max_sequences`"
        check_integer("chunk", self.chunk, low=self.max_sequences + 1, allowed=allowed, owner=_OWNER)
        if self.flash_attention is not None:
            check_flag("flash_attention", self.flash_attention, owner=_OWNER)
        check_choice("cache_type", self.cache_type, CACHE_TYPES, owner=_OWNER)
        check_flag("verbose", self.verbose, owner=_OWNER)

    def threads(self) -> int:
        """Return the number of threads."""
        if self.num_threads is not None:
            return self.num_threads
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def cells(self, trained_length: int) -> int:
        """Return for how many tokens keys and values are kept.

        Args:
            trained_length: The context that the model was trained for.
        """
        return self.context_length or min(trained_length, _LONGEST_DEFAULT)
