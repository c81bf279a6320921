"""Writes models as GGUF files, as llama.cpp's converter does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EXACT = {"cache_type": "f32", "flash_attention": False, "num_threads": 1}
"""Options with which llama.cpp computes as transformers does in float32."""

_FAMILIES = {"qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3}


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    block_type: gguf.GGMLQuantizationType | None = None,
    **metadata: Any,
) -> Path:
    """Writes a model of the family qwen2 or qwen3 and its byte-level BPE tokenizer to a GGUF file; returns its path.

    Args:
        path: Of the file.
        model: With an embedding for each token.
        tokenizer: With a chat template, or None.
        block_type: In which matrices are packed; by default they stay in float32.
        **metadata: Further numbers, texts under names whose dots are `__`; `architecture` is another one.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", config.model_type))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    if head_size := getattr(config, "head_dim", None):
        writer.add_key_length(head_size)
        writer.add_value_length(head_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    for name, value in metadata.items():
        (writer.add_string if isinstance(value, str) else writer.add_uint16)(name.replace("__", "."), value)
    _add_tokenizer(writer, tokenizer)
    names = gguf.get_tensor_name_map(_FAMILIES[config.model_type], config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        stem, _, suffix = name.rpartition(".")
        values = weight.float().numpy()
        if block_type is not None and values.ndim == 2:
            packed = gguf.quants.quantize(values, block_type)
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", packed, raw_dtype=block_type)
        else:
            writer.add_tensor(f"{names.get_name(stem)}.{suffix}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
    bpe = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(len(tokenizer))]
    control = set(tokenizer.added_tokens_decoder)
    kinds = [gguf.TokenType.CONTROL if i in control else gguf.TokenType.NORMAL for i in range(len(tokens))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
