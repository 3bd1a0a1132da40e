"""The closed forms on CUDA tensors: in and out on the card, with the CPU's values and derivatives; compiled as well."""

from __future__ import annotations

import pytest
import torch

from tests.torch_adapter.map_cases import cases, value_and_derivatives

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 4e-2, torch.float16: 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", cases())
def test_on_the_card_with_the_cpus_numbers(name: str, dtype: torch.dtype) -> None:
    found, expected = (value_and_derivatives(name, device, dtype) for device in ("cuda", "cpu"))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left.cpu(), right, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("name", cases())
def test_compiled_on_the_card(name: str) -> None:
    function, inputs = cases()[name]
    moved = [v.to("cuda") for v in inputs]
    compiled = torch.compile(function, fullgraph=True)
    torch.testing.assert_close(compiled(*moved), function(*moved), rtol=1e-12, atol=1e-12)
