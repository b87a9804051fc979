"""A throw-away authority for `--tls`: made at the start, good for this process's host names, trusted by nobody else."""

import datetime
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import CannotRun
from appliance.sim.faults import Faults, TlsExpired, TlsSelfSigned, TlsWrongName

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """The server's context, and the file that a client must trust."""

    context: ssl.SSLContext
    ca_file: Path


def throw_away(directory: str, faults: Faults) -> Authority:
    """An authority whose public part lies in `directory`; no key stays on the disk. Raises CannotRun."""
    try:
        import trustme
    except ModuleNotFoundError:
        raise CannotRun(
            "--tls makes its certificate with the package `trustme`, which is not installed: pip install 'mdc-appliance[sim]'"
        ) from None
    authority = trustme.CA()
    names = ["elsewhere.invalid"] if faults.one(TlsWrongName) else ["localhost", "127.0.0.1", "::1"]
    now = datetime.datetime.now(datetime.UTC)
    expired = faults.one(TlsExpired) is not None
    certificate = authority.issue_cert(*names, not_before=now - 2 * DAY, not_after=now - DAY if expired else now + 30 * DAY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if faults.one(TlsSelfSigned):
        with tempfile.NamedTemporaryFile(dir=directory) as own:
            own.write(authority.private_key_pem.bytes() + authority.cert_pem.bytes())
            own.flush()
            context.load_cert_chain(own.name)
    else:
        certificate.configure_cert(context)
    ca_file = Path(directory) / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return Authority(context, ca_file)
