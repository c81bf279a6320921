"""The hash of a checkpoint says which weights it has, and nothing of how they are stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from langnorm.engines.checkpoint import hash_checkpoint
from langnorm.norms.profile import FILE_NAME
from langnorm.norms.token_file import path_beside, to_bytes
from langnorm.norms.token_sums import TokenSums

if TYPE_CHECKING:
    from pathlib import Path


def weights(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns two weights that bfloat16 can hold, with changes."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(30, 7, generator=generator).bfloat16().float() for name in ("a.weight", "b.weight")}
    return made | changes


def hash_of(folder: Path, *files: dict[str, torch.Tensor]) -> str | None:
    """Returns the hash of a folder with these files."""
    folder.mkdir()
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"model-{number}.safetensors", metadata={"format": "pt"})
    return hash_checkpoint(folder)


def test_files_and_types_do_not_matter(tmp_path) -> None:
    """One file or two, float32 or bfloat16: the values are the same."""
    whole = hash_of(tmp_path / "whole", weights())
    split = hash_of(tmp_path / "split", *({name: value} for name, value in reversed(weights().items())))
    narrow = hash_of(tmp_path / "narrow", {name: value.bfloat16() for name, value in weights().items()})
    assert whole == split == narrow
    assert whole is not None
    assert len(whole) == 16


def test_names_shapes_and_values_matter(tmp_path) -> None:
    """Other weights have another hash."""
    plain = weights()
    changed = plain["a.weight"].clone()
    changed[0, 0] += 1
    hashes = {
        hash_of(tmp_path / "plain", plain),
        hash_of(tmp_path / "changed", weights(**{"a.weight": changed})),
        hash_of(tmp_path / "reshaped", weights(**{"a.weight": plain["a.weight"].T.contiguous()})),
        hash_of(tmp_path / "renamed", {name.upper(): value for name, value in plain.items()}),
        hash_of(tmp_path / "packed", weights(**{"a.weight": torch.ones(30, 7, dtype=torch.int8)})),
    }
    assert len(hashes) == 5


def test_a_folder_without_weights_has_none(tmp_path) -> None:
    """Nothing is guessed."""
    assert hash_checkpoint(tmp_path) is None


def test_other_files_beside_the_weights_do_not_count(tmp_path) -> None:
    """Neither the same weights in another form, as some models come with, nor an adapter."""
    hashes = set()
    for number, others in enumerate(([], ["consolidated"], ["adapter_model", "consolidated"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(weights(), folder / "model.safetensors")
        for name in others:
            save_file({f"{name}.weight": torch.ones(3)}, folder / f"{name}.safetensors")
        hashes.add(hash_checkpoint(folder))
    split = tmp_path / "split"
    split.mkdir()
    names = {name: f"model-{number}.safetensors" for number, name in enumerate(weights())}
    for name, file in names.items():
        save_file({name: weights()[name]}, split / file)
    (split / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    save_file({"other.weight": torch.ones(3)}, split / "consolidated.safetensors")
    assert hashes == {hash_checkpoint(split)}


def test_the_table_of_a_profile_is_no_weight(tmp_path) -> None:
    """It may lie in the folder of a model whose weights have any name, or none."""
    sums = TokenSums((1,))
    sums.update([5, 5, 6], [[1.0], [2.0], [3.0]])
    table = sums.table()
    assert table is not None
    before = hash_of(tmp_path / "a", weights())
    path_beside(tmp_path / "a" / FILE_NAME).write_bytes(to_bytes(table))
    assert hash_checkpoint(tmp_path / "a") == before
    (tmp_path / "b").mkdir()
    path_beside(tmp_path / "b" / FILE_NAME).write_bytes(to_bytes(table))
    assert hash_checkpoint(tmp_path / "b") is None
