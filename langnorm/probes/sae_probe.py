"""Sparse autoencoders of a chat model's own states: on answers that reason, and on direct ones to the same problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from langnorm.checks import check_choice, check_integer, check_number, refuse
from langnorm.engines.requests import Completion
from langnorm.errors import OptionError
from langnorm.norms.layers import LayerSelection, select_layers
from langnorm.probes.answer_states import AnswerStates
from langnorm.probes.answering import record_states
from langnorm.probes.problems import Problem, check_seeds, seed_of
from langnorm.probes.sae import SAEConfig, load_sae, save_sae
from langnorm.probes.sae_report import compare, count_violations, groups_of, norm_curves, over_layers, same_tokens
from langnorm.probes.sae_training import CHECKPOINT_FILE, SAETraining, measure_sae, train_sae
from langnorm.work import digest_of

if TYPE_CHECKING:
    from langnorm.chat_models import ChatLangNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class SAEProbe:
    """What is done.

    Attributes:
        layers: Layers that get an SAE each; None takes the deepest of the late ones.
        expansion: Features of an SAE for each entry of a state.
        architecture: `"topk"` or `"standard"`.
        k: Active features of a state, of `topk`.
        training: How an SAE is trained.
        held_out: Share of the problems that has no part in training and in the choice of features, and is reported on.
        seeds: Each problem is answered with each of them.
        temperature: Of the answers.
        max_tokens: Most tokens of an answer.
    """

    layers: LayerSelection | None = None
    expansion: int = 4
    architecture: str = "topk"
    k: int = 32
    training: SAETraining = field(default_factory=SAETraining)
    held_out: float = 0.3
    seeds: Sequence[int] = (0,)
    temperature: float = 0.7
    max_tokens: int = 512

    def __post_init__(self) -> None:
        check_integer("expansion", self.expansion, low=1)
        check_choice("architecture", self.architecture, ("topk", "standard"))
        check_integer("k", self.k, low=1)
        check_number("held_out", self.held_out, low=0, high=1, is_low_open=True, is_high_open=True)
        check_seeds(self.seeds)
        check_number("temperature", self.temperature, low=0)
        check_integer("max_tokens", self.max_tokens, low=2)


def probe_sae(
    chat: ChatLangNorm,
    tasks: Sequence[Problem],
    folder: Path,
    probe: SAEProbe | None = None,
    *,
    published: Path | None = None,
    device: str = "cpu",
    is_quiet: bool = False,
) -> dict[str, Any]:
    """Return what SAEs say of a chat model's answers, in plain JSON types; each is written into a folder of its layer.

    Args:
        chat: The chat model.
        tasks: The problems, four at least. Each is answered with reasoning, and once more without.
        folder: Where the SAEs go, in SAELens' format, and checkpoints while they are trained.
        probe: What is done.
        published: The folder of an SAE in that format that is taken instead of one that is trained, for one layer.
        device: Where SAEs are trained.
        is_quiet: Whether there are no progress bars.

    Raises:
        OptionError: There are too few problems, the SAE does not fit the model, or the engine has no hidden states.
        ModelError: The published SAE cannot be read.
    """
    probe = probe or SAEProbe()
    if len(tasks) < 4:
        refuse("tasks", len(tasks), "four problems or more: two to train on and two to report on")
    given = load_sae(published, device=device) if published else None
    num_layers = chat.loaded_engine().num_layers
    layers = select_layers("late", num_layers)[-1:]
    if probe.layers is not None:
        layers = select_layers(probe.layers, num_layers)
    if given and len(layers) > 1:
        refuse("layers", list(layers), "one layer, that of the SAE")
    width = _width(chat, tasks[0], layers)
    if given and given.config.d_in != width:
        refuse("d_in", given.config.d_in, f"an SAE of states of this model, which have {width} entries")
    configs = {layer: _config(chat, width, layer, tasks, probe) for layer in layers}
    is_held = torch.zeros(len(tasks), dtype=torch.bool)
    num_held = min(len(tasks) - 2, max(2, round(probe.held_out * len(tasks))))
    is_held[torch.randperm(len(tasks), generator=torch.Generator().manual_seed(0))[:num_held]] = True
    reasoned, direct = _record(chat, tasks, probe, layers, is_quiet=is_quiet)
    matched = same_tokens(reasoned, direct)
    rows = []
    for layer in layers:
        states = torch.cat([part.of(layer, ~is_held)[0] for part in (reasoned, direct)])
        sae = given
        if sae is None:
            of_layer = folder / f"layer-{layer}"
            sae = train_sae(states, configs[layer], probe.training, device=device, folder=of_layer, is_quiet=is_quiet)
            save_sae(sae, of_layer)
        held, norms, _ = reasoned.of(layer, is_held)
        row = {
            "layer": layer,
            "median_norm": float(norms.median()),
            "architecture": sae.config.architecture,
            "k": sae.config.k,
            "num_features": sae.config.d_sae,
            "training_states": asdict(measure_sae(sae, states)),
            "held_out": asdict(measure_sae(sae, held)),
            "bound": count_violations(sae, held),
        }
        for place, part in (("", reasoned), ("on_the_same_tokens", matched)):
            groups = groups_of(sae, layer, part, direct, ~is_held)
            found = compare(sae, layer, groups, part, direct, is_held)
            row |= {place: found} if place else found
        rows.append(row)
    curves = norm_curves(reasoned, direct, len(tasks))
    report = {
        "num_layers": num_layers,
        "num_problems": len(tasks),
        "num_held_out": num_held,
        "answers": _answers(probe),
        "training": None if given else asdict(probe.training),
        "num_tokens": {"reasoned": len(reasoned.ids), "direct": len(direct.ids)},
        "norms": curves,
        "norms_on_the_same_tokens": norm_curves(matched, direct, len(tasks)),
        "layers": rows,
        "over_layers": over_layers(curves, rows),
    }
    for layer in layers:  # only now: a run that is stopped before its report trains no layer again
        (folder / f"layer-{layer}" / CHECKPOINT_FILE).unlink(missing_ok=True)
    return report


def _width(chat: ChatLangNorm, task: Problem, layers: Sequence[int]) -> int:
    """Return the width of the model's states, by an answer of two tokens."""
    asked = [task.asked({"layers": list(layers), "max_tokens": 2, "seed": 0})]
    states = record_states(chat, asked, layers)[0].states
    assert states is not None
    return states.size(-1)


def _answers(probe: SAEProbe) -> dict[str, Any]:
    """Return how each problem is answered."""
    return {"seeds": list(probe.seeds), "temperature": probe.temperature, "max_tokens": probe.max_tokens}


def _config(chat: ChatLangNorm, width: int, layer: int, tasks: Sequence[Problem], probe: SAEProbe) -> SAEConfig:
    metadata = {"model_name": chat.model, "hook_name": f"blocks.{layer}.hook_resid_post", "hook_layer": layer}
    # Also what the states are of, so that no checkpoint of other answers is taken for one of these.
    asked_of = [asdict(chat.loaded_engine().identity), chat.deciding_settings()]
    metadata |= {"num_problems": len(tasks), **_answers(probe)}
    metadata["states_of"] = digest_of([*asked_of, *(task.decisive for task in tasks)])
    k = probe.k if probe.architecture == "topk" else None
    return SAEConfig(width, probe.expansion * width, probe.architecture, k, metadata=metadata)


def _record(
    chat: ChatLangNorm, tasks: Sequence[Problem], probe: SAEProbe, layers: Sequence[int], *, is_quiet: bool
) -> tuple[AnswerStates, AnswerStates]:
    """Return the states of reasoned and of direct answers."""
    from tqdm import tqdm

    common = {"layers": list(layers), "temperature": probe.temperature, "max_tokens": probe.max_tokens}
    problems = [number for _ in probe.seeds for number in range(len(tasks))]
    with tqdm(total=2 * len(problems), unit="answer", disable=is_quiet) as bar:

        def record(*, is_direct: bool) -> AnswerStates:
            asked = []
            for place, number in enumerate(problems):
                seed = seed_of(probe.seeds[place // len(tasks)], number)
                asked.append(tasks[number].asked({**common, "seed": seed}, is_direct=is_direct))
            return _states(record_states(chat, asked, layers, bar.update), layers, problems)

        return record(is_direct=False), record(is_direct=True)


def _states(completions: Sequence[Completion], layers: Sequence[int], problems: Sequence[int]) -> AnswerStates:
    num_run = [len(each.norms) for each in completions]
    if not sum(num_run):
        msg = "No answer has a token that was run, so there are no states. Give other problems, or more `max_tokens`."
        raise OptionError(msg)
    states = torch.cat([each.states for each in completions if each.states is not None])  # (N, L, d)
    return AnswerStates(
        {layer: states[:, place] for place, layer in enumerate(layers)},
        layers,
        torch.tensor([row for each in completions for row in each.norms], dtype=torch.float32),
        torch.tensor([i for each, n in zip(completions, num_run, strict=True) for i in each.token_ids[:n]]),
        torch.arange(len(completions)).repeat_interleave(torch.tensor(num_run)),
        problems,
    )
