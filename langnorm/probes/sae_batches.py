"""The batches of hidden states that a sparse autoencoder is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langnorm.checks import brief
from langnorm.errors import OptionError

_NUM_FOR_START = 16_384  # states that scale and bias are taken from
_BUFFER = 64  # states that come one after the other are mixed in a buffer of this many batches


def state_batches(
    states: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
    width: int,
    batch_size: int,
    num_steps: int,
    *,
    seed: int,
    first: int = 0,
) -> Iterator[Tensor]:
    """Yield batches (batch_size, d), in the dtype and on the device of the states.

    Before the first step of all, some states (N, d) are yielded that scale and bias are taken from; they are part of
    later batches too.

    Args:
        states: All states (N, d), or some at a time. Of all states, each batch is drawn by seed and step alone; those
            that come one after the other are mixed in a buffer, each is yielded once, and there may be too few.
        width: d.
        batch_size: States of a step.
        num_steps: Number of steps.
        seed: Of the order.
        first: Number of the first step.

    Raises:
        OptionError: The states are not of that form, or there are none.
    """
    if isinstance(states, Tensor | np.ndarray):
        return _random_batches(_checked(states, width), batch_size, num_steps, seed, first)
    return _mixed_batches(states, width, batch_size, seed, first)


def _checked(states: Any, width: int) -> Tensor:
    is_array = isinstance(states, Tensor | np.ndarray)
    tensor = torch.as_tensor(states) if is_array else torch.zeros(0)
    if not is_array or tensor.ndim != 2 or tensor.size(1) != width or not tensor.is_floating_point() or not len(tensor):
        form = f"shape {tuple(tensor.shape)} and dtype {tensor.dtype}" if is_array else brief(states)
        msg = f"`states` ({form}) are not allowed. Use floating-point numbers of shape (N, {width}), N above 0."
        raise OptionError(msg)
    return tensor


def _random_batches(states: Tensor, batch_size: int, num_steps: int, seed: int, first: int) -> Iterator[Tensor]:
    if first == 0:
        yield states[torch.randperm(len(states), generator=_generator(seed, -1, states))[:_NUM_FOR_START]]
    for step in range(first, num_steps):
        generator = _generator(seed, step, states)
        yield states[torch.randint(len(states), (batch_size,), generator=generator, device=states.device)]


def _mixed_batches(states: Iterable[Any], width: int, batch_size: int, seed: int, first: int) -> Iterator[Tensor]:
    room = max(_BUFFER * batch_size, _NUM_FOR_START)
    waiting: list[Tensor] = []
    num_waiting, num_buffers = 0, 0
    for part in states:
        waiting.append(_checked(part, width))
        num_waiting += len(waiting[-1])
        if num_waiting >= room:
            buffer = _mixed(waiting, seed, num_buffers)
            if first == 0 and num_buffers == 0:
                yield buffer[:_NUM_FOR_START]
            while len(buffer) > room // 2:
                yield buffer[:batch_size]
                buffer = buffer[batch_size:]
            waiting, num_waiting, num_buffers = [buffer], len(buffer), num_buffers + 1
    if not waiting:
        msg = "`states` has nothing to train on. Give some."
        raise OptionError(msg)
    buffer = _mixed(waiting, seed, num_buffers)
    if first == 0 and num_buffers == 0:
        yield buffer[:_NUM_FOR_START]
    while len(buffer) >= batch_size:
        yield buffer[:batch_size]
        buffer = buffer[batch_size:]


def _mixed(parts: list[Tensor], seed: int, number: int) -> Tensor:
    joined = torch.cat(parts)
    order = torch.randperm(len(joined), generator=torch.Generator().manual_seed(_mix(seed, number)))
    return joined[order.to(joined.device)]


def _generator(seed: int, step: int, states: Tensor) -> torch.Generator:
    device = states.device if step >= 0 else "cpu"
    return torch.Generator(device).manual_seed(_mix(seed, step))


def _mix(seed: int, number: int) -> int:
    """Return a seed for a number in the series of a seed; those of other seeds and numbers are unlike it."""
    return hash((seed, number)) & (2**63 - 1)  # of integers, which is the same in every process
