"""Norms against a plain loop over llama.cpp that reads the tensors of the graph by itself."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from langnorm.engines.options import Sampling
from langnorm.engines.requests import Record, Request
from tests.support.calls import PROMPTS, answer


def plain_run(path: Path, prompt: tuple[int, ...], num_tokens: int) -> tuple[list[int], np.ndarray]:
    """Returns greedy tokens and the norms (T - 1, L) of the states that llama.cpp's own callback shows.

    Shares nothing with the engine: its own context, a token at a time, every tensor copied, NumPy.
    """
    import llama_cpp
    from llama_cpp import llama_cpp as api
    from llama_cpp._ctypes_extensions import load_shared_library

    ggml = load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
    ggml.ggml_get_name.restype, ggml.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    ggml.ggml_nelements.restype, ggml.ggml_nelements.argtypes = ctypes.c_int64, [ctypes.c_void_p]
    ggml.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    seen: dict[int, np.ndarray] = {}

    def look(tensor: int, is_question: bool, _data: Any) -> bool:
        name = ggml.ggml_get_name(tensor).decode()
        if not is_question and name.startswith("l_out-"):
            values = np.empty(ggml.ggml_nelements(tensor), dtype=np.float32)
            ggml.ggml_backend_tensor_get(tensor, values.ctypes.data, 0, values.nbytes)
            seen[int(name.removeprefix("l_out-"))] = values
        return True

    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    params = api.llama_context_default_params()
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = params.flash_attn_type = 0
    params.cb_eval = callback = api.ggml_backend_sched_eval_callback(look)
    context = api.llama_init_from_model(model, params)
    vocabulary_size = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))
    tokens, rows, given = [], [], list(prompt)
    try:
        for position in range(len(prompt) + num_tokens - 1):
            token = (llama_cpp.llama_token * 1)(given[position])
            assert api.llama_decode(context, api.llama_batch_get_one(token, 1)) == 0
            if position >= len(prompt):
                rows.append([np.linalg.norm(seen[layer]) for layer in sorted(seen)])
            if position >= len(prompt) - 1:
                logits = np.ctypeslib.as_array(api.llama_get_logits_ith(context, 0), (vocabulary_size,))
                given.append(int(logits.argmax()))
                tokens.append(given[-1])
    finally:
        api.llama_free(context)
        api.llama_model_free(model)
        del callback
    return tokens, np.array(rows)


def test_norms_are_those_that_the_graph_shows(tiny, tiny_file) -> None:
    """Of every layer and token, with tokens that are equal."""
    for prompt in PROMPTS:
        completion = answer(tiny, Request(prompt, Sampling(max_tokens=16), Record(layers=(0, 1, 2, 3))))
        tokens, norms = plain_run(tiny_file, prompt, 16)
        assert completion.token_ids == tokens[: len(completion.token_ids)]
        np.testing.assert_allclose(completion.norms, norms[: len(completion.norms)], rtol=1e-5)
