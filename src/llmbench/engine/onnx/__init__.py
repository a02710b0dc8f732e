"""A small server for a model in ONNX on a CPU, in the place of vLLM: the same paths, fields and answers, without adapters.

It runs as a process of its own (`python -m llmbench.engine.onnx`). Fields that it cannot honour (response_format, tools) are
refused by name. Answers are computed token by token, several at once on the machine's cores, each with a cache of its own.
"""
