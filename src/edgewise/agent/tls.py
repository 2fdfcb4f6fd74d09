"""TLS towards the control plane: the pinned authority, the device's own certificate, and certificate times that a wrong clock cannot break.

OpenSSL would judge certificates by the device's clock, which may stand at 1970. So its time check is off (`X509_V_FLAG_NO_CHECK_TIME`,
from OpenSSL's x509_vfy.h) and `check_times` does it against the later of the clock and a floor that only trusted sources move.
"""

import os
import ssl
from typing import Final

from edgewise.agent.errors import TlsFailed

_NO_CHECK_TIME: Final = 0x200000
_END: Final = "-----END CERTIFICATE-----"
_CERTIFICATE_CHARACTERS_MAX: Final = 65_536
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def client_context(authority_pem: str, certificate_path: str | None = None, key_path: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts `authority_pem` and nothing else, and shows the certificate at `certificate_path` if there is one.

    Raises `TlsFailed` when one of them cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= _NO_CHECK_TIME
    try:
        context.load_verify_locations(cadata=authority_pem)
        if certificate_path is not None:
            _load_leaf(context, certificate_path, key_path)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise TlsFailed(f"the device's identity cannot be loaded: {error}") from error
    return context


def _load_leaf(context: ssl.SSLContext, certificate_path: str, key_path: str | None) -> None:
    """Show the leaf alone: the control plane knows its own issuing certificates, and would check them anew with every handshake."""
    with open(certificate_path, encoding="ascii") as file:  # noqa: PTH123 - pathlib is too large for the resident agent
        leaf, end, _ = file.read(_CERTIFICATE_CHARACTERS_MAX).partition(_END)
    handle = os.memfd_create("edgewise-leaf", os.MFD_CLOEXEC)
    try:
        os.write(handle, (leaf + end + "\n").encode())
        context.load_cert_chain(f"/proc/self/fd/{handle}", key_path)
    finally:
        os.close(handle)


def blind_context() -> ssl.SSLContext:
    """Return a context that verifies nothing, for looking at the chain that a server serves. Never send anything through it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def distrusting_context() -> ssl.SSLContext:
    """Return a context that trusts nobody: every connection ends in `TlsFailed`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def check_times(connection: ssl.SSLSocket, now: float) -> tuple[float, float]:
    """Return (latest beginning, earliest end) of the verified chain's validity, in seconds since the Unix epoch.

    Raises `TlsFailed` when a certificate had expired at `now`. One that is not valid yet passes: the pinned authority made it, so it is the
    device's clock that is behind.
    """
    spans = [(_seconds(info["notBefore"]), _seconds(info["notAfter"])) for info in _verified_chain(connection)]
    if not spans:
        raise TlsFailed("the server showed no certificate")
    begin, end = max(span[0] for span in spans), min(span[1] for span in spans)
    if end < now:
        raise TlsFailed(f"the control plane's certificate expired {now - end:.0f} s ago, by the device's time")
    return begin, end


def served_chain(connection: ssl.SSLSocket) -> tuple[bytes, ...]:
    """Return the certificates that the server sent, verified or not, in DER."""
    public = getattr(connection, "get_unverified_chain", None)
    if public is not None:  # from Python 3.13 on
        return tuple(public())
    chain = connection._sslobj.get_unverified_chain() or ()  # type: ignore[attr-defined]  # noqa: SLF001  # the only way before 3.13
    return tuple(ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain)


def _verified_chain(connection: ssl.SSLSocket) -> list[dict[str, str]]:
    inner = getattr(connection, "_sslobj", None)
    if inner is not None and hasattr(inner, "get_verified_chain"):
        return [certificate.get_info() for certificate in inner.get_verified_chain() or ()]
    leaf = connection.getpeercert()
    return [leaf] if leaf else []  # type: ignore[list-item]  # a mapping of strings for the two fields that are read


def _seconds(text: str) -> float:
    """Read OpenSSL's `Jun  1 12:00:00 2026 GMT`, without the locale and calendar modules that `ssl.cert_time_to_seconds` loads."""
    month, day, clock, year, _zone = text.split()
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    days = days_since_epoch(int(year), _MONTHS.index(month) + 1, int(day))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds


def days_since_epoch(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the Gregorian calendar."""
    shifted_year = year - (month <= 2)
    era, of_era = divmod(shifted_year, 400)
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
