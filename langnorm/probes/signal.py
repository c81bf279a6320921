"""The first diagnosis of a model: what its norms do on answers that reason, and on answers that do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from langnorm.checks import refuse
from langnorm.errors import OptionError
from langnorm.norms.layers import select_layers
from langnorm.probes.answering import Answered, ask_all
from langnorm.probes.problems import Problem, check_seeds, seed_of
from langnorm.probes.signal_figures import RecordedTokens, signal_figures

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm


def probe_signal(
    chat: ChatLangNorm,
    tasks: Sequence[Problem],
    *,
    seeds: Sequence[int] = (0,),
    temperature: float = 0.7,
    max_tokens: int = 512,
    is_quiet: bool = False,
) -> dict[str, Any]:
    """Return the figures of `signal_figures` for a chat model, in plain JSON types.

    Args:
        chat: The chat model.
        tasks: The problems, two at least. Each is answered with reasoning, and once more without.
        seeds: Each problem is answered with each of them.
        temperature: Of the answers; 0 is greedy.
        max_tokens: Most tokens of an answer.
        is_quiet: Whether there is no progress bar.

    Raises:
        OptionError: There are too few problems, or no answer has a token that was run.
    """
    from tqdm import tqdm

    if len(tasks) < 2:
        refuse("tasks", len(tasks), "two problems or more, or there is no interval", "signal")
    check_seeds(seeds)
    common = {"layers": "all", "logprobs": True, "temperature": temperature, "max_tokens": max_tokens}
    numbers = [number for _ in seeds for number in range(len(tasks))]
    recorded = []
    with tqdm(total=2 * len(numbers), unit="answer", disable=is_quiet) as bar:
        for is_direct in (False, True):
            asked = []
            for place, number in enumerate(numbers):
                seed = seed_of(seeds[place // len(tasks)], number)
                asked.append(tasks[number].asked({**common, "seed": seed}, is_direct=is_direct))
            answers = ask_all(chat, asked, bar.update)
            recorded.append([_recorded(tasks[n], n, answer) for n, answer in zip(numbers, answers, strict=True)])
    reasoned, direct = recorded
    if not any(len(answer.ids) for answer in reasoned):
        msg = "No answer has a token that was run, so there are no norms. Give other problems, or more `max_tokens`."
        raise OptionError(msg)
    return signal_figures(reasoned, direct, select_layers("late", chat.loaded_engine().num_layers))


def _recorded(task: Problem, number: int, answered: Answered) -> RecordedTokens:
    trace, message = answered.trace, answered.message
    num_run = answered.num_run
    logprobs = [token["logprob"] for token in message.response_metadata["logprobs"]["content"]]
    return RecordedTokens(
        problem=number,
        norms=np.array(trace.token_norms or (), dtype=float).reshape(-1, len(trace.layers)),
        ids=np.array((trace.token_ids or ())[:num_run], dtype=np.int64),
        surprisal=-np.array(logprobs[:num_run], dtype=float),
        texts=(trace.token_texts or ())[:num_run],
        is_right=task.is_right(str(message.text)),
        is_cut=answered.is_cut,
    )
