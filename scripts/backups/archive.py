"""The file of a backup: a tar with manifest.json first, which has the length and the SHA-256 of each
other part. For scripts/backup and scripts/restore."""

import datetime
import hashlib
import json
import os
import tarfile

FORMAT = 1
MANIFEST = "manifest.json"
CONFIG = "fanfare.toml"
POSTGRES = "postgres.dump"


class Damaged(Exception):
    """A file that is no backup, or not a whole one."""


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(path, manifest, folder):
    """All files of a folder, behind their manifest. The file is there when it is whole."""
    parts = sorted(folder.iterdir())
    manifest = {"format": FORMAT, "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                **manifest,
                "parts": {part.name: {"bytes": part.stat().st_size, "sha256": sha256(part)} for part in parts}}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    begun = path.with_name(path.name + ".part")
    with tarfile.open(begun, "w") as tar:
        for part in [folder / MANIFEST, *parts]:
            tar.add(part, part.name)
    os.replace(begun, path)


def read(path, folder):
    """Unpacks into a folder and compares every part. The manifest."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = unpack(path, tar, folder)
    except tarfile.ReadError as failed:
        raise Damaged(f"{path} is no backup: it is no tar file ({failed})") from None
    if MANIFEST not in members:
        raise Damaged(f"{path} is no backup: it has no {MANIFEST}")
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        number, parts = manifest["format"], manifest["parts"]
    except (ValueError, KeyError, TypeError) as failed:
        raise Damaged(f"{path} is damaged: its {MANIFEST} cannot be read: {failed}") from None
    if number != FORMAT:
        raise Damaged(f"{path} has format {number}, this script reads {FORMAT}: use the scripts of the release that made it")
    for name, told in parts.items():
        compare(path, folder / name, name, told)
    return manifest


def unpack(path, tar, folder):
    """Each part by its plain name, so that nothing is written elsewhere."""
    members, place = [], "at its beginning"
    try:
        for member in tar:
            place = f"in {member.name}"
            if not member.isfile() or "/" in member.name or member.name.startswith("."):
                raise Damaged(f"{path} is no backup: it has {member.name!r} in it")
            with open(folder / member.name, "wb") as file:
                source = tar.extractfile(member)
                while chunk := source.read(1 << 20):
                    file.write(chunk)
            members.append(member.name)
            place = f"behind {member.name}"
    except tarfile.ReadError as failed:
        raise Damaged(f"{path} is damaged: it ends or cannot be read {place} ({failed})") from None
    return members


def compare(path, file, name, told):
    if not file.exists():
        raise Damaged(f"{path} is damaged: {name} is missing, its manifest names it")
    length = file.stat().st_size
    if length != told["bytes"]:
        raise Damaged(f"{path} is damaged: {name} has {length} of {told['bytes']} bytes")
    found = sha256(file)
    if found != told["sha256"]:
        raise Damaged(f"{path} is damaged: {name} has the SHA-256 {found}, its manifest says {told['sha256']}")
