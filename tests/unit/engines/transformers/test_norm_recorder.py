"""The recorder on its own: many passes, layers that are written over, and norms that others have computed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from langnorm.engines.transformers.norm_recorder import NormRecorder


class Overwriting(nn.Module):
    """A layer that adds to its input in place, so what the layer before it returned is gone."""

    def forward(self, states: Tensor) -> Tensor:
        """Return the same tensor, changed."""
        return states.add_(1.0)


def run(recorder: NormRecorder, layers: nn.ModuleList, passes: list[Tensor], num_prompt_passes: int = 1) -> None:
    """Run the layers one after the other on each pass."""
    with recorder.attached(layers), torch.inference_mode():
        for number, states in enumerate(passes):
            for layer in layers:
                states = layer(states)
            if number + 1 == num_prompt_passes:
                recorder.end_prefill()


def passes_of(num_decode: int, hidden: int = 6) -> list[Tensor]:
    """Return a prompt of five positions and then single ones, for a batch of three."""
    generator = torch.Generator().manual_seed(num_decode)
    return [torch.randn(3, 5 if i == 0 else 1, hidden, generator=generator) for i in range(num_decode + 1)]


@pytest.mark.parametrize("num_decode", [0, 1, 6, 7, 8, 9, 15, 16, 40])
def test_rows_are_those_of_each_pass(num_decode) -> None:
    """However many there are, also where each layer writes over what the one before returned."""
    recorder, passes = NormRecorder((0, 2)), passes_of(num_decode)
    expected = [[(states[:, -1] + n).double().pow(2).sum(-1).sqrt() for n in (1, 3)] for states in passes[1:]]
    run(recorder, nn.ModuleList([Overwriting() for _ in range(3)]), [states.clone() for states in passes])
    rows = recorder.rows()
    assert rows.shape == (num_decode, 3, 2)
    assert rows.dtype == torch.float32
    for row, norms in zip(rows, expected, strict=True):
        torch.testing.assert_close(row.double(), torch.stack(norms, dim=-1), rtol=1e-6, atol=0)
    assert recorder.num_passes == num_decode + 1


def test_rows_can_be_asked_for_at_any_time() -> None:
    """What was computed early does not change what comes later."""
    asked, whole = NormRecorder((0,)), NormRecorder((0,))
    layers, passes = nn.ModuleList([nn.Identity()]), passes_of(20)
    run(whole, layers, passes)
    seen = []
    with asked.attached(layers):
        for number, states in enumerate(passes):
            layers[0](states)
            if number % 3 == 1:
                seen.append(asked.rows())
    for rows in seen:
        torch.testing.assert_close(rows, whole.rows()[: len(rows)])
    torch.testing.assert_close(asked.rows(), whole.rows())


def test_norms_that_others_know_take_their_place_in_the_order() -> None:
    """Passes with and without them may alternate."""
    known: dict[int, Tensor] = {}
    recorder, layers, passes = NormRecorder((0,), known), nn.ModuleList([nn.Identity()]), passes_of(12)
    with recorder.attached(layers):
        for number, states in enumerate(passes):
            if number % 5 == 2:
                known[0] = torch.full((3, 1), 1000.0 + number)
            layers[0](states)
    rows = recorder.rows()[..., 0]
    for number, states in enumerate(passes[1:], start=1):
        expected = torch.full((3,), 1000.0 + number) if number % 5 == 2 else states[:, -1].norm(dim=-1)
        torch.testing.assert_close(rows[number - 1], expected)


def test_a_prompt_in_several_passes_has_no_rows() -> None:
    """Only what was generated counts."""
    recorder, passes = NormRecorder((0,)), passes_of(11)
    run(recorder, nn.ModuleList([nn.Identity()]), passes, num_prompt_passes=9)
    torch.testing.assert_close(recorder.rows()[..., 0], torch.stack([p[:, -1].norm(dim=-1) for p in passes[9:]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_norms_are_float32_whatever_the_model(dtype) -> None:
    """Squares of large states do not overflow."""
    recorder = NormRecorder((0,))
    passes = [torch.full((1, 1, 4), 30_000.0).to(dtype) for _ in range(3)]
    run(recorder, nn.ModuleList([nn.Identity()]), passes)
    torch.testing.assert_close(recorder.rows().flatten(), 2 * passes[0][0, 0, :1].float().expand(2))
