"""Identities: what is issued, what is believed, what is renewed."""

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.trust import authority as module
from edgewise.trust.authority import (
    LIMITS,
    AuthorityError,
    CertificateRefused,
    Issuer,
    RequestRefused,
    agent_of,
    authority_hash,
    certificate_hash,
    check_renewal,
    create_authority,
    create_issuing,
    leaf_der,
    not_after_of,
    not_before_of,
    read_chain,
    renew_at,
    root_by_hash,
    serial_of,
)
from edgewise.trust.keys import KeyRefusedError, new_device_key, new_sealing_key, read_private_key, signing_request
from edgewise.trust.names import NameRefusedError, agent_of_uri, agent_uri

DAY = 86_400.0


@pytest.fixture(scope="module")
def key() -> str:
    return new_device_key()


def test_an_issued_certificate_names_its_agent_and_its_times(issuer, now, key):
    der = leaf_der(issuer.issue_agent(signing_request(key, "whatever"), "camera-7", now, 90 * DAY))
    assert agent_of(der) == "camera-7"
    assert not_before_of(der) == now - LIMITS.backdate_seconds
    assert not_after_of(der) == now + 90 * DAY
    assert renew_at(not_before_of(der), not_after_of(der)) == pytest.approx(now + 30 * DAY)
    assert int(serial_of(der), 16) > 0


def test_only_the_key_is_taken_from_a_request(issuer, now, key):
    leaf = read_chain(issuer.issue_agent(signing_request(key, "root-of-all"), "camera-7", now))[0]
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "camera-7"
    assert b"root-of-all" not in leaf.public_bytes(serialization.Encoding.DER)
    assert leaf.public_key() == read_private_key(key).public_key()


def test_lifetimes_are_bounded(issuer, now, key):
    request = signing_request(key, "a")
    assert not_after_of(leaf_der(issuer.issue_agent(request, "a", now, 1e12))) == now + LIMITS.lifetime_seconds_max
    assert not_after_of(leaf_der(issuer.issue_agent(request, "a", now, -5))) == now + 1


def test_the_root_is_apart_and_limits_what_is_below(authority):
    root, issuing = read_chain(authority.root_cert_pem)[0], read_chain(authority.issuing_cert_pem)[0]
    assert root.public_key() != issuing.public_key()
    assert issuing.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 1
    assert "PRIVATE" not in repr(authority)


def test_an_issuer_is_made_of_parts_that_belong_together(authority, now):
    other = create_authority("other", now)
    with pytest.raises(CertificateRefused, match="not issued by the root"):
        Issuer(authority.issuing_key_pem, authority.issuing_cert_pem, other.root_cert_pem)
    with pytest.raises(CertificateRefused, match="not that of the issuing key"):
        Issuer(other.issuing_key_pem, authority.issuing_cert_pem, authority.root_cert_pem)
    with pytest.raises(KeyRefusedError):
        Issuer("nonsense", authority.issuing_cert_pem, authority.root_cert_pem)


@pytest.mark.parametrize("agent", ["", "UPPER", "a/b", "../x", "a" * 129, "-a", "a\n", "a b", "ä"])
def test_a_name_that_is_none_is_refused(issuer, now, key, agent):
    with pytest.raises(NameRefusedError):
        issuer.issue_agent(signing_request(key, "a"), agent, now)
    with pytest.raises(NameRefusedError):
        signing_request(key, agent)


@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?", fullmatch=True))
def test_names_go_into_uris_and_come_back(agent):
    assert agent_of_uri(agent_uri(agent)) == agent


@pytest.mark.parametrize("uri", ["spiffe://other/agent/a", "spiffe://edgewise/agent/", "spiffe://edgewise/agent/a/b", "https://a", ""])
def test_other_uris_name_no_agent(uri):
    with pytest.raises(NameRefusedError):
        agent_of_uri(uri)


# ---- signing requests ----


def _request(key) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def test_requests_of_other_keys_are_refused(issuer, now):
    for other in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        with pytest.raises(RequestRefused) as refused:
            issuer.issue_agent(_request(other), "a", now)
        assert refused.value.reason == "BadKey"


def test_a_request_that_is_not_signed_by_its_own_key_is_refused(issuer, now, key):
    pem = signing_request(key, "abc")
    der = x509.load_pem_x509_csr(pem.encode()).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_csr(der.replace(b"abc", b"abd")).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(RequestRefused) as refused:
        issuer.issue_agent(forged, "a", now)
    assert refused.value.reason == "BadSignature"


@pytest.mark.parametrize("size", [LIMITS.request_characters_max - 1, LIMITS.request_characters_max, LIMITS.request_characters_max + 1])
def test_the_size_of_a_request_is_bounded(issuer, now, size):
    with pytest.raises(RequestRefused) as refused:
        issuer.issue_agent("x" * size, "a", now)
    assert refused.value.reason == ("TooLarge" if size > LIMITS.request_characters_max else "BadRequest")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(0, 255), st.text(max_size=3))
def test_damaged_requests_and_chains_are_refused_and_nothing_else(issuer, now, key, at, byte, tail):
    request = bytearray(signing_request(key, "a").encode())
    request[at % len(request)] = byte
    damaged = request.decode("latin-1") + tail
    try:
        agent = agent_of(leaf_der(issuer.issue_agent(damaged, "a", now)))
    except AuthorityError:
        return
    assert agent == "a"


# ---- renewal ----


@pytest.fixture(scope="module")
def old(issuer, now, key) -> str:
    return issuer.issue_agent(signing_request(key, "camera-7"), "camera-7", now, 30 * DAY)


def test_a_certificate_that_expired_months_ago_renews(issuer, now, key, old):
    later = now + 400 * DAY
    assert check_renewal(old, signing_request(key, "camera-7"), issuer, later) == "camera-7"


def test_one_that_expired_too_long_ago_does_not(issuer, now, key, old):
    edge = now + 30 * DAY + LIMITS.renewal_expired_seconds_max
    request = signing_request(key, "camera-7")
    assert check_renewal(old, request, issuer, edge) == "camera-7"
    with pytest.raises(CertificateRefused) as refused:
        check_renewal(old, request, issuer, edge + 1)
    assert refused.value.reason == "ExpiredTooLong"


def test_another_key_does_not_renew(issuer, now, old):
    with pytest.raises(RequestRefused) as refused:
        check_renewal(old, signing_request(new_device_key(), "camera-7"), issuer, now)
    assert refused.value.reason == "KeyMismatch"


def test_a_certificate_of_another_authority_does_not_renew(authority, issuer, now, key):
    other = create_authority("test", now)  # the same name, other keys
    stranger = Issuer(other.issuing_key_pem, other.issuing_cert_pem, other.root_cert_pem)
    request = signing_request(key, "camera-7")
    foreign = stranger.issue_agent(request, "camera-7", now)
    for chain in (foreign, foreign.split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n" + authority.issuing_cert_pem):
        with pytest.raises(CertificateRefused) as refused:
            check_renewal(chain, request, issuer, now)
        assert refused.value.reason == "UnknownIssuer"


def test_an_agent_cannot_issue_for_others(issuer, now, key, old):
    """A leaf that an agent signed with its own key is not believed, though its chain leads to the root."""
    agent = read_chain(old)[0]
    victim = new_device_key()
    forged = (
        x509.CertificateBuilder()
        .subject_name(agent.subject)
        .issuer_name(agent.subject)
        .public_key(read_private_key(victim).public_key())
        .serial_number(1)
        .not_valid_before(datetime.fromtimestamp(now, UTC))
        .not_valid_after(datetime.fromtimestamp(now, UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(agent_uri("victim"))]), critical=False)
        .sign(read_private_key(key), hashes.SHA256())
    )
    chain = forged.public_bytes(serialization.Encoding.PEM).decode() + old
    with pytest.raises(CertificateRefused):
        check_renewal(chain, signing_request(victim, "victim"), issuer, now)


def test_certificates_of_an_earlier_issuing_key_renew(authority, now, key, old):
    issuing_key, issuing_cert = create_issuing("test", authority.root_key_pem, authority.root_cert_pem, now)
    successor = Issuer(issuing_key, issuing_cert, authority.root_cert_pem)
    request = signing_request(key, "camera-7")
    assert check_renewal(old, request, successor, now) == "camera-7"
    renewed = successor.issue_agent(request, "camera-7", now)
    assert check_renewal(renewed, request, successor, now) == "camera-7"


def test_a_server_is_no_agent(issuer, now):
    _, chain = issuer.issue_server(["localhost"], now)
    with pytest.raises(CertificateRefused) as refused:
        agent_of(leaf_der(chain))
    assert refused.value.reason == "NoAgent"


@pytest.mark.parametrize("pem", ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_damaged_chains_are_refused(issuer, now, key, pem):
    with pytest.raises(CertificateRefused):
        check_renewal(pem, signing_request(key, "a"), issuer, now)


def test_long_chains_are_refused_before_they_are_parsed(old):
    leaf = old.split("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    assert len(read_chain(leaf * LIMITS.chain_certificates_max)) == LIMITS.chain_certificates_max
    with pytest.raises(CertificateRefused) as refused:
        read_chain(leaf * (LIMITS.chain_certificates_max + 1))
    assert refused.value.reason == "TooLarge"
    with pytest.raises(CertificateRefused):
        read_chain(leaf + "x" * LIMITS.chain_characters_max)


# ---- servers ----


def test_a_server_certificate_needs_hosts_that_are_hosts(issuer, now):
    for hosts in ([], ["ok"] * (LIMITS.hosts_max + 1), ["bad host \u00e4"]):
        with pytest.raises(RequestRefused):
            issuer.issue_server(hosts, now)
    assert issuer.issue_server([f"h{n}" for n in range(LIMITS.hosts_max)], now)


def _pump(
    one: ssl.SSLObject, bio_in: ssl.MemoryBIO, bio_out: ssl.MemoryBIO, two: ssl.SSLObject, bio_in2: ssl.MemoryBIO, bio_out2: ssl.MemoryBIO
):
    done = [False, False]
    for _ in range(10):
        for n, side in enumerate((one, two)):
            try:
                side.do_handshake()
                done[n] = True
            except ssl.SSLWantReadError:
                pass
        bio_in2.write(bio_out.read())
        bio_in.write(bio_out2.read())
        if all(done):
            return


def _handshake(server_context: ssl.SSLContext, client_context: ssl.SSLContext, host: str) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    bios = [ssl.MemoryBIO() for _ in range(4)]
    client = client_context.wrap_bio(bios[0], bios[1], server_hostname=host)
    server = server_context.wrap_bio(bios[2], bios[3], server_side=True)
    _pump(client, bios[0], bios[1], server, bios[2], bios[3])
    return client, server


@pytest.fixture
def live(tmp_path):
    """An authority of today (TLS looks at the machine's clock), a server context that asks for client certificates, and a client one."""
    import time

    now = time.time()
    made = create_authority("live", now)
    issuer = Issuer(made.issuing_key_pem, made.issuing_cert_pem, made.root_cert_pem)
    key, chain = issuer.issue_server(["localhost", "127.0.0.1"], now)
    (tmp_path / "server.pem").write_text(key + chain)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "server.pem")
    server.load_verify_locations(cadata=issuer.authority_pem)
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VERIFY_X509_STRICT
    device_key = new_device_key()
    (tmp_path / "agent.pem").write_text(device_key + issuer.issue_agent(signing_request(device_key, "camera-7"), "camera-7", now))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_verify_locations(cadata=issuer.authority_pem)
    client.load_cert_chain(tmp_path / "agent.pem")
    return made, server, client


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_mutual_tls_works_with_what_is_issued(live, host):
    _, server_context, client_context = live
    _, server = _handshake(server_context, client_context, host)
    assert agent_of(server.getpeercert(binary_form=True)) == "camera-7"


def test_tls_to_another_host_fails(live):
    _, server_context, client_context = live
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(server_context, client_context, "elsewhere")


def test_an_agent_certificate_serves_no_tls(live, tmp_path):
    made, _, client_context = live
    posing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    posing.load_cert_chain(tmp_path / "agent.pem")
    client_context.check_hostname = False
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        _handshake(posing, client_context, "localhost")
    assert made.root_cert_pem


def test_a_joining_device_finds_the_root_by_its_hash(live):
    made, server_context, _ = live
    server_context.verify_mode = ssl.CERT_NONE
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    client, _ = _handshake(server_context, blind, "localhost")
    chain = [each if isinstance(each, bytes) else each.public_bytes(2) for each in client._sslobj.get_unverified_chain()]
    expected = authority_hash(made.root_cert_pem)
    assert root_by_hash(chain, expected) == made.root_cert_pem
    assert certificate_hash(chain[-1]) == expected
    with pytest.raises(CertificateRefused) as refused:
        root_by_hash(chain, "sha256:" + "0" * 64)
    assert refused.value.reason == "WrongAuthority"


def test_sealing_keys_are_raw_and_new_each_time():
    private, public = new_sealing_key()
    assert len(private) == len(public) == 32
    assert new_sealing_key()[0] != private


def test_private_keys_of_other_kinds_are_refused():
    other = ec.generate_private_key(ec.SECP384R1())
    pem = other.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
    locked = read_private_key(new_device_key()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for bad in (pem, locked.decode(), "", "-----BEGIN PRIVATE KEY-----"):
        with pytest.raises(KeyRefusedError):
            read_private_key(bad)


def test_limits_are_the_documented_ones():
    assert LIMITS.agent_lifetime_seconds == 90 * DAY
    assert module.LIMITS is LIMITS
