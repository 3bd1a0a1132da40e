"""PyTorch tensors as arrays of a place: pinned transfers that do not block, batched LU factors, Moreau on CUDA.

A layer's `Residence` says which of its calls stay on the tensors' device; see docs/devices.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import array_api_compat
import numpy as np
import torch

from cvxift.errors import ProgramError
from cvxift.kkt.backend import Arrays, DeviceSolver, Factor
from cvxift.kkt.batch.device import reason
from cvxift.kkt.batch.programs import DensePrograms
from cvxift.kkt.engine import Engine
from cvxift.kkt.policy import Policy, choice
from cvxift.layers.core import LayerCore
from cvxift.layers.solve_cache import Host, Options
from cvxift.program.structure import Structure
from cvxift.solvers.base import Status
from cvxift.solvers.clarabel import STATUS
from cvxift.solvers.settings import optional

OnDevice = Literal["auto", "always", "never"]
KEPT_SOLVERS = 4  # Moreau's compiled solvers that a place keeps, one for each structure and batch size


class TorchArrays(Arrays):
    """Tensors on one device, in float64.

    Args:
        device: a CUDA device, or the CPU.

    Example:
        >>> place = TorchArrays(torch.device("cpu"))
        >>> place.host(place.put(np.array([1.0, 2.0])))
        array([1., 2.])
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(array_api_compat.array_namespace(torch.empty(0)), device)
        self._solvers: dict[Any, MoreauOnDevice] = {}

    def put(self, values: np.ndarray) -> torch.Tensor:
        """Host values on the device: from pinned memory, without waiting."""
        values = np.ascontiguousarray(values)
        tensor = torch.from_numpy(values if values.flags.writeable else values.copy())
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)  # the allocator keeps the pinned copy meanwhile

    def fetch(self, array: torch.Tensor) -> Callable[[], np.ndarray]:
        """Start a copy into pinned memory; the function returned waits for that copy, not for what is queued after."""
        array = array.detach()
        if self.device.type != "cuda":
            return lambda: array.to("cpu").numpy()
        with torch.cuda.device(self.device):
            buffer = torch.empty(array.shape, dtype=array.dtype, pin_memory=True)
            buffer.copy_(array, non_blocking=True)
            done = torch.cuda.Event()
            done.record()

        def wait() -> np.ndarray:
            done.synchronize()
            return buffer.numpy()

        return wait

    def factor(self, K: torch.Tensor) -> _Factor:
        """LU factors with partial pivoting, one batched call; nobody asks the device whether they exist."""
        return _Factor(self.xp, K)

    def token(self, array: torch.Tensor) -> Any:
        """The tensor's memory and version, which identify its values as long as somebody keeps it.

        A write through another library that shares the memory counts no version: give tensors of their own.
        """
        if array.is_inference():  # has no version; nobody differentiates through it either
            return object()
        return array.data_ptr(), array._version, tuple(array.shape), array.stride(), array.dtype

    def solver(self, engine: Engine, solver: str | None, solver_args: Mapping[str, Any] | None) -> DeviceSolver | None:
        """Moreau where its CUDA build is installed and nothing else was asked for."""
        asked = solver if solver is not None else engine.named
        plain = not solver_args and not engine.solver_args
        structure = engine.condensation.structure
        plain = plain and 1 not in structure.cones.soc  # which Moreau does not take; its session on the host moves them
        if self.device.type != "cuda" or asked not in (None, "moreau") or not plain or not moreau_on("cuda"):
            return None
        return self.moreau(structure)

    def moreau(self, structure: Structure) -> MoreauOnDevice:
        """Moreau for one structure, kept."""
        key = id(structure)
        if key not in self._solvers:
            while len(self._solvers) >= KEPT_SOLVERS:
                del self._solvers[next(iter(self._solvers))]
            self._solvers[key] = MoreauOnDevice(structure, self)
        return self._solvers[key]


class _Factor(Factor):
    """LU factors of a batch."""

    def __init__(self, xp: Any, K: torch.Tensor) -> None:
        super().__init__(xp, K)
        self._lu, self._pivots, _ = torch.linalg.lu_factor_ex(K)

    def solve(self, f: torch.Tensor) -> torch.Tensor:
        """K⁻¹ f, shapes (B, N, k); infinities or NaN where K is singular."""
        return torch.linalg.lu_solve(self._lu, self._pivots, f)


def moreau_on(device: str) -> bool:
    """Whether Moreau is installed with a build for this kind of device."""
    moreau = optional("moreau")
    return moreau is not None and bool(moreau.device_available(device))


class MoreauOnDevice:
    """Moreau on tensors of a place, one call a batch; its points are polished as every solver's are.

    Args:
        structure: the condensed programs' structure; second-order cones of two rows and more.
        place: where the tensors live.
    """

    name = "moreau"

    def __init__(self, structure: Structure, place: TorchArrays) -> None:
        self.structure, self._place = structure, place  # keeps the structure, whose identity is the place's key
        order = np.lexsort((structure.A_cols, structure.A_rows))
        rows, columns = structure.A_rows[order].astype(np.int64), structure.A_cols[order].astype(np.int64)
        self._A_at = place.put(rows * structure.n + columns)
        # P is symmetric with a symmetric pattern, so its columns are its rows.
        self._P_at = place.put(structure.P_cols.astype(np.int64) * structure.n + structure.P_rows)
        offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=structure.m))]).astype(np.int64)
        pattern = (structure.P_indptr.astype(np.int64), structure.P_rows.astype(np.int64), offsets, columns)
        self._pattern = [torch.from_numpy(part) for part in pattern]
        self._compiled: tuple[int, Any] | None = None

    def _compile(self, size: int) -> Any:
        if self._compiled is None or self._compiled[0] != size:
            moreau, torch_moreau = optional("moreau"), optional("moreau.torch")
            cones = self.structure.cones
            settings = moreau.Settings(
                solver="ipm",
                device=self._place.device.type,
                device_id=self._place.device.index or 0,
                batch_size=size,
                enable_grad=False,
                ipm_settings=moreau.IPMSettings(tol_gap_abs=1e-9, tol_gap_rel=1e-9, tol_feas=1e-9),
            )
            shape = moreau.Cones(
                num_zero_cones=cones.zero,
                num_nonneg_cones=cones.nonneg,
                so_cone_dims=list(cones.soc),
                psd_dims=list(cones.psd),
                num_exp_cones=cones.exp,
                power_alphas=list(cones.pow),
            )
            self._compiled = (
                size,
                torch_moreau.Solver(self.structure.n, self.structure.m, *self._pattern, shape, settings),
            )
        return self._compiled[1]

    def solve(self, programs: DensePrograms) -> tuple[torch.Tensor, torch.Tensor, Sequence[Status]]:
        """x (B, n), v = s − y (B, m), and how each instance ended."""
        B, m, n = programs.shape
        solver = self._compile(B)
        P = programs.P.reshape(B, n * n)[:, self._P_at].contiguous()
        A = programs.A.reshape(B, m * n)[:, self._A_at].contiguous()
        solution = solver.solve(P, A, programs.q.contiguous(), programs.b.contiguous())
        words = solver.info.status if isinstance(solver.info.status, list) else [solver.info.status]
        statuses = [STATUS.get(word.name, Status.FAILED) for word in words]
        return solution.x.reshape(B, n), (solution.s - solution.z).reshape(B, m), statuses


class Residence:
    """Which calls of a layer are computed where their tensors live, and the layer's side there.

    Args:
        core: the layer without its framework.
        on_device: ``"auto"``: on CUDA, for problems that have a batched dense path; ``"always"``: wherever the tensors
            are, the CPU included; ``"never"``: on the host.

    Attributes:
        open: whether some calls stay where their tensors are: those on CUDA devices.
        anywhere: whether those on other devices do, too.

    Raises:
        ProgramError: ``"always"`` for a problem without such a path; says why.
    """

    def __init__(self, core: LayerCore, on_device: OnDevice) -> None:
        choice("on_device", on_device, get_args(OnDevice))
        self._core = core
        self._hosts: dict[torch.device, Host] = {}
        closed = core.map.form is not None and on_device == "auto"  # it costs less than any solver
        why = None if on_device == "never" or closed else reason(core.map)
        if why is None and core.map.policy != Policy():
            why = "its derivatives are not taken by the default policy"
        if on_device == "always" and why is not None:
            raise ProgramError(f"on_device='always' cannot be had for this problem: {why}. Leave it at 'auto'.")
        self.anywhere = on_device == "always"
        self.open = on_device != "never" and why is None and not closed

    def at(self, device: torch.device) -> Host | None:
        """The layer on a device; None where its calls go to the host."""
        if not self.open or not (self.anywhere or device.type == "cuda"):
            return None
        if device not in self._hosts:
            self._hosts[device] = Host(self._core, TorchArrays(device))
        return self._hosts[device]


def form_there(
    there: Host,
    theta: torch.Tensor,
    tangents: Sequence[torch.Tensor],
    bar: torch.Tensor | None,
    options: Options,
) -> torch.Tensor:
    """A form of `cvxift.torch.form`, computed where θ lives; of θ's dtype and device."""
    with torch.no_grad():
        if not tangents and bar is None:
            out = there.solution(theta, options)
        else:
            out = there.derivative(theta, tangents, bar, options)
        return out.to(theta.dtype, copy=True)  # what is kept must not be the caller's to change
