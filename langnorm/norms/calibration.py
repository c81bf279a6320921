"""Fits the distribution of a model's norms to what it answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from langnorm.checks import check_integer
from langnorm.errors import OptionError
from langnorm.files import write_atomically

if TYPE_CHECKING:
    from langnorm.norms.identity import ModelIdentity
    from langnorm.norms.sketch import QuantileSketch


class LoadedModel(Protocol):
    """A loaded model, as far as a calibration is concerned; every engine is one."""

    @property
    def identity(self) -> ModelIdentity:
        """What its profile is tied to."""

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""


class NormAnswers(Protocol):
    """A chat model whose answers have norms, as far as a calibration is concerned; `ChatLangNorm` is one."""

    model: str
    max_batch_size: int

    def loaded_engine(self) -> LoadedModel:
        """Return what runs it, with the weights loaded."""

    def is_sampling(self) -> bool:
        """Return whether its answers are drawn at random."""

    def record_norms(self, prompts: list[Any], **settings: Any) -> list[list[list[float]]]:
        """Return for each prompt's answer of T tokens the T - 1 rows of its norms, one per decoder layer."""


def calibrate(
    chat: NormAnswers, prompts: Sequence[Any], *, num_tokens: int, checkpoint: Path | None, show_progress: bool
) -> QuantileSketch:
    """Return the distribution of the norms of all decoder layers; arguments as for `NormProfile.calibrate`."""
    from tqdm import tqdm

    from langnorm.norms.sketch import QuantileSketch

    if not prompts or isinstance(prompts, str):
        msg = "There are no prompts. Give a list of texts, such as questions that the model will be asked."
        raise OptionError(msg)
    check_integer("num_tokens", num_tokens, low=1, allowed="1 or above; some thousands give a steady profile")
    engine = chat.loaded_engine()
    work = _fingerprint(prompts, chat.max_batch_size, engine.identity)
    state = _State.load(checkpoint, work) if checkpoint else None
    state = state or _State(QuantileSketch(range(engine.num_layers)), 0)
    sketch = state.sketch
    with tqdm(
        total=num_tokens, initial=min(sketch.num_samples, num_tokens), unit="token", disable=not show_progress
    ) as bar:
        for number, batch, settings in _batches(chat, prompts, first=state.num_batches):
            if sketch.num_samples >= num_tokens:
                break
            for rows in chat.record_norms(batch, **settings):
                _add(sketch, rows)
            if checkpoint:
                _State(sketch, number + 1).save(checkpoint, work)
            bar.update(min(sketch.num_samples, num_tokens) - bar.n)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return sketch


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


def _fingerprint(prompts: Sequence[Any], batch_size: int, identity: ModelIdentity) -> str:
    """Return a hash of what decides which prompts a batch has, and of the model that answers them."""
    parts = repr((list(prompts), batch_size, asdict(identity)))
    return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


def _batches(chat: NormAnswers, prompts: Sequence[Any], first: int) -> Iterator[tuple[int, list[Any], dict[str, Any]]]:
    """Yield batches of prompts with their number and their settings, from the one numbered `first` on."""
    size = chat.max_batch_size
    per_round = -(-len(prompts) // size)
    is_sampling = chat.is_sampling()
    for number in count(first):
        round_number, place = divmod(number, per_round)
        if round_number and not is_sampling:
            return  # greedy answers would only come again
        batch = list(prompts[place * size : (place + 1) * size])
        yield number, batch, {"seed": number} if is_sampling else {}


def _add(sketch: QuantileSketch, rows: Sequence[Sequence[float]]) -> None:
    import torch

    from langnorm.norms.sinks import sinks_among

    if rows:
        norms = torch.tensor(rows)
        sketch.update(norms, ~sinks_among(norms))


@dataclass(frozen=True, slots=True)
class _State:
    """How far a calibration has come."""

    sketch: QuantileSketch
    num_batches: int

    @classmethod
    def load(cls, path: Path, work: str) -> _State | None:
        from langnorm.norms.sketch import QuantileSketch

        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            state = cls(QuantileSketch.from_dict(stored["sketch"]), int(stored["num_batches"]))
            is_ours = stored["work"] == work
        except (ValueError, KeyError, TypeError):
            is_ours = False
        if not is_ours:
            msg = f"The checkpoint `{path}` belongs to another calibration. Delete it, or give another path."
            raise OptionError(msg)
        return state

    def save(self, path: Path, work: str) -> None:
        stored = {"sketch": self.sketch.to_dict(), "num_batches": self.num_batches, "work": work}
        write_atomically(path, json.dumps(stored))
