"""The engine over llama.cpp, by llama-cpp-python: GGUF files on a CPU or a small GPU, with norms."""
