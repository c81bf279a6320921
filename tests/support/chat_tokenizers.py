"""Small tokenizers with chat templates, built as the families build theirs."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

import langnorm.abacus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from transformers import PreTrainedTokenizerBase

_CORPUS = [
    "The user asked the system what the end of a turn is, and the assistant said: it starts at the start.",
    'A call is {"name": "add", "arguments": {"a": 12, "b": 30}} and its response is 42; see <b>bold</b> and [x].',
    "In the header of the text, the id is eot or im; begin, model, tool, think, INST, call, table, pad, unk.",
    "def start(x):\n    return [x | y for y in x]  # end of text\n\n\n",
] * 20
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_LLAMA_3_SPLIT = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)

_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content.strip() + ' ' + eos_token }}"
    "{% else %}{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}{% endif %}{% endfor %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start_of_turn>' + role + '\n' + m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_GPT_2 = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
_BYT5 = "{% for m in messages %}{{ '<extra_id_0>' + m.role + '\n' + m.content + '</s>' }}{% endfor %}"


def _abacus() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(langnorm.abacus.path())


def _byte_level(split: pre_tokenizers.PreTokenizer | None, special: Sequence[str], **model: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**model))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level]) if split else level
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    # As in the originals these are behind the vocabulary, not in it.
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _llama_3() -> PreTrainedTokenizerBase:
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    split = pre_tokenizers.Split(Regex(_LLAMA_3_SPLIT), behavior="isolated")
    backend = _byte_level(split, [*special, "<|python_tag|>"], ignore_merges=True)
    return _fast(backend, _LLAMA_3, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def _gpt_2() -> PreTrainedTokenizerBase:
    return _fast(_byte_level(None, ["<|endoftext|>"]), _GPT_2, eos_token="<|endoftext|>")


def _byte_fallback(special: Sequence[str]) -> Tokenizer:
    """Returns a BPE over characters whose vocabulary begins with control tokens and bytes, as of SentencePiece."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    first = [*special, *_BYTES]
    trained.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=600, special_tokens=first, show_progress=False))
    vocab, merges = trained.get_vocab(), []
    pieces = sorted((i, token) for token, i in vocab.items() if len(token) > 1 and token not in first)
    for _, token in pieces:
        cuts = [(token[:n], token[n:]) for n in range(1, len(token)) if token[:n] in vocab and token[n:] in vocab]
        merges.append(min(cuts, key=lambda cut: max(vocab[cut[0]], vocab[cut[1]])))
    model = models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


_SENTENCE_PIECE_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def _llama_2(*extra: str, is_legacy: bool = False) -> PreTrainedTokenizerBase:
    backend = _byte_fallback(["<unk>", "<s>", "</s>", *extra])
    if is_legacy:  # a space before each stretch between control tokens
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([*_SENTENCE_PIECE_DECODER, decoders.Strip(" ", 1, 0)])
    return _fast(backend, _LLAMA_2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _gemma() -> PreTrainedTokenizerBase:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    backend = _byte_fallback(special)
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence(_SENTENCE_PIECE_DECODER)
    # Added, and ordinary all the same.
    backend.add_tokens([AddedToken(text, normalized=False) for text in ("\n\n", "\n\n\n", "▁▁", "<table>", "<b>")])
    return _fast(backend, _GEMMA, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


def _unigram() -> PreTrainedTokenizerBase:
    special = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", *_BYTES]
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(_CORPUS, trainer)
    vocab = [tuple(piece) for piece in json.loads(trained.to_str())["model"]["vocab"]]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence([*_SENTENCE_PIECE_DECODER, decoders.Strip(" ", 1, 0)])
    backend.add_special_tokens(special[:5])
    return _fast(backend, _CHATML, bos_token="<s>", eos_token="<|im_end|>", unk_token="<unk>")


def _byt5() -> PreTrainedTokenizerBase:
    """Returns a tokenizer in plain Python."""
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = _BYT5
    return tokenizer


def _fast(backend: Tokenizer, template: str, **special: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **special)


_BUILDERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "abacus": _abacus,
    "llama-3": _llama_3,
    "llama-2": _llama_2,
    "llama-2-legacy": lambda: _llama_2(is_legacy=True),
    "mistral": lambda: _llama_2("[INST]", "[/INST]", "[TOOL_CALLS]"),
    "gemma": _gemma,
    "unigram": _unigram,
    "gpt-2": _gpt_2,
    "byt5": _byt5,
}

FAMILIES = tuple(_BUILDERS)
"""The names that `chat_tokenizer` takes."""


@cache
def chat_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """Returns the tokenizer of a family. Whoever changes one builds its own."""
    return _BUILDERS[family]()
