"""The bundled base model: its language, its lessons, its tokenizer."""

__all__ = ["lessons"]
