"""A seeded generator of the text that the embedded model is trained on: chats, tool calls, code, stories.

Everything is drawn from our own closed vocabularies with `random.Random(seed)`. Knows nothing of tokens or templates.
"""

from .documents import Chat, Document, Infill, Kind, Text, ToolChat, Turn, is_held_out
from .drawing import KINDS, held_out_documents, training_documents
from .programs import code_checks

__all__ = [
    "KINDS",
    "Chat",
    "Document",
    "Infill",
    "Kind",
    "Text",
    "ToolChat",
    "Turn",
    "code_checks",
    "held_out_documents",
    "is_held_out",
    "training_documents",
]
