"""Content hashes of plain data."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any


def content_digest(data: Any) -> str:
    """Hash JSON-like `data`, independent of key order; 32 hexadecimal digits."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return sha256(text.encode()).hexdigest()[:32]
