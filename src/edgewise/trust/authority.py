"""The certificate authority: a root that is kept apart, an issuing key that works for it, and the certificates of servers and agents.

All keys are EC P-256. Certificates are back-dated by a day, so that a clock that is a little wrong works. A renewal is decided by the key:
the old certificate may have expired long ago, if this authority issued it and the request is signed by the same key. Whether an agent was
revoked is not known here: the controllers decide that.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewise.trust.keys import private_pem, read_private_key
from edgewise.trust.names import NameRefusedError, agent_of_uri, agent_uri, check_agent


class AuthorityError(Exception):
    """A certificate or a signing request is refused. `reason` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RequestRefused(AuthorityError):
    """A signing request is not one that may be signed."""


class CertificateRefused(AuthorityError):
    """A certificate is not one of this authority's, or not of the kind that was asked for."""


class AuthorityLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Lifetimes and back-dating in seconds, sizes in characters of PEM, `chain_certificates_max` in one chain, `hosts_max` in one server
    certificate. An agent renews after `agent_renew_after` of its lifetime; a certificate that expired more than
    `renewal_expired_seconds_max` ago is renewed no more."""

    root_lifetime_seconds: float = 30 * 365 * 86400.0
    issuing_lifetime_seconds: float = 10 * 365 * 86400.0
    agent_lifetime_seconds: float = 90 * 86400.0
    server_lifetime_seconds: float = 365 * 86400.0
    lifetime_seconds_max: float = 5 * 365 * 86400.0
    agent_renew_after: float = 1 / 3
    backdate_seconds: float = 86400.0
    renewal_expired_seconds_max: float = 5 * 365 * 86400.0
    request_characters_max: int = 8_192
    chain_characters_max: int = 32_768
    chain_certificates_max: int = 4
    hosts_max: int = 64


LIMITS: Final = AuthorityLimits()


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """A new authority, all in PEM. `root_key_pem` is kept offline; the rest is what an `Issuer` needs."""

    root_key_pem: str
    root_cert_pem: str
    issuing_key_pem: str
    issuing_cert_pem: str

    def __repr__(self) -> str:
        return "Authority(…)"


def create_authority(name: str, now: float) -> Authority:
    """Make a root and an issuing key for it. `name` is for people and stands in the certificates."""
    root_key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{name[:48]} root")
    root = (
        _builder((subject, subject), (root_key.public_key(), root_key.public_key()), now, LIMITS.root_lifetime_seconds)
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    root_pem = _pem(root)
    root_key_pem = private_pem(root_key)
    issuing_key_pem, issuing_cert_pem = create_issuing(name, root_key_pem, root_pem, now)
    return Authority(root_key_pem=root_key_pem, root_cert_pem=root_pem, issuing_key_pem=issuing_key_pem, issuing_cert_pem=issuing_cert_pem)


def create_issuing(name: str, root_key_pem: str, root_cert_pem: str, now: float) -> tuple[str, str]:
    """Make another issuing key under a root: (key PEM, certificate PEM). Certificates that an earlier one issued stay valid and renew."""
    root_key = read_private_key(root_key_pem)
    root = _read_one(root_cert_pem)
    key = ec.generate_private_key(ec.SECP256R1())
    names = (_name(f"{name[:44]} issuing"), root.subject)
    certificate = (
        _builder(names, (key.public_key(), root_key.public_key()), now, LIMITS.issuing_lifetime_seconds)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    return private_pem(key), _pem(certificate)


class Issuer:
    """The authority at work: the issuing key, its certificate and the root's. Raises `AuthorityError` or `KeyRefusedError` when they do
    not belong together."""

    def __init__(self, issuing_key_pem: str, issuing_cert_pem: str, root_cert_pem: str) -> None:
        self._key = read_private_key(issuing_key_pem)
        self._issuing = _read_one(issuing_cert_pem)
        self._root = _read_one(root_cert_pem)
        if self._issuing.public_key() != self._key.public_key():
            raise CertificateRefused("KeyMismatch", "the issuing certificate is not that of the issuing key")
        if not _issued_by(self._issuing, self._root):
            raise CertificateRefused("UnknownIssuer", "the issuing certificate was not issued by the root")

    @property
    def authority_pem(self) -> str:
        """The root certificate in PEM: what every device pins."""
        return _pem(self._root)

    def issue_agent(self, signing_request_pem: str, agent: str, now: float, lifetime_seconds: float = LIMITS.agent_lifetime_seconds) -> str:
        """Return a client certificate for `agent` in PEM, leaf first, then the issuing certificate. Only the key is taken from the
        request. Raises `RequestRefused`, `NameRefusedError`."""
        check_agent(agent)
        public_key = _read_request(signing_request_pem)
        lifetime = min(max(lifetime_seconds, 1.0), LIMITS.lifetime_seconds_max)
        leaf = (
            _builder((_name(agent), self._issuing.subject), (public_key, self._key.public_key()), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(agent_uri(agent))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(leaf) + _pem(self._issuing)

    def issue_server(self, hosts: Sequence[str], now: float, lifetime_seconds: float = LIMITS.server_lifetime_seconds) -> tuple[str, str]:
        """Make a key and a server certificate for `hosts` (names and IP addresses): (key PEM, chain PEM with leaf, issuing and root, so
        that a device that joins can check the root's hash). Raises `RequestRefused` for no host, too many, or one that is none."""
        if not 1 <= len(hosts) <= LIMITS.hosts_max:
            raise RequestRefused("BadHosts", f"a server certificate has 1 to {LIMITS.hosts_max} hosts")
        key = ec.generate_private_key(ec.SECP256R1())
        lifetime = min(max(lifetime_seconds, 1.0), LIMITS.lifetime_seconds_max)
        leaf = (
            _builder((_name("edgewise server"), self._issuing.subject), (key.public_key(), self._key.public_key()), now, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_host(host) for host in dict.fromkeys(hosts)]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return private_pem(key), _pem(leaf) + _pem(self._issuing) + _pem(self._root)

    def issued(self, chain: Sequence[x509.Certificate]) -> bool:
        """Tell whether the chain's leaf was issued under this root, by this issuing key or by an earlier one that the chain carries.
        Expiry is not looked at."""
        leaf = chain[0]
        earlier = (each for each in chain[1:] if _is_issuing(each) and _issued_by(each, self._root))
        return any(_issued_by(leaf, issuing) for issuing in (self._issuing, *earlier))


def check_renewal(old_pem: str, signing_request_pem: str, issuer: Issuer, now: float) -> str:
    """Return the agent that an old certificate names, when it may have a new one: this authority issued the old one (expired or not), and
    the request is signed by the same key. Raises `CertificateRefused`, `RequestRefused`. Ask the controllers whether it was revoked."""
    chain = read_chain(old_pem)
    leaf = chain[0]
    if not issuer.issued(chain):
        raise CertificateRefused("UnknownIssuer", "the old certificate was not issued by this control plane's authority")
    agent = _agent_of(leaf)
    if leaf.not_valid_after_utc.timestamp() + LIMITS.renewal_expired_seconds_max < now:
        raise CertificateRefused("ExpiredTooLong", "the old certificate expired too long ago to be renewed: join again")
    if _read_request(signing_request_pem) != leaf.public_key():
        raise RequestRefused("KeyMismatch", "the signing request is signed by another key than the old certificate's")
    return agent


def authority_hash(root_cert_pem: str) -> str:
    """Return `sha256:` and the hash of the root certificate's DER form, as a join token carries it. Raises `CertificateRefused`."""
    return certificate_hash(_read_one(root_cert_pem).public_bytes(serialization.Encoding.DER))


def certificate_hash(certificate_der: bytes) -> str:
    """Return `sha256:` and the hash of a certificate as TLS hands it over."""
    return f"sha256:{hashlib.sha256(certificate_der).hexdigest()}"


def root_by_hash(chain_der: Sequence[bytes], expected_hash: str) -> str:
    """Return, in PEM, the certificate of a server's chain that a join token's hash names. The chain need not be verified: trust this root
    alone, connect again, and verify the server with it. Raises `CertificateRefused` when the chain holds no such certificate."""
    for der in chain_der[: LIMITS.chain_certificates_max]:
        if hmac.compare_digest(certificate_hash(der), expected_hash):
            return _pem(_read_der(der))
    raise CertificateRefused(
        "WrongAuthority", "the server is not the control plane that the join token names: its authority has another hash"
    )


def agent_of(certificate_der: bytes) -> str:
    """Return the agent that a certificate names. Whoever calls has verified the chain (TLS did). Raises `CertificateRefused`."""
    return _agent_of(_read_der(certificate_der))


def serial_of(certificate_der: bytes) -> str:
    """Return the serial number in lower-case hexadecimal. Raises `CertificateRefused`."""
    return f"{_read_der(certificate_der).serial_number:x}"


def not_after_of(certificate_der: bytes) -> float:
    """Return when the certificate expires, in seconds since the Unix epoch. Raises `CertificateRefused`."""
    return _read_der(certificate_der).not_valid_after_utc.timestamp()


def not_before_of(certificate_der: bytes) -> float:
    """Return from when on the certificate is valid (back-dated), in seconds since the Unix epoch. Raises `CertificateRefused`."""
    return _read_der(certificate_der).not_valid_before_utc.timestamp()


def renew_at(not_before: float, not_after: float) -> float:
    """Return when an agent asks for its next certificate: after a third of its lifetime, not counting the back-dated part."""
    issued = not_before + LIMITS.backdate_seconds
    return issued + max(0.0, not_after - issued) * LIMITS.agent_renew_after


def leaf_der(chain_pem: str) -> bytes:
    """Return the first certificate of a PEM chain in DER form. Raises `CertificateRefused`."""
    return read_chain(chain_pem)[0].public_bytes(serialization.Encoding.DER)


def read_chain(pem: str) -> tuple[x509.Certificate, ...]:
    """Read a bounded PEM chain, leaf first. Raises `CertificateRefused`."""
    if len(pem) > LIMITS.chain_characters_max:
        raise CertificateRefused("TooLarge", f"a certificate chain has at most {LIMITS.chain_characters_max} characters")
    if pem.count("-----BEGIN") > LIMITS.chain_certificates_max:
        raise CertificateRefused("TooLarge", f"a certificate chain has at most {LIMITS.chain_certificates_max} certificates")
    try:
        return tuple(x509.load_pem_x509_certificates(pem.encode()))
    except ValueError as error:
        raise CertificateRefused("BadCertificate", "the certificate chain is damaged") from error


# ---- how certificates are made and read ----


def _builder(
    names: tuple[x509.Name, x509.Name], keys: tuple[ec.EllipticCurvePublicKey, ec.EllipticCurvePublicKey], now: float, lifetime: float
) -> x509.CertificateBuilder:
    """Begin a certificate; names and keys are those of the subject and of its issuer."""
    (subject, issuer), (public_key, issuer_key) = names, keys
    start = datetime.fromtimestamp(now, UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(seconds=LIMITS.backdate_seconds))
        .not_valid_after(start + timedelta(seconds=lifetime))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64] or "edgewise")])


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise RequestRefused("BadHosts", f"{host[:100]!r} is neither a host name nor an address") from error


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _read_one(pem: str) -> x509.Certificate:
    return read_chain(pem)[0]


def _read_der(der: bytes) -> x509.Certificate:
    if len(der) > LIMITS.chain_characters_max:
        raise CertificateRefused("TooLarge", "the certificate is too large")
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise CertificateRefused("BadCertificate", "the certificate is damaged") from error


def _read_request(pem: str) -> ec.EllipticCurvePublicKey:
    """Return the key of a request that is signed by that very key."""
    if len(pem) > LIMITS.request_characters_max:
        raise RequestRefused("TooLarge", f"a signing request has at most {LIMITS.request_characters_max} characters")
    try:
        request = x509.load_pem_x509_csr(pem.encode("utf-8", "replace"))
        signed, key = request.is_signature_valid, request.public_key()
    except Exception as error:
        raise RequestRefused("BadRequest", "the signing request is damaged") from error
    if not signed:
        raise RequestRefused("BadSignature", "the signing request is not signed by its own key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefused("BadKey", "the signing request's key is not an EC P-256 key")
    return key


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _is_issuing(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.ca and usage.key_cert_sign


def _agent_of(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise CertificateRefused("NoAgent", "the certificate names no agent") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or len(list(names)) != 1 or ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise CertificateRefused("NoAgent", "the certificate is not an agent's")
    try:
        return agent_of_uri(uris[0])
    except NameRefusedError as error:
        raise CertificateRefused("NoAgent", str(error)) from error
