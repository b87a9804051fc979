"""What `mdc verify` says of a directory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def verdict(directory: Path) -> tuple[int, dict[str, Any]]:
    """Exit status and, of the one chunk there is, `--json`."""
    done = subprocess.run(
        [sys.executable, "-c", "from appliance.cli import main; main()", "verify", "--rings", str(directory), "--json"],
        stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)
    return done.returncode, found
