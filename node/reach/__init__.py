"""Keeps this node reachable: dialled directly where others say that they can, else through a relay, and says which.

Promises that what it states was seen by others (nobody is told to dial an address that nobody reached, once somebody
tried), that a lost relay is replaced at once, and that a place at a relay is given up when nobody needs it any more.
Knows facts, the dialer and one port; does NOT know what is served on it.
"""

from node.reach.keeper import ReachKeeper

__all__ = ["ReachKeeper"]
