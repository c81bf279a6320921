"""A chat model that remembers on which thread it is asked what it is able to do."""

from __future__ import annotations

import threading

from pydantic import PrivateAttr

from langnorm import ChatLangNorm


class WatchedChat(ChatLangNorm):
    """Its files may have to be read for that, or a server asked: nothing for an event loop."""

    _on_main_thread: list[bool] = PrivateAttr(default_factory=list)

    def is_able_to(self, ability: str) -> bool:
        """Return what the model says."""
        self._on_main_thread.append(threading.current_thread() is threading.main_thread())
        return super().is_able_to(ability)

    def check_asked_elsewhere(self) -> None:
        """Fail unless it was asked, and by no call of the main thread."""
        assert self._on_main_thread
        assert not any(self._on_main_thread)
