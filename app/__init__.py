"""The Gradio program: a client of the library and of any OpenAI-compatible endpoint. `llmbench app` opens it."""
