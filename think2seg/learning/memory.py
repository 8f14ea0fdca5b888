"""Memory of the training process."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_NEVER, _PAD_BYTES = 2**31 - 1, 2**28


def keep_freed_memory() -> None:
    """Let glibc hand freed memory to the next tensor instead of the kernel, which would zero every page of it again.

    A step of the small segmenter takes a quarter less CPU time (docs/log.md). Nothing happens on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    mallopt(_M_TOP_PAD, _PAD_BYTES)
