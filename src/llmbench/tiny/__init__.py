"""The bundled base model: its language, its lessons, its tokenizer."""
