"""The keys a device makes for itself, used in its short-lived processes. The private parts never leave the device."""

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.x509.oid import NameOID

from edgewise.trust.names import agent_uri, check_agent


class KeyRefusedError(ValueError):
    """A private key is not one that `new_device_key` makes."""


def new_device_key() -> str:
    """Return a new EC P-256 private key, PKCS#8 PEM, not encrypted: store it readable by its owner only."""
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def signing_request(key_pem: str, agent: str) -> str:
    """Return a PKCS#10 request in PEM that asks for `agent`'s certificate, signed with the key. Raises `KeyRefusedError`, and
    `NameRefusedError` for a name that is none."""
    check_agent(agent)
    key = read_private_key(key_pem)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent[:64])])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(agent_uri(agent))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def new_sealing_key() -> tuple[bytes, bytes]:
    """Return a new X25519 key pair as (private, public), 32 raw bytes each."""
    key = x25519.X25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """Return the key as PKCS#8 PEM, not encrypted."""
    encoded = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return encoded.decode()


def read_private_key(pem: str) -> ec.EllipticCurvePrivateKey:
    """Read an EC P-256 private key. Raises `KeyRefusedError`; the message holds nothing of the key."""
    try:
        key = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError) as error:
        raise KeyRefusedError("the private key is damaged, or encrypted") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeyRefusedError("the private key is not an EC P-256 key")
    return key
