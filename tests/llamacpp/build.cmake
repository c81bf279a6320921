# llama-cpp-python has llama.cpp's library for programs compiled too, which is much of the work, and does not use it. It forces
# the cache to say so; a variable goes before the cache.
set(LLAMA_BUILD_COMMON OFF)
