"""What langnorm costs and what its scores are worth, measured: `python -m benchmarks.chat` and others."""
