"""Every reduction of the table, a formula for each form: (reduction, formula, options)."""

from __future__ import annotations

from typing import Any

# Of x = Vi(d), y = Vj(d), b = Vj(1), p = Pm(1).
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("Sum", "Exp(-p*SqDist(x,y))*b", {}),
    ("Sum", "Exp(-p*SqDist(x,y))*b", {"sum_scheme": "kahan_scheme"}),
    ("Sum", "x*b", {}),
    ("Mean", "x-p*y", {}),
    ("Count", "Step(x-y)", {}),
    ("Prod", "SqDist(x,y)/4", {}),
    ("Any", "Step(x-y-1)", {}),
    ("All", "Step(x-y+3)", {}),
    ("Min", "SqDist(x,y)", {}),
    ("Max", "x-y", {}),
    ("ArgMin", "SqDist(x,y)", {}),
    ("ArgMax", "x-y", {}),
    ("Min_ArgMin", "x-y", {}),
    ("Max_ArgMax", "SqDist(x,y)", {}),
    ("KMin", "SqDist(x,y)", {"opt_arg": 3}),
    ("ArgKMin", "x-y", {"opt_arg": 3}),
    ("KMin_ArgKMin", "SqDist(x,y)", {"opt_arg": 9}),
    ("LogSumExp", "p*SqDist(x,y)*b", {}),
    ("LogSumExp", "x-y", {}),
    ("LogSumExp", "SqDist(x,y)", {"formula2": "Square(y)+1"}),
    ("SumSoftMaxWeight", "-SqDist(x,y)", {"formula2": "y"}),
    ("Max_SumShiftExp", "SqDist(x,y)", {}),
    ("Max_SumShiftExpWeight", "SqDist(x,y)", {"formula2": "y"}),
]
