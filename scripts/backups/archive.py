"""The file of a backup: a tar with manifest.json first, which has the length and the SHA-256 of each
other part, and manifest.sha256 behind it, which has that of the manifest as `sha256sum` writes it. For
scripts/backup and scripts/restore."""

import datetime
import hashlib
import json
import os
import re
import tarfile

FORMAT = 2
MANIFEST = "manifest.json"
SUM = "manifest.sha256"
CONFIG = "fanfare.toml"
POSTGRES = "postgres.dump"
FORMS = ("redis", "redis-sentinel", "redis-cluster", "unix")


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
    (folder / SUM).write_text(f"{sha256(folder / MANIFEST)}  {MANIFEST}\n")
    begun = path.with_name(path.name + ".part")
    with tarfile.open(begun, "w") as tar:
        for part in [folder / MANIFEST, folder / SUM, *parts]:
            tar.add(part, part.name)
    os.replace(begun, path)


def read(path, folder):
    """Unpacks into a folder and compares every part. The manifest, whose fields were all looked at."""
    try:
        with tarfile.open(path, "r:") as tar:
            members = unpack(path, tar, folder)
    except tarfile.ReadError as failed:
        raise Damaged(f"{path} is no backup: it is no tar file ({failed})") from None
    if MANIFEST not in members:
        raise Damaged(f"{path} is no backup: it has no {MANIFEST}")
    text = (folder / MANIFEST).read_bytes()
    judge_format(path, text)
    judge_sum(path, text, folder / SUM)
    manifest = json.loads(text)
    judge_fields(path, manifest)
    for name, told in manifest["parts"].items():
        compare(path, folder / name, name, told)
    if more := set(members) - {MANIFEST, SUM, *manifest["parts"]}:
        raise Damaged(f"{path} is damaged: it has {sorted(more)[0]}, which its {MANIFEST} does not name")
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


def judge_format(path, text):
    """Before the sum, which older formats lack."""
    try:
        number = json.loads(text)["format"]
    except (ValueError, KeyError, TypeError) as failed:
        raise Damaged(f"{path} is damaged: its {MANIFEST} cannot be read: {failed}") from None
    if number != FORMAT:
        raise Damaged(f"{path} has format {number}, this script reads {FORMAT}: use the scripts of the release that made it")


def judge_sum(path, text, file):
    """The manifest is compared too: it says where the keys of a part are."""
    if not file.exists():
        raise Damaged(f"{path} is damaged: {SUM} is missing")
    found = hashlib.sha256(text).hexdigest()
    told = file.read_bytes().split(maxsplit=1)[:1]
    if told != [found.encode()]:
        raise Damaged(f"{path} is damaged: {MANIFEST} has the SHA-256 {found}, {SUM} says another")


def judge_fields(path, manifest):
    """What a restore goes by: each field is there, and what it must be."""

    def field(of, name, kind, place=""):
        if not isinstance(of, dict) or not isinstance(of.get(name), kind) or isinstance(of.get(name), bool):
            raise Damaged(f"{path} is no backup that this script can read: {place}{name} in its {MANIFEST} "
                          f"is {json.dumps(of.get(name)) if isinstance(of, dict) else 'missing'}")
        return of[name]

    def rule(is_kept, says):
        if not is_kept:
            raise Damaged(f"{path} is no backup that this script can read: {says}")

    field(manifest, "made", str)
    rule(field(manifest, "prefix", str), "its prefix is empty")
    parts = field(manifest, "parts", dict)
    for name, part in parts.items():
        rule(re.fullmatch(r"[\w-]+\.\w+", name) and name not in (MANIFEST, SUM), f"{name!r} is no name of a part")
        field(part, "bytes", int, f"{name}: ")
        field(part, "sha256", str, f"{name}: ")
    deployments = field(manifest, "deployments", list)
    rule(deployments, "it names no deployment")
    used = []
    for at, deployment in enumerate(deployments):
        place = f"deployment {at}: "
        field(deployment, "name", str, place)
        form = field(deployment, "form", str, place)
        rule(form in FORMS, f"{place}{form!r} is no form of redis.url")
        rule(field(deployment, "database", int, place) >= 0, f"{place}its database is below 0")
        files = field(deployment, "files", list, place)
        rule(files, f"{place}it has no file")
        for file in files:
            name = field(file, "file", str, place)
            field(file, "master", str, place)
            rule(field(file, "keys", int, place) >= 0, f"{place}it has fewer than no keys")
            rule(name in parts, f"{place}{name} is none of its parts")
            used.append(name)
    rule(len(used) == len(set(used)), "one part is named twice")
    left = set(parts) - set(used) - {CONFIG, POSTGRES}
    rule(not left, f"no deployment has the part {sorted(left)[:1]}")


def compare(path, file, name, told):
    if not file.exists():
        raise Damaged(f"{path} is damaged: {name} is missing, its manifest names it")
    length = file.stat().st_size
    if length != told["bytes"]:
        raise Damaged(f"{path} is damaged: {name} has {length} of {told['bytes']} bytes")
    found = sha256(file)
    if found != told["sha256"]:
        raise Damaged(f"{path} is damaged: {name} has the SHA-256 {found}, its manifest says {told['sha256']}")
