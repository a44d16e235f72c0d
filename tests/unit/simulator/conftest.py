"""scripts/ on the path: the simulator lives there, outside of the installed packages."""

import sys
from pathlib import Path

SCRIPTS = str(Path(__file__).parents[3] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)
