"""The TLS contexts of the two servers, and server certificates that are made anew while the process runs.

The gateway asks for a client certificate and does not insist: a device that joins has none, and one that lay in a drawer for months comes
without its expired one to renew it. Each path says whether it needs one. Issuing certificates are trust anchors (`PARTIAL_CHAIN`), so that
a device need send its leaf only and one signature is checked instead of two. There are no session tickets: they would cost every handshake
two messages, and a resumed session would skip nothing that a fleet's reconnect waits for.
"""

import os
import ssl
from collections.abc import Sequence

from edgewise.control.data import OnlineKeys
from edgewise.trust.authority import Issuer


def gateway_context(keys: OnlineKeys) -> ssl.SSLContext:
    """Return the gateway's context: TLS 1.3, client certificates of this fleet only, optional. Load a server certificate next."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata="\n".join((*keys.issuing_certs_pem, keys.root_cert_pem)))
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


def api_context() -> ssl.SSLContext:
    """Return the operator API's context: TLS 1.2 or newer, no client certificates. Load a server certificate next."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def load_new_certificate(contexts: Sequence[ssl.SSLContext], issuer: Issuer, hosts: Sequence[str], now: float, lifetime: float) -> None:
    """Give the contexts a new key and certificate; connections that are open keep the old one. The key is on no disk."""
    key, chain = issuer.issue_server(hosts, now, lifetime)
    handle = os.memfd_create("edgewise-server-certificate", os.MFD_CLOEXEC)
    try:
        with os.fdopen(handle, "wb", closefd=False) as file:
            file.write(f"{key}\n{chain}".encode())
        for context in contexts:
            context.load_cert_chain(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
