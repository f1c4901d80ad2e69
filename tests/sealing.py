"""`.cim` files with any members under a valid seal: what someone who knows the format could make."""

import hashlib
import io
import json
import zipfile

from cimc.artifact import SEAL


def sealed(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with a valid seal around whatever members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        archive.comment = SEAL + b"0" * 64
    raw = file.getvalue()[: -64 - len(SEAL)]
    return raw + SEAL + hashlib.sha256(raw).hexdigest().encode()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_manifest(content: bytes, **changes: object) -> dict[str, bytes]:
    members = members_of(content)
    return members | {"manifest.json": json.dumps({**json.loads(members["manifest.json"]), **changes}).encode()}


def redigested(content: bytes, name: str, data: bytes) -> dict[str, bytes]:
    """The members with another `name`, whose digest is right."""
    digests = json.loads(members_of(content)["manifest.json"])["sha256"]
    return with_manifest(content, sha256={**digests, name: hashlib.sha256(data).hexdigest()}) | {name: data}
