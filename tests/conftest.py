"""What holds for every test."""

import signal

from tests.fuse_disk import fuse_disk
from tests.mounts import _namespace, mounts

__all__ = ["_namespace", "fuse_disk", "mounts"]

# A shell ignores Ctrl-C on behalf of what it runs in the background, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
