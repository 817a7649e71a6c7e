# Included by CMake right after llama.cpp's project(): a normal variable shadows the cache entry that llama-cpp-python
# forces on. The bindings never load the common library, and it is more than half of the compilation.
set(LLAMA_BUILD_COMMON OFF)
# Without ggml's AMX code: its matrix product crashes on batches of two rows and more (ggml-org/llama.cpp#20824). A build
# that has it must leave all quantised weights as they are; one without rearranges them for AVX2 and AVX-512, which is
# a quarter faster.
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-U__AMX_INT8__>)
# ggml's own threads instead of OpenMP's: those meet after every operation by way of the kernel, which takes longer than
# the operations of a small model, and many times that where other programs want the processors.
set(GGML_OPENMP OFF)
