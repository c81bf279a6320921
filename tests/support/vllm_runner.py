"""Lets vLLM's V2 model runner run on a CPU: its Triton kernels are interpreted, which is slow and exact."""

from __future__ import annotations

from types import SimpleNamespace


class _Driver:
    """A driver of Triton, of which nothing but its name is asked."""

    @staticmethod
    def is_active() -> bool:
        return True

    def get_current_target(self) -> SimpleNamespace:
        return SimpleNamespace(backend="cpu", arch="", warp_size=1)


class _Compiler:
    """A compiler of Triton, of which inductor asks what tells it from others."""

    def __init__(self, _target: SimpleNamespace) -> None:
        pass

    @staticmethod
    def supports_target(_target: SimpleNamespace) -> bool:
        return True

    def hash(self) -> str:
        return "interpreted"


def let_triton_interpret() -> None:
    """Let vLLM find a backend of Triton for the CPU; `TRITON_INTERPRET=1` must be in the environment from the start."""
    from triton.backends import backends

    backends["cpu"] = SimpleNamespace(driver=_Driver, compiler=_Compiler)
