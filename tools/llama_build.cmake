# Included by CMake right after llama.cpp's project(): a normal variable shadows the cache entry that llama-cpp-python
# forces on. The bindings never load the common library, and it is more than half of the compilation.
set(LLAMA_BUILD_COMMON OFF)
