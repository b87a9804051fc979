"""What can go wrong, in the operator's words; each branch has its exit status.

    MdcError
    ├── CheckFailed          1  something was examined and is not as it must be
    ├── ConfigError          2  usage, configuration: no restart mends it
    │   └── ExchangeRefused  2  refused for good: 451, credentials
    └── CannotRun            3  could not run: this machine, these files, just now
        ├── RingBusy         3  another writer owns the directory
        └── NotARing         3  no ring or journal, or one that this version cannot read

A message says what was found, where, what was expected and what to do. `cli` alone catches.
"""

from typing import ClassVar


class MdcError(Exception):
    """The root of all errors that are meant for the operator: its text is printed without a traceback."""

    exit_code: ClassVar[int] = 3


class CheckFailed(MdcError):
    """Something was examined and is not as it must be."""

    exit_code = 1


class ConfigError(MdcError):
    """A mistake in the command line or the configuration. The same start will fail in the same way."""

    exit_code = 2


class ExchangeRefused(ConfigError):
    """The exchange will not serve this configuration, now or later: region (451), credentials."""


class CannotRun(MdcError):
    """The configuration is fine, and still this cannot run here and now: permissions, space, a lock."""

    exit_code = 3


class RingBusy(CannotRun):
    """Another process writes into the directory."""


class NotARing(CannotRun):
    """No ring and no journal at this path, or one of a format that this version does not read."""
