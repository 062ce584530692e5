"""What must not leave the machine: secrets, and paths that only exist on it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, DataError

_SECRET_NAME = re.compile(r"(token|secret|password|passwd|api_?key|credential)s?$", re.I)
_SECRET = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{20,}|api_org_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}"
    r"|AKIA[0-9A-Z]{16}|xox[abpr]-[\w-]{10,}|sk-[A-Za-z0-9_-]{32,}|-----BEGIN [A-Z ]*PRIVATE KEY-----)"
)
# A whole text that is a path: of Linux and macOS, of Windows, of a home folder, or a file address.
_PATH = re.compile(r"(/|~[\w.-]*/|[A-Za-z]:[\\/]|\\\\\w|file://)[^\n]*")
# A path within prose. An address (https://...) has no blank or quote before its slashes.
_PATH_IN_PROSE = re.compile(r"(?:^|(?<=[\s\"'`=(\[,<>]))((?:/[\w.@+-]+){2,}|~/[\w.@+-]+|[A-Za-z]:\\\w[^\s\"']*)", re.M)
_PATH_IN_CODE = re.compile(r"(?<![\w/.:])/(?:home|Users|root|mnt|media|tmp|var|opt|srv|scratch|Volumes)/[\w.@+-]+")
# Files of these names hold a vocabulary, in which any text may be a token.
_VOCABULARY = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
_TEXT = (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".py", ".jinja", ".csv")


def is_path(text: str) -> bool:
    """Whether a text as a whole is an absolute path.

    Args:
        text (`str`):
            The text.

    Returns:
        `bool`

    Example:
        >>> from vlcomp.hub.leaks import is_path
        >>> [is_path(text) for text in ("/home/ann/photos", "C:\\\\photos", "photos/a", "/", "openai/clip")]
        [True, True, False, False, False]
    """
    return bool(_PATH.fullmatch(text)) and len(text.strip("/")) > 0


def last_part(path: str) -> str:
    """The name at the end of a path of any system."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1] or "data"


def without_leaks(value: Any) -> Any:
    """A copy of settings without secrets, and with the last part of each absolute path in its place.

    Args:
        value (`Any`):
            What JSON or YAML hold.

    Returns:
        `Any`: entries whose name says that they are secret are left out.

    Example:
        >>> from vlcomp.hub.leaks import without_leaks
        >>> without_leaks({"data": "/home/ann/photos", "hub_token": "abc", "seed": 1})
        {'data': 'photos', 'seed': 1}
    """
    if isinstance(value, Mapping):
        return {
            key: without_leaks(item)
            for key, item in value.items()
            if not (isinstance(item, str) and _SECRET_NAME.search(str(key)) and not _is_special_token(str(key)))
        }
    if isinstance(value, (list, tuple)):
        return [without_leaks(item) for item in value]
    return last_part(value) if isinstance(value, str) and is_path(value) else value


def check_leaks(folder: Path, own: tuple[Path, ...] = ()) -> None:
    """Refuse a folder that holds a secret or an absolute path.

    Args:
        folder (`Path`):
            What is about to be published.
        own (`tuple[Path, ...]`):
            Folders whose absolute path must not appear anywhere, beside the home and the working folder.

    Raises:
        DataError: names the file and the line or entry; a secret itself is not repeated.
    """
    secrets = _known_secrets()
    places = [f"{os.path.abspath(place)}" for place in (Path.home(), Path.cwd(), *own)]
    places = [place for place in dict.fromkeys(places) if place.count("/") + place.count("\\") > 1]
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        text = _text_of(path)
        if text is None:
            continue
        if _SECRET.search(text) or any(secret in text for secret in secrets):
            raise DataError(
                f"{name} holds what looks like a secret (a token or key); take it out, and make the secret invalid if "
                "the file was ever shared"
            )
        found = next((place for place in places if place in text), None) or next(_paths_in(path, text), None)
        if found is not None:
            raise DataError(
                f"{name} holds the absolute path {found!r}, which tells of this machine and is of no use elsewhere; "
                "write a relative path or a name instead"
            )


def _is_special_token(key: str) -> bool:
    # Settings of a tokenizer: bos_token, pad_token and so on.
    return key.lower() in {f"{kind}_token" for kind in ("bos", "eos", "pad", "unk", "sep", "cls", "mask", "image")}


def _known_secrets() -> list[str]:
    """The secrets of this process: the Hub's token and what the environment calls a secret."""
    from huggingface_hub import get_token

    values = [get_token(), *(value for name, value in os.environ.items() if _SECRET_NAME.search(name))]
    return [value for value in values if value and len(value) >= 12 and not is_path(value)]


def _text_of(path: Path) -> str | None:
    if path.suffix == ".safetensors":
        # Its header is JSON and may carry notes.
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size))
        return json.dumps(header.get("__metadata__", {}), ensure_ascii=False)
    if path.suffix not in _TEXT:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path.name} is not UTF-8 text: {error}") from error


def _paths_in(path: Path, text: str) -> Iterator[str]:
    if path.name in _VOCABULARY:
        return
    if path.suffix in (".json", ".yaml", ".yml", ".jsonl", ".safetensors"):
        yield from (value for value in _strings(_parsed(path, text)) if is_path(value))
    elif path.suffix == ".py":
        yield from (match.group() for match in _PATH_IN_CODE.finditer(text))
    elif path.suffix == ".md":
        yield from (match.group(1) for match in _PATH_IN_PROSE.finditer(text))


def _parsed(path: Path, text: str) -> Any:
    import yaml

    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return yaml.safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
    except (ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path.name} cannot be read: {' '.join(str(error).split())}") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _strings(item)
