"""What is stored: files and messages that were cut, edited, mixed up, or never what they seem."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from langchain_core.messages import AIMessage, HumanMessage

from langnorm import NormProfile, NormTrace
from langnorm.interventions.options import Recursion, Steering
from langnorm.interventions.plan import Plan, Plans
from langnorm.norms.calibration_checkpoint import Checkpoint
from langnorm.norms.calibration_prompts import read_prompts
from langnorm.norms.calibration_report import Tally
from langnorm.norms.identity import ModelIdentity
from langnorm.norms.recorded_steps import RecordedSteps
from langnorm.norms.sketch import QuantileSketch
from langnorm.norms.token_file import from_bytes, to_bytes
from langnorm.norms.token_sums import TokenSums
from langnorm.selection import rank
from langnorm.testing import message_with_norms
from langnorm.trace import KEY
from tests.support.fuzz.values import changed, odd, plain
from tests.support.traces import READING, trace

WORK = {"max_tokens": "20", "prompts": "x"}


def sketch() -> QuantileSketch:
    """Return a small distribution."""
    made = QuantileSketch((0, 1))
    made.update(torch.linspace(1, 3, 40).reshape(20, 2))
    return made


def token_sums() -> TokenSums:
    """Return a small table of tokens, as it is counted."""
    made = TokenSums((0, 1))
    made.update([3, 3, 9], [[1.0, 2.0], [1.5, 2.5], [3.0, 4.0]])
    return made


def recorded_steps() -> RecordedSteps:
    """Return two short steps."""
    made = RecordedSteps(2)
    made.add([3, 9], np.array([[1.0, 2.0], [3.0, 4.0]]))
    made.add([3], np.array([[1.5, 2.5]]))
    return made


@cache
def folder() -> Path:
    """Return a folder of this process."""
    return Path(tempfile.mkdtemp(prefix="langnorm-fuzz-"))


def load_checkpoint(path: Path) -> None:
    """Read a checkpoint of `WORK`."""
    Checkpoint.load(path, WORK)


@cache
def documents() -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Return a sound document of each form, and what reads it."""
    steps = recorded_steps()
    by_layer = steps.by_layer(sketch())
    assert by_layer is not None
    profile = NormProfile("mine", ModelIdentity("A", "b", "float32", 2, "c"), sketch(), steps={"layer": by_layer})
    checkpoint = folder() / "checkpoint.json"
    Checkpoint((sketch(), sketch()), token_sums(), steps, Tally(3, 1), 2).save(checkpoint, WORK)
    messages = [{"role": "user", "content": "Hi"}]
    return {
        "profile.json": (json.dumps(profile.to_dict()), NormProfile.load),
        "calibration.partial": (checkpoint.read_text(), load_checkpoint),
        "traces.jsonl": (trace(READING, keep_tokens=True).to_json(), NormTrace.read_jsonl),
        "prompts.jsonl": (json.dumps({"messages": messages}), read_prompts),
        "prompts.txt": ("What is 3 + 4?\nHello!", read_prompts),
    }


def stored_file(rng: Random) -> None:
    """Read a file that was damaged."""
    if rng.random() < 0.2:
        table = token_sums().table()
        assert table is not None
        content = bytearray(to_bytes(table))
        for _ in range(rng.choice((0, 1, 1, 3, 30))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        from_bytes(bytes(content[: rng.choice((len(content), rng.randrange(len(content) + 1)))]), "This")
        return
    name = rng.choice(list(documents()))
    sound, read = documents()[name]
    other = documents()[rng.choice(list(documents()))][0]
    path = folder() / name
    path.write_bytes(_damaged(rng, rng.choice((sound, sound, sound, other))))
    if rng.random() < 0.05:
        path = Path(rng.choice((str(folder()), "/there/is/none", "a\0b", "\udc80", "", "/dev/zero", "x" * 5000)))
    read(path)


def _damaged(rng: Random, sound: str) -> bytes:
    """Return a document with some bytes, or some of its values, other than they were."""
    kind = rng.randrange(6)
    content = bytearray(sound.encode())
    if kind == 0:
        return bytes(content[: rng.randrange(len(content) + 1)])
    if kind == 1:
        for _ in range(rng.choice((1, 1, 3, 30))):
            content[rng.randrange(len(content))] = rng.randrange(256)
        return bytes(content)
    if kind == 2:
        return rng.choice(
            (b"", b"\n", b"\xff\xfe", rng.randbytes(50), b"[" * 100_000, b'{"a":' * 50_000, b"1" * 10_000)
        )
    try:
        value = changed(rng, json.loads(sound)) if kind < 5 else plain(rng)
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # it is no JSON any more
        return b"{"


def stored_value(rng: Random) -> None:
    """Read the JSON form of something, or a message, that was garbled."""
    kind = rng.randrange(5)
    if kind == 0:
        QuantileSketch.from_dict(_garbled(rng, sketch().to_dict()))
    elif kind == 1:
        options = {"recursion": Plan(Recursion(), (0, 1), (1.0, 2.0)), "steering": Plan(Steering(), (1,), None)}
        Plans.from_dict(_garbled(rng, Plans(**options).to_dict()))  # type: ignore[arg-type]
    elif kind == 2:
        NormTrace.from_dict(_garbled(rng, trace(READING).to_dict()))
    else:
        messages = [_garbled_message(rng) for _ in range(rng.randrange(1, 4))]
        if kind == 3:
            NormTrace.from_messages(rng.choice((messages, {"messages": messages}, odd(rng))))
        else:
            score = rng.choice((None, "mean", "mean_logprob", "late_rate", "numeral_logprob", {"mean": 1}))
            rank(rng.choice((messages, messages, odd(rng))), score=score, vote=rng.choice(("none", "majority")))


def _garbled(rng: Random, value: Any) -> Any:
    return odd(rng) if rng.random() < 0.2 else changed(rng, value)


def _garbled_message(rng: Random) -> Any:
    kind = rng.randrange(6)
    if kind == 0:
        return rng.choice((HumanMessage("x"), AIMessage("y"), odd(rng)))
    message = message_with_norms("One. Two.", intensities=0.3)
    entries = [{"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}] * 3
    metadata = {**message.response_metadata, "logprobs": {"content": entries}}
    metadata[KEY] = trace(READING).to_dict()
    extra: dict[str, Any] = {KEY: {"token_norms": [[1.0, 2.0]] * 3, "token_texts": ["a"] * 4}}
    garble = changed if rng.random() < 0.7 else lambda rng, _: {KEY: odd(rng), "logprobs": odd(rng)}
    if kind < 4:
        metadata = garble(rng, metadata)
    if kind % 2:
        extra = garble(rng, extra)
    message.response_metadata, message.additional_kwargs = metadata, extra
    return message
