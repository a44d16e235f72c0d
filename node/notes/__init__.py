"""What a running node writes down for the owner of its machine: a note beside its key, renewed as it lives.

Promises that a note is read whole or not at all, and that one of a process that has ended counts for nothing. By it the
commands of the same machine find nodes, show them and stop them. Knows no torch, no network and no model.
"""

from node.notes.note import Note, note_path, read_notes, write_note

__all__ = ["Note", "note_path", "read_notes", "write_note"]
