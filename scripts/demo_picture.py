"""The picture of `make demo` in the README, docs/demo.svg: one real run in a terminal, one look at it, how it ends.

After `make install`: .venv/bin/python -m scripts.demo_picture. It also prints what the README quotes.
"""

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

PICTURE = Path("docs/demo.svg")
COLUMNS, ROWS = 125, 50
CURSOR = re.compile(r"\x1b\[\?25[hl]")
# How rich goes back over what it has shown, to show it anew.
OVER = re.compile(r"\r(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)+")


def in_terminal(command: list[str]) -> str:
    """What a command writes to a terminal. Raises SystemExit when it fails."""
    child, terminal = pty.fork()
    if child == 0:
        os.environ["TERM"] = "xterm-256color"
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", ROWS, COLUMNS, 0, 0))
    written = b""
    try:
        while some := os.read(terminal, 1 << 16):
            written += some
    except OSError:
        pass  # the terminal's end once the last process on it has ended
    _, status = os.waitpid(child, 0)
    text = written.decode().replace("\r\n", "\n")
    if status:
        raise SystemExit(f"{text}\n{command}: exit status {os.waitstatus_to_exitcode(status)}")
    return text


def main() -> None:
    first, *frames, last = OVER.split(CURSOR.sub("", in_terminal([sys.executable, "-m", "appliance.tools.demo"])))
    said, _, _ = first.partition("\n")
    # Not every font has the wide names of some symbols: of the second half, the frame with the fewest.
    frame = min(frames[len(frames) // 2 :], key=lambda frame: cell_len(frame) - len(frame))
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    shown = ["$ make demo", said, frame.rstrip("\n"), "", last.rstrip("\n")]
    console.print(Text.from_ansi("\n".join(shown)))
    console.save_svg(str(PICTURE), title="")
    print("\n".join(shown))


if __name__ == "__main__":
    main()
