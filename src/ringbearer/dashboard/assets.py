"""The files of the pages: own and vendored, named by their content, so that browsers may keep them for good."""

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_FOLDERS = ("static", "vendor")
_KINDS = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_VERSION = re.compile(r"-\d+(\.\d+)*(\.min)?(?=\.)")


@dataclass(frozen=True)
class Asset:
    """One file: `name` is what it is asked for by, and changes with its content."""

    name: str
    media_type: str
    body: bytes
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Every file by the name that it is asked for by."""
    return {asset.name: asset for asset in _by_plain_name().values()}


def asset_path(plain: str) -> str:
    """Where a file such as `style.css` or `uplot.js` is served; raises KeyError for what there is not."""
    return "/assets/" + _by_plain_name()[plain].name


@cache
def _by_plain_name() -> dict[str, Asset]:
    """Every file by its plain name: without the version and `.min` of vendored ones."""
    found = {}
    for folder in _FOLDERS:
        for file in files(__package__).joinpath(folder).iterdir():
            kind = _KINDS.get(file.name.rpartition(".")[2])
            if kind is not None:
                plain = _VERSION.sub("", file.name)
                found[plain] = _asset(plain, kind, file.read_bytes())
    return found


def _asset(plain: str, media_type: str, body: bytes) -> Asset:
    digest = hashlib.sha256(body).hexdigest()[:16]
    stem, _, ending = plain.rpartition(".")
    return Asset(f"{stem}.{digest}.{ending}", media_type, body, f'"{digest}"')
