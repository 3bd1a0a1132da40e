"""What the judgement of a point takes from the program alone, made once where it does not depend on θ."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from typing import Any

from cvxift.kkt.equilibration import Equilibration
from cvxift.kkt.instance import Layout
from cvxift.program.program import Program

KEPT_JUDGEMENTS = 256  # active sets of a program whose judgement is kept

_of: weakref.WeakKeyDictionary[Program, Constants] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Constants:
    """Constants of a program.

    Args:
        program: the program.

    Attributes:
        layout: the sparse layout of its instances.
        equilibration: finds their units.
        fixed: whether P and A do not depend on θ.
        store: values that hold for every θ where `fixed` is true, by name.
    """

    def __init__(self, program: Program) -> None:
        self.layout, self.equilibration = Layout(program.structure, False), Equilibration(program.structure)
        self.maps = {name: matrix for name, (matrix, _) in program.affine().items()}
        self.fixed = not self.maps["P"].nnz and not self.maps["A"].nnz
        self.store: dict[str, Any] = {}
        self._judged: OrderedDict[bytes, Any] = OrderedDict()

    @classmethod
    def of(cls, program: Program) -> Constants:
        """The constants of a program; kept as long as it."""
        with _lock:
            if program not in _of:
                _of[program] = cls(program)
            return _of[program]

    def once(self, name: str, make: Any) -> Any:
        """A value that depends on P and A alone: made once where they are fixed."""
        if not self.fixed:
            return make()
        if name not in self.store:
            self.store[name] = make()
        return self.store[name]

    def judged(self, key: bytes | None, make: Any) -> Any:
        """A judgement that depends on an active set alone; the last ones are kept.

        Args:
            key: names the active set; None where the judgement depends on more.
            make: makes it.
        """
        if key is None or not self.fixed:
            return make()
        with _lock:
            if key in self._judged:
                self._judged.move_to_end(key)
                return self._judged[key]
        value = make()
        with _lock:
            self._judged[key] = value
            if len(self._judged) > KEPT_JUDGEMENTS:
                self._judged.popitem(last=False)
        return value
