"""The engine over `model.generate` of transformers."""
