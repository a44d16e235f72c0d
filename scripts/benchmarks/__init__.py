"""What scripts/bench measures: ratios to a peer that takes turns with us in the same run, on this machine alone.

Promises that nothing leaves loopback, that every process it starts has ended and every file it wrote is gone when it
returns, and that a ratio above 1 always means that ours is the better one. Absolute numbers depend on the machine and
on who else uses it; ratios hardly do.
"""
