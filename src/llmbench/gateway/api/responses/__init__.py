"""OpenAI's Responses, as chats: what a chat's passages, control tokens, defaults and charges are, those of a response are too.

asking   the body of a response -> the request of a chat
object   a chat's answer -> a response
events   a chat's stream -> the events of a response
"""
