"""The signal: where the residual stream is read, and what its norms are compared with."""
