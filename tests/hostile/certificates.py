"""Certificates of every bad kind, made on the spot by authorities of our own."""

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
_DAY = timedelta(days=1)
_RSA_SHA256 = bytes.fromhex("06092a864886f70d01010b")
_RSA_SHA1 = bytes.fromhex("06092a864886f70d010105")
"""Algorithm identifiers in DER (RFC 8017, appendix C)."""


class Authority:
    """Issues certificates; `below` makes it an intermediate one of another authority."""

    def __init__(self, name: str, *, below: "Authority | None" = None, key: Key | None = None) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key: Key = key or ec.generate_private_key(ec.SECP256R1())
        self.above = below
        signer = below or self
        constraint = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (
            _builder(self.name, signer.name, self.key)
            .add_extension(constraint, critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    def pem(self) -> bytes:
        """Its certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        *names: str,
        starts: timedelta = -_DAY,
        ends: timedelta = _DAY,
        key: Key | None = None,
        waste: int = 0,
        common_name: str = "receiver",
    ) -> "Issued":
        """A certificate for DNS names and IP addresses; times count from now, `waste` in bytes."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = _builder(subject, self.name, key, starts=starts, ends=ends)
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_name(n) for n in names]), critical=False
        )
        if waste:
            unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\0" * waste)
            builder = builder.add_extension(unknown, critical=False)
        chain = [builder.sign(self.key, hashes.SHA256())]
        link: Authority | None = self
        while link is not None and link.above is not None:
            chain.append(link.certificate)
            link = link.above
        return Issued(key, chain)


class Issued:
    """A certificate with its key and the chain that a server should send with it."""

    def __init__(self, key: Key, chain: Sequence[x509.Certificate]) -> None:
        self.key = key
        self.chain = list(chain)

    def context(self, directory: Path, *, alpn: Sequence[str] = ()) -> ssl.SSLContext:
        """A server's context that shows this certificate; its files lie in the directory."""
        file = directory / f"{self.chain[0].serial_number:x}-{len(self.chain)}.pem"
        file.write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")  # a server may be as careless as it likes
        context.load_cert_chain(file)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


def self_signed(*names: str) -> Issued:
    """A certificate that vouches for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
    builder = _builder(subject, subject, key)
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(n) for n in names]), critical=False)
    return Issued(key, [builder.sign(key, hashes.SHA256())])


def signed_with_sha1(issued: Issued, authority: Authority) -> Issued:
    """The same certificate as SHA-1 would have it. No library signs so any more, hence by hand, for RSA only."""
    assert isinstance(authority.key, rsa.RSAPrivateKey)
    certificate = issued.chain[0]
    content = certificate.tbs_certificate_bytes.replace(_RSA_SHA256, _RSA_SHA1)
    signature = authority.key.sign(content, padding.PKCS1v15(), hashes.SHA1())
    # Content, algorithm and signature have the same lengths as before, so nothing around them changes.
    der = certificate.public_bytes(Encoding.DER)
    der = der.replace(certificate.tbs_certificate_bytes, content).replace(_RSA_SHA256, _RSA_SHA1)
    der = der.replace(certificate.signature, signature)
    return Issued(issued.key, [x509.load_der_x509_certificate(der)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, *, starts: timedelta = -_DAY, ends: timedelta = _DAY
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)
