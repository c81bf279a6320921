"""The files that a model is read from: on this machine, or fetched from the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langnorm.engines.transformers.gguf import cache_folder
from langnorm.engines.transformers.load_errors import check_folder_of_model, explain, has_credentials
from langnorm.engines.transformers.source import Source, find_source
from langnorm.errors import LangNormError
from langnorm.norms.profile import FILE_NAME, NormProfile


def checked_source(model: str, model_kwargs: Mapping[str, Any]) -> Source:
    """Return what a user means by a model and its arguments, where its files can be those of one.

    Raises:
        OptionError: An argument has a value that is not allowed.
        ModelError: There is no such model, or its folder lacks what a model is loaded from.
    """
    source = find_source(model, model_kwargs)
    with explained(source):
        check_folder_of_model(source)
    return source


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what transformers raises into an error that says why the model does not load."""
    try:
        yield
    except LangNormError:
        raise
    except Exception as error:
        reason = explain(error, source)
        if has_credentials(error, source):  # tracebacks print causes
            raise reason from None
        raise reason from error


def gguf_path(source: Source) -> Path:
    """Return the GGUF file of a source that has one, downloaded if it is not here yet."""
    file = str(source.gguf_file)
    return source.folder / file if source.is_local else file_on_hub(source, file)


def kept_in(source: Source) -> Path | None:
    """Return where what is unpacked of a GGUF file is kept, or None for nowhere."""
    if isinstance(source.gguf_cache, bool):
        return cache_folder() if source.gguf_cache else None
    return Path(source.gguf_cache)


def file_on_hub(source: Source, file: str, **given: Any) -> Path:
    """Return a file of a repository on the hub, downloaded if it is not here yet."""
    from transformers.utils.hub import cached_file

    return Path(str(cached_file(source.location, file, **{**source.file_arguments, **given})))


def load_profile(folder: Path | None) -> NormProfile | None:
    """Return the profile in the folder of the weights, if there is one."""
    path = folder / FILE_NAME if folder else None
    return NormProfile.load(path) if path and path.is_file() else None
