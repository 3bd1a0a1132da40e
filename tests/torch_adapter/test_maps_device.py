"""The closed forms make every tensor where their inputs are, never on the default device."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.torch_adapter.map_cases import cases, value_and_derivatives  # noqa: E402


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", cases())
def test_nothing_is_made_on_the_default_device(name: str, dtype: torch.dtype) -> None:
    expected = value_and_derivatives(name, "cpu", dtype)
    with torch.device("meta"):  # whatever is made without a word about where has no values
        found = value_and_derivatives(name, "cpu", dtype)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=0.0, atol=0.0)
