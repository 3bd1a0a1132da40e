"""4×4 Sudoku from puzzles and solutions alone: a layer learns the rules as the equations of a quadratic program.

The program is  min ½·0.1‖z‖² − puzzle'z  s.t.  A z = b, z ≥ 0,  with z a one-hot board; A and b start at random, and
nobody tells the layer what a row, column or box is (Amos & Kolter 2017, section 4.4). It is judged on boards that it
never saw. The report says that the theorem applies to a puzzle of theirs under the learned rules.
"""

from __future__ import annotations

import argparse
import itertools

import cvxpy as cp
import numpy as np
import torch
from figures import panels, save

import cvxift
from cvxift.torch import CvxpyLayer

EQUATIONS = 40  # as many as the rules of a 4×4 board have, 64 of rank 40
TRAINING = 200  # boards of the 288; the others are held out


def boards() -> np.ndarray:
    """All 288 boards, shape (288, 16), digits 0 … 3."""
    found = []
    for rows in itertools.product(itertools.permutations(range(4)), repeat=4):
        board = np.array(rows)
        columns = all(len(set(board[:, j])) == 4 for j in range(4))
        if columns and all(len(set(board[i : i + 2, j : j + 2].ravel())) == 4 for i in (0, 2) for j in (0, 2)):
            found.append(board.ravel())
    return np.array(found)


def puzzles(every: np.ndarray, which: np.ndarray, count: int, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Puzzles with five to eight clues that only one board meets, and their solutions; one-hot, shape (count, 64)."""
    chosen = rng.choice(which, count)
    clues = np.zeros((count, 16, 4))
    for k, j in enumerate(chosen):
        given = int(rng.integers(5, 9))
        while True:
            keep = rng.permutation(16)[:given]
            if (every[:, keep] == every[j, keep]).all(1).sum() == 1:
                break
        clues[k, keep] = np.eye(4)[every[j, keep]]
    return torch.tensor(clues.reshape(count, 64)), torch.tensor(np.eye(4)[every[chosen]].reshape(count, 64))


def rules() -> np.ndarray:
    """The equations that the layer should find: each digit once a row, column and box, one a cell; (64, 64)."""
    row, column, digit = np.unravel_index(np.arange(64), (4, 4, 4))
    box = 2 * (row // 2) + column // 2
    groups = (4 * row + digit, 4 * column + digit, 4 * box + digit, 4 * row + column)
    return np.concatenate([np.arange(16)[:, None] == group for group in groups]).astype(float)


def program() -> CvxpyLayer:
    """The quadratic program of a puzzle, A and b."""
    z, puzzle = cp.Variable(64, name="z"), cp.Parameter(64, name="puzzle")
    A, b = cp.Parameter((EQUATIONS, 64), name="A"), cp.Parameter(EQUATIONS, name="b")
    objective = cp.Minimize(0.05 * cp.sum_squares(z) - puzzle @ z)
    return CvxpyLayer(cp.Problem(objective, [A @ z == b, z >= 0]), [puzzle, A, b], [z])


def main() -> None:
    """Train, count solved boards, look at what was learned, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--held-out", type=int, default=200, help="puzzles of boards never seen")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    every = boards()
    order = rng.permutation(len(every))
    seen, unseen = order[:TRAINING], order[TRAINING:]
    layer = program()
    A = torch.rand(EQUATIONS, 64, dtype=torch.float64, requires_grad=True)
    interior = torch.zeros(64, dtype=torch.float64, requires_grad=True)  # b = A exp(·): every program has a solution
    tests, answers = puzzles(every, unseen, arguments.held_out, rng)

    def fill(puzzle: torch.Tensor) -> torch.Tensor:
        return layer(puzzle, A, A @ torch.exp(interior))[0]

    def solved() -> float:
        with torch.no_grad():
            guess = fill(tests).reshape(-1, 16, 4).argmax(-1)
        return float((guess == answers.reshape(-1, 16, 4).argmax(-1)).all(1).double().mean())

    optimizer = torch.optim.Adam([A, interior], lr=0.02)
    losses, scores = [], [solved()]
    every_so_often = max(1, arguments.steps // 12)
    for step in range(arguments.steps):
        puzzle, solution = puzzles(every, seen, arguments.batch, rng)
        optimizer.zero_grad()
        loss = (fill(puzzle) - solution).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % every_so_often == 0:
            scores.append(solved())
    print(f"training loss from {losses[0]:.4f} to {losses[-1]:.4f}")
    print(f"held-out boards solved: {100 * scores[-1]:.1f} %")
    learned, true = (np.linalg.pinv(M) @ M for M in (A.detach().numpy(), rules()))
    print(f"share of the rules' equations that the learned ones imply: {np.sum(learned * true) / np.trace(true):.3f}")
    report = cvxift.diagnose(layer, tests[0], A.detach(), (A @ torch.exp(interior)).detach())
    print(f"report: {report.verdict.value}")
    figure, axes = panels(3)
    axes[0].semilogy(losses, color="#6b7280", lw=0.7)
    axes[0].set(xlabel="step", ylabel="training loss (grey)")
    other = axes[0].twinx()
    other.plot(np.arange(len(scores)) * every_so_often, scores, marker="o", ms=4)
    other.set(ylabel="held-out boards solved", ylim=(-0.03, 1.03))
    for axis, matrix, title in zip(axes[1:], (learned, true), ("learned", "of rows, columns, boxes, cells")):
        shown = axis.imshow(matrix, cmap="RdBu_r", vmin=-0.6, vmax=0.6)
        axis.set(title=f"equations {title}", xticks=[], yticks=[], xlabel="projector onto their span")
    figure.colorbar(shown, ax=axes[2])
    save(figure, "sudoku")


if __name__ == "__main__":
    main()
