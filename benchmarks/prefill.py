"""What is saved where sequences share the states of their prompts: samples, batches of prompts, and conversations.

    python -m benchmarks.prefill
    python -m benchmarks.prefill --only samples --repeats 2
    python -m benchmarks.prefill --folder path/of/a/model --prompt-tokens 1000 --history-tokens 2000

Sides take turns in one process, as in `chat.py`.

samples         8 samples of a long prompt, 16 tokens each, so that the prompt is most of the work: `model.generate`
                with `num_return_sequences=8` runs the prompt 8 times. The prefix cache is off.
prompts         4 short prompts with 8 samples each, in one call of `generate`, against one padded batch of all 32
                sequences. The prefix cache is off.
conversation    Ten turns of an agent that sends its whole history again each time, to the first token of each answer,
                with the prefix cache and without. It is empty when the conversation begins.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

import langnorm.abacus
from benchmarks.setups import PACKAGES, discard, listed, prompts
from benchmarks.timing import machine, print_table, results_file, summarise, take_turns, write_json
from langnorm import ChatLangNorm
from langnorm.engines.transformers.engine import TransformersEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.timing import Work

ROWS = ("samples", "prompts", "conversation")
SAMPLES_BAR, PROMPTS_BAR, CONVERSATION_BAR = 0.4, 1.1, 1 / 3
NUM_SAMPLES, NUM_PROMPTS, NUM_TURNS, NUM_TOKENS, TEMPERATURE = 8, 4, 10, 16, 0.7
RAW, OURS = "model.generate", "ChatLangNorm"


class Bench:
    """The rows for one model.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        prompt_tokens: Length of the prompt with many samples.
        history_tokens: Length of the history that a conversation begins with.
    """

    def __init__(self, model: Any, tokenizer: Any, prompt_tokens: int, history_tokens: int) -> None:
        never = model.config.vocab_size
        model.generation_config = transformers.GenerationConfig(eos_token_id=never, pad_token_id=tokenizer.pad_token_id)
        self.model, self.tokenizer = model, tokenizer
        self.prompt_tokens, self.history_tokens = prompt_tokens, history_tokens
        self.cached = TransformersEngine(model, tokenizer)
        self.uncached = TransformersEngine(model, tokenizer, prefix_cache_bytes=0)

    def sides(self, row: str) -> tuple[dict[str, Work], float]:
        """Return what does the work of a row, the first being what the others are compared with, and its bar."""
        sides: tuple[dict[str, Work], float] = getattr(self, row)()
        return sides

    def samples(self) -> tuple[dict[str, Work], float]:
        """Many samples of one long prompt."""
        return self.against_raw([self.long_message(self.prompt_tokens)]), SAMPLES_BAR

    def prompts(self) -> tuple[dict[str, Work], float]:
        """Some samples of some short prompts."""
        return self.against_raw([HumanMessage(text) for text in prompts(NUM_PROMPTS)]), PROMPTS_BAR

    def conversation(self) -> tuple[dict[str, Work], float]:
        """The first token of each turn."""
        history: list[BaseMessage] = [self.long_message(self.history_tokens)]
        turns = [[*history]]
        for number in range(1, NUM_TURNS):
            history += [AIMessage(f"The result is {number}."), HumanMessage(f"Now add {37 * number} to that.")]
            turns.append([*history])
        without, with_cache = (
            ChatLangNorm(engine=e, temperature=0, max_tokens=1) for e in (self.uncached, self.cached)
        )

        def talk(chat: ChatLangNorm) -> list[str]:
            chat.clear_prefix_cache()
            return [chat.invoke(turn).text for turn in turns]

        if talk(without) != talk(with_cache):
            msg = "With the prefix cache, a conversation goes otherwise than without."
            raise RuntimeError(msg)
        sides: dict[str, Work] = {
            "without": lambda: discard(talk(without)),
            "prefix cache": lambda: discard(talk(with_cache)),
        }
        return sides, CONVERSATION_BAR

    def against_raw(self, messages: Sequence[BaseMessage]) -> dict[str, Work]:
        """Return the plain generation of some samples of each prompt, which are tokenised before, and ours."""
        chats = [[message] for message in messages]
        ids = [
            self.tokenizer.apply_chat_template([self.turn(m)], add_generation_prompt=True)["input_ids"]
            for m in messages
        ]
        inputs = self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(self.model.device)
        options = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0, "max_new_tokens": NUM_TOKENS}
        options["num_return_sequences"] = NUM_SAMPLES
        size = NUM_SAMPLES * len(chats)
        chat = ChatLangNorm(
            engine=self.uncached, temperature=TEMPERATURE, max_tokens=NUM_TOKENS, max_batch_size=size, n=NUM_SAMPLES
        )
        return {
            RAW: lambda: discard(self.model.generate(**inputs, **options)),
            OURS: lambda: discard(chat.generate(chats)),
        }

    def long_message(self, num_tokens: int) -> BaseMessage:
        """Return a message that makes a prompt of about so many tokens."""
        text = " ".join(prompts(60))
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        repeated = (ids * (num_tokens // len(ids) + 1))[:num_tokens]
        return HumanMessage(self.tokenizer.decode(repeated))

    @staticmethod
    def turn(message: BaseMessage) -> dict[str, Any]:
        """Return a message as chat templates take it."""
        return {"role": "user", "content": message.content}


def load_random() -> tuple[Any, Any]:
    """Return a Qwen3 of 20 million random parameters in float32 with a long context, and Abacus' tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(langnorm.abacus.path())
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        max_position_embeddings=8192,
        initializer_range=0.05,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval(), tokenizer


def load_folder(folder: str) -> tuple[Any, Any]:
    """Return a model from a folder, in float32, and its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=listed(ROWS), default=list(ROWS), help=",".join(ROWS))
    parser.add_argument("--folder", help="of a model; by default one of 20 million random parameters")
    parser.add_argument("--prompt-tokens", type=int, default=1000, help="of the prompt with many samples")
    parser.add_argument("--history-tokens", type=int, default=2000, help="that a conversation begins with")
    parser.add_argument("--repeats", type=int, default=6, help="rounds per row")
    parser.add_argument("--out", type=Path, help="by default prefill.json or prefill-DEVICE.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the model is")
    options = parser.parse_args()
    options.out = options.out or results_file("prefill", options.device)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model, tokenizer = load_folder(options.folder) if options.folder else load_random()
    bench = Bench(model.to(options.device), tokenizer, options.prompt_tokens, options.history_tokens)
    results: dict[str, Any] = {}
    document = {
        "machine": machine(PACKAGES) | {"device": options.device, "num_torch_threads": torch.get_num_threads()},
        "model": {"name": options.folder or "random", "num_parameters": model.num_parameters()},
        "sizes": {"prompt_tokens": options.prompt_tokens, "history_tokens": options.history_tokens},
        "rows": results,
    }
    for row in options.only:
        sides, bar = bench.sides(row)
        timings = take_turns(model, sides, options.repeats)
        results[row] = summarise(timings, dict.fromkeys(list(sides)[1:], bar))
        write_json(options.out, document)
    print_table(f"{model.num_parameters():,} parameters", results)
    print(f"Written to {options.out}")


if __name__ == "__main__":
    main()
