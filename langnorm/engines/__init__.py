"""Engines run a model: token ids in, token ids, text and norms out. They know nothing of LangChain."""
