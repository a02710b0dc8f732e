"""GGUF for llama.cpp and what is built on it: a whole model, or an adapter alone, read back by llama.cpp itself."""
