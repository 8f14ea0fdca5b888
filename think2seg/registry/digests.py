"""The digest that tells one set of weights from another."""

from __future__ import annotations

from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path

from think2seg.errors import ModelError

_WEIGHTS_SUFFIXES = {".safetensors", ".pth", ".bin", ".json", ".jinja", ".txt", ".model", ".yaml"}


def weights_digest(path: Path) -> str:
    """Content hash (32 hex digits) of a checkpoint file, or of a folder's weights, tokenizer and configuration.

    Model cards and pictures do not count. Raises ModelError when there is nothing to hash.
    """
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.suffix in _WEIGHTS_SUFFIXES)
    if not files:
        raise ModelError(
            f"{path} holds no weights.", f"Weights are files ending in {', '.join(sorted(_WEIGHTS_SUFFIXES))}."
        )
    total = sha256()
    for file in files:
        stat = file.stat()
        name = file.name if file == path else file.relative_to(path).as_posix()
        total.update(f"{name}\0{_file_digest(file, stat.st_size, stat.st_mtime_ns)}\n".encode())
    return total.hexdigest()[:32]


@lru_cache(maxsize=256)
def _file_digest(file: Path, size: int, modified_ns: int) -> str:
    """Sha256 of `file`; its size and time are there so that a changed file is read again."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
