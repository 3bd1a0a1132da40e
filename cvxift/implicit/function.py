"""What an implicit function is in every framework: its settings, how its solver is called, its report."""

from __future__ import annotations

import abc
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypeVar

from cvxift.diagnostics.report import BatchReport, Report
from cvxift.errors import ProgramError
from cvxift.implicit.diagnose import diagnose
from cvxift.implicit.linear import Certificate
from cvxift.implicit.oracle import Oracle, newton
from cvxift.implicit.settings import Settings

OPTIONS = ("linear_solver", "damping", "has_aux", "check", "tolerance")
Function = TypeVar("Function", bound="ImplicitFunction")
X = TypeVar("X")
X_co = TypeVar("X_co", covariant=True)


class ImplicitFunction(abc.ABC):
    """x(θ), the solution that a solver finds, with the derivative that the equations define.

    Attributes:
        settings: what it is made of.
        certificate: of the last linear solve of a derivative; in JAX of the last one that had a problem. None if none.
    """

    reports_itself = True  # `cvxift.diagnose` asks it
    options: ClassVar[dict[str, tuple[str, ...]]] = {
        "root": OPTIONS,
        "fixed_point": OPTIONS,
        "argmin": (*OPTIONS, "equality", "inequality", "has_multipliers"),
    }

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.certificate: Certificate | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made anew: programs compiled so far can neither be copied nor pickled."""
        return type(self), (self.settings,)

    @abc.abstractmethod
    def __call__(self, *theta: Any, init: Any = None) -> Any:
        """Solve, once; see the framework's own class."""

    @abc.abstractmethod
    def _oracle(self, theta: tuple[Any, ...], init: Any) -> Oracle:
        """The function at the solver's point, for the diagnosis."""

    @abc.abstractmethod
    def _instances(self, theta: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """θ of every instance, from arrays whose leading dimension is the batch."""

    def diagnose(self, *theta: Any, init: Any = None, batch: bool = False) -> Report | BatchReport:
        """Solve, and say whether the theorem applies at the point, how far from failing, and why.

        Args:
            *theta: the parameters, outside of transformations.
            init: a warm start.
            batch: whether every array of θ has a leading dimension of instances.

        Returns:
            The report, of the same class as for CVXPY problems; its ``audit()`` compares the derivative with central
            differences of the solver. A `BatchReport` for a batch.
        """
        quiet = type(self)(replace(self.settings, check="off"))
        if not batch:
            return diagnose(quiet._oracle(theta, init))
        title = self.settings.title
        reports = []
        for index, row in enumerate(self._instances(theta)):
            report = diagnose(quiet._oracle(row, init))
            reports.append(replace(report, title=f"{title}, instance ({index},)"))
        return BatchReport(title, (len(reports),), tuple(reports))

    @classmethod
    def at_point(cls, F: Callable[..., Any], x: Any, theta: tuple[Any, ...]) -> Report:
        """The report of F(x, θ) = 0 at a point, without a solver; see `cvxift.diagnose`.

        The audit follows the solution by Newton's method, which stands in for the solver.
        """
        function = cls(Settings.of("root", F, lambda *_: x, check="off"))
        oracle = function._oracle(theta, None)
        return diagnose(replace(oracle, solver=lambda moved: newton(oracle, moved)))

    def _check_init(self, init: Any) -> None:
        """Refuse a warm start that the solver does not take."""
        if init is not None and not takes_init(self.settings.solver):
            raise ProgramError("init was given, but the solver has no argument `init`. Add it, or leave init out.")

    def _parts(self, answer: Any) -> tuple[Any, Any, Any]:
        """What the solver returned: x, aux, multipliers; the latter two None where they are not asked for."""
        settings = self.settings
        aux = given = None
        for flag, what in ((settings.has_aux, "(x, aux)"), (settings.has_multipliers, "(x, (nu, lambda))")):
            if flag and not (isinstance(answer, tuple) and len(answer) == 2):
                raise ProgramError(f"The solver must return a pair {what}; got {type(answer).__name__}.")
            if flag and what == "(x, aux)":
                answer, aux = answer
            elif flag:
                answer, given = answer
                if not (isinstance(given, tuple | list) and len(given) == 2):
                    raise ProgramError(
                        "The solver must return its multipliers as a pair (nu, lambda), of equality and inequality; "
                        f"got {type(given).__name__}. Give () for one that there is not."
                    )
        return answer, aux, given


class Solves(Protocol[X_co]):
    """An `ImplicitFunction` as type checkers see it: it returns what the solver returns."""

    @property
    def settings(self) -> Settings:
        """What it is made of."""
        ...

    @property
    def certificate(self) -> Certificate | None:
        """Of the last linear solve of a derivative."""
        ...

    def __call__(self, *theta: Any, init: Any = None) -> X_co:
        """Solve, once."""
        ...

    def diagnose(self, *theta: Any, init: Any = None, batch: bool = False) -> Report | BatchReport:
        """As `ImplicitFunction.diagnose`."""
        ...


class Decorator(Protocol):
    """What makes an implicit function of a solver."""

    def __call__(self, solver: Callable[..., X], /) -> Solves[X]:
        """The implicit function."""
        ...


def made(cls: type[Function], kind: Any, function: Any, solver: Any, options: dict[str, Any]) -> Any:
    """The implicit function, or without a solver a decorator for one."""
    unknown = [name for name in options if name not in cls.options[kind]]
    if unknown:
        raise ProgramError(f"{unknown[0]} is no option of implicit_{kind}; choose from {', '.join(cls.options[kind])}.")
    if solver is None:
        return lambda solver: made(cls, kind, function, solver, options)
    return cls(Settings.of(kind, function, solver, **options))


def takes_init(solver: Callable[..., Any]) -> bool:
    """Whether a solver has an argument ``init`` or takes any keyword."""
    try:
        parameters = inspect.signature(solver).parameters.values()
    except (TypeError, ValueError):
        return True  # builtins without a signature: the call itself will tell
    return any(p.name == "init" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)


def batch_size(names: Sequence[str], shapes: Sequence[Sequence[int]]) -> int:
    """The common leading dimension of arrays.

    Raises:
        ProgramError: there is none, by name.
    """
    sizes = {shape[0] if len(shape) else -1 for shape in shapes}
    if len(sizes) != 1 or -1 in sizes:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in zip(names, shapes, strict=True))
        raise ProgramError(f"batch=True needs one leading dimension in every array of theta; got {told or 'none'}.")
    return sizes.pop()
