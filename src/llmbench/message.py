"""A message of a conversation, as OpenAI's API has it: what everything that asks a model hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired, TypedDict

__all__ = ["Content", "ContentPart", "ImagePart", "ImageUrl", "Message", "TextPart", "images_of", "text_of", "with_text"]


class TextPart(TypedDict):
    """A text among the parts of a message."""

    type: Literal["text"]
    text: str


class ImageUrl(TypedDict):
    """Where an image is: `data:image/png;base64,...`, or an address that the server fetches, if it does."""

    url: str
    detail: NotRequired[str]


class ImagePart(TypedDict):
    """An image among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


ContentPart = TextPart | ImagePart
Content = str | list[ContentPart]
"""What a message says: a text, or texts and images in their order."""


class Message(TypedDict):
    """`{"role": "user", "content": "..."}`; the other fields are those of answers with tool calls, and of thoughts."""

    role: str
    content: Content
    name: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    reasoning: NotRequired[str]


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, or the parts of it that are text, a line apart. Empty where it is images alone."""
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content if part["type"] == "text")


def images_of(message: Message) -> list[ImagePart]:
    """The images of a message, in their order."""
    content = message["content"]
    return [] if isinstance(content, str) else [part for part in content if part["type"] == "image_url"]


def with_text(message: Message, text: str) -> Message:
    """A copy of the message with another text, and behind it the images that it has."""
    images, copy = images_of(message), message.copy()
    copy["content"] = [TextPart(type="text", text=text), *images] if images else text
    return copy
