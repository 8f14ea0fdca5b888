"""In which number format a training computes."""

from __future__ import annotations

import pytest
import torch

from think2seg.learning.precision import in_bfloat16, number_format


@pytest.mark.parametrize(
    ("has", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, False),
        ({"amx_bf16": True}, True),
        ({"neon": True, "bf16": True}, True),
    ],
)
def test_processor_decides(has: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert in_bfloat16(None) is expected
    assert in_bfloat16(not expected) is not expected
    assert number_format(None) == ("bfloat16" if expected else "float32")
