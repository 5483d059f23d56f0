"""Certificates that an endpoint's owner brings along: examined when they are registered, used by the courier.

Everything is PEM. What is refused here would fail on every attempt, with a message that says less.
"""

import re
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ringbearer.errors import InvalidInput

MAX_PEM = 32 * 1024
"""Characters of one field."""
_MAX_CERTIFICATES = 10
_SHORTEST_RSA = 2_048  # what OpenSSL takes at its default security level of 112 bits
_ENCRYPTED = re.compile(r"ENCRYPTED")


def check_authorities(pem: str, now: datetime) -> None:
    """Certificates of authorities that may vouch for a receiver; raises InvalidInput."""
    for certificate in _certificates(pem):
        if certificate.not_valid_after_utc < now:
            raise InvalidInput(_expired(certificate))


def check_client(certificate_pem: str, key_pem: str, now: datetime) -> None:
    """A client certificate, its chain behind it, with its private key; raises InvalidInput."""
    own = _certificates(certificate_pem)[0]
    if own.not_valid_after_utc < now:
        raise InvalidInput(_expired(own))
    if len(key_pem) > MAX_PEM:
        raise InvalidInput(f"expected at most {MAX_PEM} characters")
    if _ENCRYPTED.search(key_pem):
        raise InvalidInput("expected a private key without a passphrase; it is sealed when it is stored")
    try:
        key = load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType):
        raise InvalidInput("expected one private key in PEM") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise InvalidInput("expected an RSA, EC or Ed25519 key")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < _SHORTEST_RSA:
        raise InvalidInput(f"expected an RSA key of at least {_SHORTEST_RSA} bits, not {key.key_size}")
    if key.public_key() != own.public_key():
        raise InvalidInput("the private key does not belong to the first certificate")


def _certificates(pem: str) -> list[x509.Certificate]:
    if len(pem) > MAX_PEM:
        raise InvalidInput(f"expected at most {MAX_PEM} characters")
    if "PRIVATE KEY" in pem:
        raise InvalidInput("expected certificates alone, without a private key")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for certificate in found:
            certificate.public_key()
    except (ValueError, x509.UnsupportedGeneralNameType):
        raise InvalidInput("expected certificates in PEM") from None
    except Exception as error:  # a key of a kind that the library does not know, say
        raise InvalidInput(f"expected certificates that can be read ({type(error).__name__})") from None
    if len(found) > _MAX_CERTIFICATES:
        raise InvalidInput(f"expected at most {_MAX_CERTIFICATES} certificates, not {len(found)}")
    return found


def _expired(certificate: x509.Certificate) -> str:
    when = certificate.not_valid_after_utc.strftime("%Y-%m-%d")
    return f"the certificate with the serial number {certificate.serial_number:x} ended on {when}"
