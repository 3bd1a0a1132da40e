"""Chemical equilibrium: least free energy while the atoms are conserved, and how it moves with the atoms supplied.

The derivative of the constrained minimizer conserves mass exactly, since the constraint is one of the equations that
are differentiated; that of a penalty instead of the constraint leaks. The report says that the theorem applies.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from figures import panels, save

from cvxift.torch import implicit_argmin

SPECIES = ("H₂", "O₂", "H₂O", "H", "O", "OH")
ATOMS = torch.tensor([[2.0, 0.0, 2.0, 1.0, 0.0, 1.0], [0.0, 2.0, 1.0, 0.0, 1.0, 1.0]], dtype=torch.float64)  # H, O
ENERGIES = torch.tensor([0.0, 0.0, -25.0, 18.0, 19.0, 3.0], dtype=torch.float64)  # formation, in units of kT₀


def free_energy(n: torch.Tensor, temperature: torch.Tensor, supplied: torch.Tensor) -> torch.Tensor:
    """Σ nᵢ (gᵢ/T + log nᵢ − 1) of an ideal mixture in a fixed volume."""
    return (n * (ENERGIES / temperature + torch.log(n) - 1.0)).sum()


def equilibrium(temperature: torch.Tensor, supplied: torch.Tensor) -> torch.Tensor:
    """n = exp(Aᵀλ − g/T) with A n = supplied: Newton's method for λ with a line search on the convex dual."""
    g = ENERGIES / temperature
    lam = torch.full((2,), -12.0, dtype=torch.float64)

    def dual(lam: torch.Tensor) -> torch.Tensor:
        return torch.exp(ATOMS.T @ lam - g).sum() - lam @ supplied

    for _ in range(200):
        n = torch.exp(ATOMS.T @ lam - g)
        slope = ATOMS @ n - supplied
        step = torch.linalg.solve(ATOMS @ (n[:, None] * ATOMS.T), slope)
        size = 1.0
        near = float(slope.abs().max()) < 1e-6  # where rounding hides the descent, and full steps converge
        while not near and size > 1e-10 and dual(lam - size * step) > dual(lam) - 1e-4 * size * slope @ step:
            size *= 0.5
        lam = lam - size * step
        if float(slope.abs().max()) < 1e-14:
            break
    return torch.exp(ATOMS.T @ lam - g)


def main() -> None:
    """Sweep the temperature; compare the derivatives with differences and the leak of a penalty."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=60)
    points = parser.parse_args().points
    solve = implicit_argmin(free_energy, equilibrium, equality=lambda n, temperature, supplied: ATOMS @ n - supplied)
    supplied = torch.tensor([2.0, 1.2], dtype=torch.float64)
    temperatures = torch.linspace(1.2, 6.0, points, dtype=torch.float64)
    amounts = torch.stack([equilibrium(t, supplied) for t in temperatures])
    slopes = torch.stack([torch.func.jacfwd(solve)(t, supplied) for t in temperatures])
    h = 1e-5
    differences = torch.stack(
        [(equilibrium(t + h, supplied) - equilibrium(t - h, supplied)) / (2 * h) for t in temperatures]
    )
    print(f"slopes against differences: {float((slopes - differences).abs().max() / slopes.abs().max()):.1e}")
    hot = temperatures[points // 2]
    response = torch.func.jacrev(solve, 1)(hot, supplied)
    print(f"mass conserved to {float((ATOMS @ response - torch.eye(2, dtype=torch.float64)).abs().max()):.1e}")
    weights, leaks = np.logspace(0, 6, 13), []
    for rho in weights:
        n, H = equilibrium(hot, supplied), float(rho) * ATOMS.T @ ATOMS
        penalized = torch.linalg.solve(torch.diag(1.0 / n) + H, float(rho) * ATOMS.T)  # of energy + ½ρ‖A n − supplied‖²
        leaks.append(float((ATOMS @ penalized - torch.eye(2, dtype=torch.float64)).abs().max()))
    print(f"a penalty leaks {leaks[0]:.1e} at ρ = 1, {leaks[-1]:.1e} at ρ = 10⁶")
    print(f"report: {solve.diagnose(hot, supplied).verdict.value}")
    figure, axes = panels(3)
    for i, name in enumerate(SPECIES):
        axes[0].semilogy(temperatures, amounts[:, i], label=name)
        axes[1].plot(temperatures, slopes[:, i])
    axes[0].set(title="equilibrium", xlabel="temperature", ylabel="amount", ylim=(1e-6, 3.0))
    axes[0].legend(fontsize=8)
    axes[1].plot(temperatures[::4], differences[::4], "k.", ms=3)
    axes[1].set(title="slopes (dots: differences)", xlabel="temperature")
    axes[2].loglog(weights, leaks, "o-", label="penalty ½ρ‖A n − b‖²")
    axes[2].axhline(1e-15, color="#059669", label="constraint")
    axes[2].set(title="atoms that the derivative loses", xlabel="ρ")
    axes[2].legend(fontsize=8)
    save(figure, "conserved_mass")


if __name__ == "__main__":
    main()
