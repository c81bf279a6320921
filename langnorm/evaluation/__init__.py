"""How well a score or a model does: statistics of what was measured."""
