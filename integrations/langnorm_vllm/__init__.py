"""Records and changes hidden states inside vLLM: what langnorm's vLLM engine has run in each of vLLM's workers."""
