"""Expressions, constraints and entries as a user writes them, for messages.

CVXPY names an atom by its class (``PnormApprox(x, 2)``) and writes out every constant, which costs more than a solve
where constants are large. Here an atom has the name of the function that makes it, ``norm(x, 2)``, a large constant is
told by its shape, and a long text loses its innermost parts first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.constraints.constraint import Constraint
from cvxpy.expressions.expression import Expression

LONGEST_TEXT = 120  # characters of an expression that a message shows
DEPTHS = (8, 5, 4, 3, 2, 1)  # nesting that is shown, the first that is short enough
SHOWN_TERMS = 4  # terms of a sum, or arguments of a function, that are written out
SHOWN_ENTRIES = 4  # entries of a constant that are written out

SUM, PRODUCT, UNARY, ATOM = 1, 2, 3, 4  # how tightly the operators bind


def short(thing: Any) -> str:
    """An expression or constraint on one line, cut where it is long.

    Args:
        thing: a CVXPY expression, constraint or objective, or anything with a text.

    Returns:
        Its text in the user's words without line breaks, at most 120 characters.

    Example:
        >>> import cvxpy as cp
        >>> x = cp.Variable(3, name="x")
        >>> short(cp.norm(x) <= 1), short(x >= 0), short(cp.sum(x) == cp.square(x[1]))
        ('norm(x, 2) <= 1', 'x >= 0', 'sum(x) == square(x[1])')
    """
    if isinstance(thing, cp.Minimize | cp.Maximize):
        return f"{thing.NAME} {short(thing.args[0])}"
    text = ""
    for depth in DEPTHS if isinstance(thing, Expression | Constraint) else ():
        text = _constraint(thing, depth) if isinstance(thing, Constraint) else _words(thing, depth)[0]
        if len(text) <= LONGEST_TEXT:
            break
    text = " ".join((text or str(thing)).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def subscript(entry: tuple[int, ...]) -> str:
    """An entry as a subscript; nothing for a scalar's.

    Returns:
        Text such as ``[0, 2]``.
    """
    return f"[{', '.join(map(str, entry))}]" if entry else ""


def number(value: Any) -> str:
    """A number as a user writes it."""
    return f"{float(value):.6g}"


def _constraint(constraint: Constraint, depth: int) -> str:
    kind, args = type(constraint).__name__, [_words(arg, depth)[0] for arg in constraint.args]
    if kind in ("Inequality", "Equality"):
        left, right = constraint.args
        sign = "==" if kind == "Equality" else "<="
        if right.variables() and not left.variables():  # x >= 0 is kept as 0 <= x
            return f"{args[1]} {'==' if sign == '==' else '>='} {args[0]}"
        return f"{args[0]} {sign} {args[1]}"
    sign = {"Zero": "== 0", "NonNeg": ">= 0", "NonPos": "<= 0", "PSD": ">> 0"}.get(kind)
    if sign is None:
        return f"{kind}({', '.join(args)})"
    if kind == "PSD" and type(constraint.args[0]).__name__ == "AddExpression":
        left, *right = constraint.args[0].args  # A >> B is kept as A − B >> 0
        if len(right) == 1 and type(right[0]).__name__ == "NegExpression":
            other = right[0].args[0]
            if left.variables() or not other.variables():
                return f"{_words(left, depth)[0]} >> {_words(other, depth)[0]}"
            return f"{_words(other, depth)[0]} << {_words(left, depth)[0]}"
    return f"{args[0]} {sign}"


def _words(node: Any, depth: int) -> tuple[str, int]:
    """The text of an expression and how tightly its outermost operator binds."""
    kind = type(node).__name__
    if isinstance(node, cp.Constant):
        return _constant(node), ATOM
    if not getattr(node, "args", None):
        return (node.name() if hasattr(node, "name") else str(node)), ATOM
    if kind in ("Promote", "broadcast_to", "Wrap", "psd_wrap", "nonneg_wrap", "symmetric_wrap"):
        return _words(node.args[0], depth)  # what CVXPY wraps around without being asked
    if kind == "reshape" and node.size == 1:
        return _words(node.args[0], depth)
    if depth == 0:
        return "…", ATOM
    if kind == "AddExpression":
        terms = _terms(node)
        return (_sum(terms, depth), SUM) if len(terms) > 1 else _words(terms[0], depth)
    if kind == "NegExpression":
        return "-" + _inside(node.args[0], depth, UNARY), SUM
    if kind in ("MulExpression", "multiply", "DivExpression"):
        return _product(node, kind, depth)
    if kind in ("index", "special_index"):
        return f"{_inside(node.args[0], depth, ATOM)}[{_index(node)}]", ATOM
    if kind == "transpose":
        return f"{_inside(node.args[0], depth, ATOM)}.T", ATOM
    return _function(node, kind, depth), ATOM


def _inside(node: Any, depth: int, binding: int) -> str:
    text, own = _words(node, depth - 1)
    return text if own >= binding else f"({text})"


def _terms(node: Any) -> list[Any]:
    """What a sum adds, without zeros; a complex leaf, which it has as its parts (`leaf_parts`), as the user's own."""
    terms: list[Any] = []
    for arg in node.args:
        whole = getattr(terms[-1], "part_of", None) if terms else None
        if whole is not None and arg.is_imag() and _leaves_of(arg) == {whole}:
            terms[-1] = whole
        elif not (arg.is_constant() and arg.is_zero()):
            terms.append(arg)
    return terms or node.args[:1]


def _leaves_of(node: Any) -> set[Any]:
    return {getattr(leaf, "part_of", None) for leaf in (*node.variables(), *node.parameters())}


def _sum(terms: list[Any], depth: int) -> str:
    if len(terms) > SHOWN_TERMS:
        terms = [*terms[: SHOWN_TERMS - 1], None, terms[-1]]
    text = ""
    for term in terms:
        if term is None:
            text += " + …"
        elif type(term).__name__ == "NegExpression":
            text += (" - " if text else "-") + _inside(term.args[0], depth, PRODUCT)
        else:
            words = _inside(term, depth, SUM)
            text += (f" - {words[1:]}" if words.startswith("-") else f" + {words}") if text else words
    return text


def _product(node: Any, kind: str, depth: int) -> tuple[str, int]:
    left, right = node.args
    whole = getattr(right, "part_of", None)
    if whole is not None and whole.is_imag():  # an imaginary leaf, as i times its part
        return whole.name(), ATOM
    if kind == "multiply" and not (left.is_scalar() or right.is_scalar() or _promoted(left) or _promoted(right)):
        return f"multiply({_words(left, depth - 1)[0]}, {_words(right, depth - 1)[0]})", ATOM
    sign = {"MulExpression": " @ ", "multiply": " * ", "DivExpression": " / "}[kind]
    words = [
        _size(side) if kind == "MulExpression" and isinstance(side, cp.Constant) and side.ndim else text
        for side, text in ((left, _inside(left, depth, PRODUCT)), (right, _inside(right, depth, UNARY)))
    ]
    return sign.join(words), PRODUCT


def _promoted(node: Any) -> bool:
    return type(node).__name__ in ("Promote", "broadcast_to") and node.args[0].is_scalar()


def _constant(node: cp.Constant) -> str:
    if node.size <= SHOWN_ENTRIES and not node.is_complex():
        value = np.asarray(node.value.todense() if hasattr(node.value, "todense") else node.value)
        if value.ndim == 0 or (value.size and np.ptp(value) == 0.0):
            return number(value.ravel()[0])
        return "[" + ", ".join(number(entry) for entry in value.ravel()) + "]" if value.ndim == 1 else _size(node)
    if node.is_complex() and node.is_scalar():
        value = complex(np.ravel(node.value)[0])
        return f"{number(value.imag)}j" if value.real == 0.0 else f"({value:.6g})"
    if not node.is_complex():
        values = node.value.data if hasattr(node.value, "todense") else np.asarray(node.value)
        full = not hasattr(node.value, "todense") or node.value.nnz == node.size
        if values.size and full and values.min() == values.max():  # a number, broadcast by CVXPY
            return number(values.ravel()[0])
    return _size(node)


def _size(node: Any) -> str:
    shape = "×".join(map(str, node.shape))
    return f"(vector of {shape})" if node.ndim == 1 else f"({shape} {'matrix' if node.ndim == 2 else 'array'})"


def _index(node: Any) -> str:
    key = node.get_data()[-1] if type(node).__name__ == "index" else node.get_data()[0]
    parts = key if isinstance(key, tuple) else (key,)
    return ", ".join(_slice(part) for part in parts)


def _slice(part: Any) -> str:
    if not isinstance(part, slice):
        text = " ".join(str(part).split())
        return text if len(text) <= 20 else "…"
    start, stop, step = ("" if value is None else str(value) for value in (part.start, part.stop, part.step))
    return f"{start}:{stop}" + (f":{step}" if step not in ("", "1") else "")


def _function(node: Any, kind: str, depth: int) -> str:
    """A function's call: its name, its arguments, and those of its numbers that are not the default."""
    args = list(node.args)
    name, options = _NAMED.get(kind, _plain)(node)
    if kind == "quad_over_lin" and _is(args[1], 1.0):
        args, name = args[:1], "sum_squares"
    elif kind == "maximum" and len(args) == 2 and _is(args[1], 0.0):
        args, name = args[:1], "pos"
    elif kind == "Vstack" and all(type(arg).__name__ == "Hstack" for arg in args):
        blocks = ["[" + _listed(arg.args, depth - 1) + "]" for arg in args[:SHOWN_TERMS]]
        return f"bmat([{', '.join(blocks)}])"
    words = _listed(args, depth)
    return f"{name}({', '.join([f'[{words}]' if name in ('hstack', 'vstack') else words, *options])})"


def _listed(args: list[Any], depth: int) -> str:
    rest = ["…"] if len(args) > SHOWN_TERMS else []
    return ", ".join([_words(arg, depth - 1)[0] for arg in args[:SHOWN_TERMS]] + rest)


def _is(node: Any, value: float) -> bool:
    return isinstance(node, cp.Constant) and node.is_scalar() and float(node.value) == value


def _axis(node: Any) -> list[str]:
    return [] if getattr(node, "axis", None) is None else [f"axis={node.axis}"]


def _plain(node: Any) -> tuple[str, list[str]]:
    return type(node).__name__.removesuffix("Approx").removeprefix("_"), _axis(node)


def _power(node: Any) -> tuple[str, list[str]]:
    p = float(np.ravel(node.p.value)[0]) if getattr(node.p, "value", None) is not None else None
    known = {2.0: "square", 0.5: "sqrt", -1.0: "inv_pos"}
    if p in known:
        return known[p], []
    return "power", [number(p) if p is not None else _words(node.p, 2)[0]]


def _parts(node: Any) -> tuple[str, list[str]]:
    return "sum_largest", [number(node.k), *_axis(node)]


def _named(name: str, *options: str) -> Callable[[Any], tuple[str, list[str]]]:
    return lambda node: (name, [*options, *_axis(node)])


_NAMED: dict[str, Callable[[Any], tuple[str, list[str]]]] = {
    "Pnorm": lambda node: ("norm", [number(node.original_p), *_axis(node)]),
    "PnormApprox": lambda node: ("norm", [number(node.original_p), *_axis(node)]),
    "Power": _power,
    "PowerApprox": _power,
    "power": _power,
    "GeoMean": _named("geo_mean"),
    "GeoMeanApprox": _named("geo_mean"),
    "Sum": _named("sum"),
    "Prod": _named("prod"),
    "Trace": _named("trace"),
    "trace": _named("trace"),
    "Hstack": _named("hstack"),
    "Vstack": _named("vstack"),
    "Concatenate": _named("concatenate"),
    "QuadForm": _named("quad_form"),
    "SymbolicQuadForm": _named("quad_form"),
    "MatrixFrac": _named("matrix_frac"),
    "normNuc": _named("norm", '"nuc"'),
    "diag_vec": _named("diag"),
    "diag_mat": _named("diag"),
    "huber": lambda node: ("huber", [] if _is(node.M, 1.0) else [_words(node.M, 1)[0]]),
    "reshape": lambda node: ("reshape", [str(tuple(node.shape))]),
    "sum_largest": _parts,
}
