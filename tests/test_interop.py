"""DLPack between NumPy, PyTorch and JAX: values and memory, and what is said where it cannot be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from cvxift.errors import ProgramError
from cvxift.layers.interop import converted, is_foreign, refused

FRAMEWORKS = {
    "torch": (torch.Tensor, torch.from_dlpack, torch.from_numpy),
    "jax": (jax.Array, jnp.from_dlpack, jnp.asarray),
    "numpy": (np.ndarray, np.from_dlpack, np.asarray),
}


def taken(target: str, *values):
    kind, convert, _ = FRAMEWORKS[target]
    names = [f"p{i}" for i in range(len(values))]
    return converted(names, values, kind, convert)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("source", FRAMEWORKS)
@pytest.mark.parametrize("target", FRAMEWORKS)
def test_every_pair_keeps_values_and_dtype(source: str, target: str, dtype, rng: np.random.Generator) -> None:
    values = rng.standard_normal((3, 4)).astype(dtype)
    with jax.enable_x64(True):
        array = FRAMEWORKS[source][2](values)
        (got,) = taken(target, array)
        assert isinstance(got, FRAMEWORKS[target][0])
        np.testing.assert_array_equal(np.asarray(got), values)
        assert np.asarray(got).dtype == dtype
        if source == target:
            assert got is array


@pytest.mark.parametrize("source", ["numpy", "jax"])
def test_memory_is_shared_where_it_can_be(source: str) -> None:
    array = FRAMEWORKS[source][2](np.arange(64, dtype=np.float32))
    (got,) = taken("torch", array)
    address = array.ctypes.data if source == "numpy" else array.unsafe_buffer_pointer()
    assert got.data_ptr() == address


def test_memory_that_must_not_be_written_is_copied() -> None:
    frozen = np.arange(4.0)
    frozen.flags.writeable = False
    (got,) = taken("torch", frozen)
    got[0] = 7.0
    assert frozen[0] == 0.0
    (swapped,) = taken("torch", np.arange(3.0).astype(">f8"))
    np.testing.assert_array_equal(swapped.numpy(), [0.0, 1.0, 2.0])


def test_what_cannot_be_taken_is_named() -> None:
    with pytest.raises(ProgramError, match=r"Parameter 'p1' is a list; from_dlpack=True takes arrays"):
        taken("torch", np.zeros(2), [1.0, 2.0])
    attached = torch.zeros(2, requires_grad=True)
    with pytest.raises(ProgramError, match=r"Parameter 'p0' \(Tensor\) could not be taken over by DLPack"):
        taken("jax", attached)
    with pytest.raises(ProgramError, match=r"Parameter 'p0'"):
        taken("torch", np.array(["a"]))


def test_the_refusal_offers_what_helps() -> None:
    with_offer = str(refused("A", jnp.zeros(2), "a torch.Tensor", "torch.as_tensor"))
    assert "Parameter 'A' is a jaxlib." in with_offer and "Pass from_dlpack=True" in with_offer
    without = str(refused("A", [1.0], "a torch.Tensor", "torch.as_tensor"))
    assert without == "Parameter 'A' is a list; expected a torch.Tensor. Convert it with torch.as_tensor."
    assert is_foreign(torch.zeros(1)) and is_foreign(jnp.zeros(1)) and not is_foreign(1.0)
