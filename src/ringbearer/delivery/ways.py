"""Ways to a receiver: the versions, authorities and certificate that an endpoint asks for."""

import msgspec
import pycurl

from ringbearer.domain.endpoints import HttpVersion, TlsVersion

_HTTP_VERSIONS: dict[HttpVersion, int] = {
    "auto": pycurl.CURL_HTTP_VERSION_2TLS,
    "1.1": pycurl.CURL_HTTP_VERSION_1_1,
    "3": pycurl.CURL_HTTP_VERSION_3,  # where the receiver speaks it, else as with auto
}
_TLS_VERSIONS: dict[TlsVersion, int] = {"1.2": pycurl.SSLVERSION_TLSv1_2, "1.3": pycurl.SSLVERSION_TLSv1_3}


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How one receiver wants to be connected to, where that is not the usual way.

    `ca` replaces the usual authorities; `certificate` and `key` are shown when the receiver asks for one; all
    three are PEM. libcurl keeps a connection, and a TLS session to resume, only for exchanges with the same of
    all of this: nothing that is sent for one endpoint travels under another's certificate.
    """

    http_version: HttpVersion = "auto"
    tls_min: TlsVersion = "1.2"
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        shown = "with" if self.certificate else "without"
        return f"<Way by HTTP {self.http_version}, TLS {self.tls_min}, {shown} certificate>"


_USUAL = Way()
UNKNOWN = Way()
"""Stands for whatever a handle was left with."""


def take_way(curl: pycurl.Curl, way: Way | None) -> None:
    """Let the handle connect that way from now on, and as to nobody before."""
    way = way or _USUAL
    curl.setopt(pycurl.HTTP_VERSION, _HTTP_VERSIONS[way.http_version])
    curl.setopt(pycurl.SSLVERSION, _TLS_VERSIONS[way.tls_min])  # at least; the newest that both know is taken
    for option, value in (
        (pycurl.CAINFO_BLOB, way.ca),
        (pycurl.SSLCERT_BLOB, way.certificate),
        (pycurl.SSLKEY_BLOB, way.key),
    ):
        if value is None:
            curl.unsetopt(option)
        else:
            curl.setopt(option, value)
