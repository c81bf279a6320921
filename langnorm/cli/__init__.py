"""The command line: `langnorm ask "Calculate 47 + 385."`.

A new command is a module with a function of its own, registered in `main.py`. It raises `LangNormError` for what the
user can mend; what becomes of that, of Ctrl-C and of a closed pipe is the same for all commands (`process.py`).
Whatever takes long to import (torch, transformers, langchain, rich) is imported when a command runs, so that help is
quick.
"""

from langnorm.cli.main import app

__all__ = ["app"]
