"""Constraints over parameters: arithmetic and comparisons in Python's syntax, and nothing else.

A constraint that names a parameter which the arm does not have says nothing about that arm.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from raymae.errors import shorten
from raymae.spec.space import Scalar

MAX_LENGTH = 300

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}
_UNARY: dict[type[ast.AST], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.Not: operator.not_}


class Constraint:
    """A parsed constraint.

    Args:
        text: Such as `lookback >= 8 * patch_size` or `arm == \'mae\' or encoder_depth <= 4`.

    Raises:
        ValueError: It does not parse, or holds anything but names, numbers, text, lists, arithmetic, comparisons and
            `and`, `or`, `not`.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ValueError(f"a constraint is at most {MAX_LENGTH} characters long")
        self.text = text
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise ValueError(f"{text!r} is not an expression: {error}") from None
        self.names = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)}
        allowed = (ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.BoolOp, ast.And, ast.Or, ast.BinOp,
                   ast.UnaryOp, ast.Compare, *_BINARY, *_UNARY)
        for node in ast.walk(self._tree):
            if not isinstance(node, allowed):
                raise ValueError(f"{text!r} holds {type(node).__name__}; allowed are names, numbers, text, lists, "
                                 "arithmetic, comparisons, and, or, not")

    def __eq__(self, other: object) -> bool:
        """Whether the other is the same text."""
        return isinstance(other, Constraint) and self.text == other.text

    def __hash__(self) -> int:
        """By its text."""
        return hash(self.text)

    def holds(self, values: Mapping[str, Scalar]) -> bool:
        """Whether the constraint holds; it does where a parameter it names does not exist.

        Raises:
            ValueError: It cannot be computed for these values, such as a division by zero.
        """
        if not self.names <= values.keys():
            return True
        try:
            return bool(_value(self._tree, values))
        except (TypeError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(f"{self.text!r} cannot be computed: {error}") from None


def _value(node: ast.AST, values: Mapping[str, Scalar]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return values[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, values) for item in items]
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, values) for part in parts)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, values))
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _value(left, values), _value(right, values)
            for operand in (a, b):
                if not isinstance(operand, (bool, int, float)):  # 'a' * 999999999999 and '%9999999d' % 1 fill memory
                    raise TypeError(f"arithmetic is for numbers, got {shorten(operand)}")
            return _BINARY[type(op)](a, b)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            found = _value(left, values)
            for compare, comparator in zip(ops, comparators, strict=True):
                other = _value(comparator, values)
                if not _BINARY[type(compare)](found, other):
                    return False
                found = other
            return True
    raise AssertionError(f"{type(node).__name__} passed the check")
