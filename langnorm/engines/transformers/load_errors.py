"""Why a model does not load, and what mends it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from langnorm.credentials import mask_credentials
from langnorm.engines.transformers.source import SUFFIX, Source
from langnorm.errors import MissingDependencyError, ModelError, OptionError, closest

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "vocab.json",
                    "vocab.txt", "tekken.json")  # fmt: skip
_WEIGHTS = ("*.safetensors", "*.bin", "*.safetensors.index.json")
_REMOTE_CODE = (
    'It comes with code of its own, which is run only if you trust it: `model_kwargs={"trust_remote_code": True}`.'
)


def check_folder_of_model(source: Source) -> None:
    """Do nothing if a folder of this machine has what a model is loaded from; any other source passes.

    Raises:
        ModelError: It has not; the message says what is missing.
    """
    if not source.is_local:
        return
    folder = source.folder
    if not folder.is_dir():
        msg = f"The model `{source.name}` has no subfolder `{source.arguments['subfolder']}`."
        raise ModelError(msg)
    if source.gguf_file is not None:
        if not (folder / source.gguf_file).is_file():
            msg = f"The folder `{folder}` has no file `{source.gguf_file}`.{_gguf_hint(folder)}"
            raise ModelError(msg)
        return
    names = sorted(path.name for path in folder.iterdir())
    if problem := _problem_of_folder(folder, names) or _problem_of_config(source):
        msg = f"The model `{source.name}` could not be loaded: {problem}"
        raise ModelError(msg)


def _problem_of_folder(folder: Path, names: list[str]) -> str | None:
    """Return what a folder lacks, in words, and None for nothing."""
    if not names:
        return "its folder is empty. Give the folder with its config, its weights and its tokenizer."
    if "config.json" not in names:
        if "adapter_config.json" in names:
            return "its folder holds an adapter. Merge it into its base model first (`merge_and_unload` of peft)."
        inner = sorted(path.parent for path in folder.glob("*/config.json")) or sorted(
            path.parent for path in folder.glob("snapshots/*/config.json")
        )
        hint = f" Give `{inner[0]}`." if inner else " Give the folder that `save_pretrained` wrote."
        return f"its folder has no config.json.{_gguf_hint(folder) or hint}"
    if not any(name in names for name in _TOKENIZER_FILES):
        return (
            "its folder has no tokenizer.json. Copy the tokenizer's files there from the model that it was made from."
        )
    if not any(any(folder.glob(pattern)) for pattern in _WEIGHTS):
        return f"its folder has no weights (model.safetensors).{_gguf_hint(folder)}"
    return None


def _problem_of_config(source: Source) -> str | None:
    from transformers import __version__
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if source.config is None:
        return "its config.json is no JSON object. Copy the file again from where it came from."
    kind = source.config.get("model_type")
    if source.config.get("auto_map") and not source.arguments.get("trust_remote_code") and kind not in CONFIG_MAPPING:
        return _REMOTE_CODE
    if source.config.get("auto_map") or kind in CONFIG_MAPPING:
        return None
    if kind is None:
        return "its config.json has no `model_type`. Copy the file again from where it came from."
    hint = closest(str(kind), CONFIG_MAPPING)
    return (
        f"its config.json says `model_type={kind!r}`, which transformers {__version__} does not know. A newer one may: "
        f"`pip install --upgrade transformers`.{hint}"
    )


def _gguf_hint(folder: Path) -> str:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX)
    return f" It has GGUF files: give one, such as `{files[0]}`." if files else ""


def check_device(device_map: Any) -> None:
    """Do nothing if `device_map` names a device of this machine, or is something else than one device.

    Raises:
        OptionError: It is no device, or one that this machine has not.
    """
    if not isinstance(device_map, str) or device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return
    import torch

    here = ["cpu"]
    if torch.cuda.is_available():
        here += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here += ["mps"]
    try:
        device = torch.device(device_map)
    except RuntimeError:
        device = None
    is_known = device is not None and device.type in ("cpu", "cuda", "mps")
    if device is None or (is_known and str(device) not in here and device_map not in here):
        allowed = ", ".join(f'"{name}"' for name in here)
        msg = (
            f"`device_map={device_map!r}` of `model_kwargs` is not allowed: this machine has {allowed}. Use one of "
            f'these, or "auto".'
        )
        raise OptionError(msg)


def explain(error: Exception, source: Source) -> ModelError | MissingDependencyError:
    """Return the error that says why a model does not load, and what mends it.

    Args:
        error: What transformers raised.
        source: What was to be loaded.
    """
    causes = list(_causes(error))
    reason = next((line for line in str(error).strip().splitlines() if line.strip()), "")
    kind = MissingDependencyError if isinstance(error, ImportError) else ModelError
    said = f"{type(error).__name__}: {reason.strip()}" if reason else type(error).__name__
    text = f"The model `{source.name}` could not be loaded ({said}). {_mend(causes, source)}"
    return kind(mask_credentials(text, source.arguments))


def has_credentials(error: BaseException, source: Source) -> bool:
    """Return whether an error or what caused it shows a secret among the arguments."""
    texts = [str(cause) for cause in _causes(error)]
    return any(mask_credentials(text, source.arguments) != text for text in texts)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it came from."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__


def _mend(causes: list[BaseException], source: Source) -> str:
    """Return what the user can do about it, in a sentence or two."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from safetensors import SafetensorError

    name = source.location

    def came_from(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    text = " ".join(str(cause) for cause in causes)
    if isinstance(causes[0], ImportError):
        return "Install the package that it names."
    if came_from(SafetensorError) or "MetadataIncompleteBuffer" in text:
        return "A file of its weights is damaged or cut short: download it again."
    if came_from(MemoryError) or "not enough memory" in text or "out of memory" in text:
        return 'It does not fit into memory: take a narrower type, `model_kwargs={"dtype": "bfloat16"}`.'
    if "trust_remote_code" in text:
        return _REMOTE_CODE
    if not source.is_local:
        if came_from(GatedRepoError):
            return (
                f"Its owner grants access on the page of `{name}`; then log in with `hf auth login`, or give "
                '`model_kwargs={"token": ...}`.'
            )
        if came_from(RevisionNotFoundError):
            return f'`{name}` has no such revision: see `model_kwargs={{"revision": ...}}`.'
        if came_from(RepositoryNotFoundError):
            return (
                f"`{name}` is not a folder here, and there is no such model on the hub, or it is private: check the "
                'name, and log in with `hf auth login` or give `model_kwargs={"token": ...}`.'
            )
        if came_from(EntryNotFoundError) and not came_from(LocalEntryNotFoundError):
            return f"`{name}` is on the hub, and has no such file."
        if came_from(OfflineModeIsEnabled, LocalEntryNotFoundError, HfHubHTTPError, ConnectionError) or any(
            word in text for word in ("offline", "couldn't connect", "Connection", "cached")
        ):
            return (
                f"`{name}` is not a folder here, so it was looked for on the hub, which cannot be reached. Connect, "
                "unset HF_HUB_OFFLINE if it is set, or give a folder with the weights."
            )
    if came_from(TypeError) and "unexpected keyword argument" in text:
        return "`model_kwargs` has an argument that neither langnorm nor `from_pretrained` of transformers knows."
    if "Unrecognized configuration class" in text:
        return "It is no causal language model: give one that generates text."
    if source.gguf_file:
        return "The GGUF file may be damaged, or its model of a kind that transformers does not read from GGUF."
    return "Check its files and `model_kwargs`."


def read_template(template: Any) -> Any:
    """Return a chat template; one given as a path is read from its file.

    Raises:
        OptionError: The file cannot be read.
    """
    if not isinstance(template, Path):
        return template
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        msg = f"The chat template `{template}` cannot be read ({reason}). Give a text file with a Jinja template."
        raise OptionError(msg) from error
