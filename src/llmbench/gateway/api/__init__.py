"""The paths besides chats: tokens, vectors, reranking, searching, and OpenAI's Responses.

Each module reads a request (`parse`) and answers it (`answer`); `llmbench.gateway.app` has the routes. What is not answered by
the engine is computed in the threads of a pipeline (`Grounding.use`).
"""
