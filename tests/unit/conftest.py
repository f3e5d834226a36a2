"""The tools are tested here too; they import one another by their bare names."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "tools"))
