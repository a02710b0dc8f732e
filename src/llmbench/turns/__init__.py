"""Conversations -> the text that a chat template makes of them, and what of it the assistant is to learn.

A template is a program of whoever made the model, so this runs in a process of its own (`python -m llmbench.turns`), which
imports nothing of llmbench's but this room and `confined`, and starts in a tenth of a second.
"""
