"""Fits a `NormProfile` to what a chat model answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langnorm.errors import OptionError
from langnorm.files import write_atomically
from langnorm.norms.profile import NormProfile

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from langnorm.chat_models import ChatLangNorm
    from langnorm.norms.sketch import QuantileSketch


def calibrate(
    chat: ChatLangNorm, prompts: Sequence[Any], *, num_tokens: int, checkpoint: Path | None, show_progress: bool
) -> NormProfile:
    """Do what `NormProfile.calibrate` says."""
    from tqdm import tqdm

    from langnorm.norms.sketch import QuantileSketch

    if not prompts or isinstance(prompts, str):
        msg = "There are no prompts. Give a list of texts, such as questions that the model will be asked."
        raise OptionError(msg)
    if not isinstance(num_tokens, int) or num_tokens < 1:
        msg = f"`num_tokens={num_tokens!r}` is not allowed. Use 1 or above; some thousands give a steady profile."
        raise OptionError(msg)
    engine = chat.loaded_engine()
    empty = NormProfile(chat.model, engine.identity, QuantileSketch(range(engine.num_layers)))
    work = _fingerprint(prompts, chat.max_batch_size)
    state = _State.load(checkpoint, empty, work) if checkpoint else _State(empty, 0)
    profile = state.profile
    with tqdm(
        total=num_tokens, initial=min(profile.num_tokens, num_tokens), unit="token", disable=not show_progress
    ) as bar:
        for number, batch, settings in _batches(chat, prompts, first=state.num_batches):
            if profile.num_tokens >= num_tokens:
                break
            for reply in chat.batch(batch, norms="tokens", layers="all", **settings):
                _add(profile.sketch, reply)
            if checkpoint:
                _State(profile, number + 1).save(checkpoint, work)
            bar.update(min(profile.num_tokens, num_tokens) - bar.n)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return profile


def read_prompts(path: Path) -> list[Any]:
    """Return the prompts of a file: a text a line, or, in a file called `*.jsonl`, a JSON value a line.

    Such a value is a text, a list of messages as dicts of `role` and `content`, or a dict with one of these under
    `prompt` or `messages`.

    Raises:
        OptionError: The file cannot be read, is empty, or a line is none of these.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        msg = f"The prompts `{path}` cannot be read ({error}). Give a text file with one prompt a line."
        raise OptionError(msg) from error
    if not lines:
        msg = f"The file `{path}` has no prompts. Give one with a prompt a line."
        raise OptionError(msg)
    if path.suffix != ".jsonl":
        return [line.strip() for line in lines]
    return [_prompt_of(line, f"Line {number} of `{path}`") for number, line in enumerate(lines, 1)]


def _prompt_of(line: str, where: str) -> Any:
    try:
        value = json.loads(line)
    except ValueError as error:
        msg = f"{where} is not JSON ({error}). Give a text or a list of messages a line."
        raise OptionError(msg) from error
    if isinstance(value, dict):
        value = value.get("prompt", value.get("messages"))
    if not value or not isinstance(value, str | list):
        msg = f"{where} has no prompt. Give a text, a list of messages, or a dict with `prompt` or `messages`."
        raise OptionError(msg)
    return value


def _fingerprint(prompts: Sequence[Any], batch_size: int) -> str:
    """Return a hash of what decides which prompts a batch has."""
    return hashlib.blake2b(repr((list(prompts), batch_size)).encode(), digest_size=8).hexdigest()


def _batches(chat: ChatLangNorm, prompts: Sequence[Any], first: int) -> Iterator[tuple[int, list[Any], dict[str, Any]]]:
    """Yield batches of prompts with their number and their settings, from the one numbered `first` on."""
    size = chat.max_batch_size
    per_round = -(-len(prompts) // size)
    is_sampled = chat.samples()
    for number in count(first):
        round_number, place = divmod(number, per_round)
        if round_number and not is_sampled:
            return  # greedy answers would only come again
        batch = list(prompts[place * size : (place + 1) * size])
        yield number, batch, {"seed": number} if is_sampled else {}


def _add(sketch: QuantileSketch, reply: AIMessage) -> None:
    import torch

    from langnorm.norms.reading import sink_mask
    from langnorm.trace import NormTrace

    rows = NormTrace.from_message(reply).token_norms
    if rows:
        norms = torch.tensor(rows)
        sketch.update(norms, ~sink_mask(norms))


@dataclass(frozen=True, slots=True)
class _State:
    """How far a calibration has come."""

    profile: NormProfile
    num_batches: int

    @classmethod
    def load(cls, path: Path, empty: NormProfile, work: str) -> _State:
        if not path.exists():
            return cls(empty, 0)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            state = cls(NormProfile.from_dict(stored["profile"]), int(stored["num_batches"]))
            is_ours = stored["work"] == work and state.profile.identity == empty.identity
        except (ValueError, KeyError, TypeError):
            is_ours = False
        if not is_ours:
            msg = f"The checkpoint `{path}` belongs to another calibration. Delete it, or give another path."
            raise OptionError(msg)
        return state

    def save(self, path: Path, work: str) -> None:
        stored = {
            "profile": self.profile.to_dict(),
            "num_batches": self.num_batches,
            "work": work,
        }
        write_atomically(path, json.dumps(stored))
