"""Metric names in PromQL, by a parser that knows the language."""

from __future__ import annotations

from typing import Any

import promql_parser


def metric_names(expr: str) -> set[str]:
    """An expression that cannot be read is a ValueError."""
    found: set[str] = set()
    _walk(promql_parser.parse(expr), found)
    return found


def _walk(node: Any, found: set[str]) -> None:
    match type(node).__name__:
        case "VectorSelector":
            found.add(node.name)
        case "MatrixSelector":
            _walk(node.vector_selector, found)
        case "Call":
            for argument in node.args:
                _walk(argument, found)
        case "BinaryExpr":
            _walk(node.lhs, found)
            _walk(node.rhs, found)
        case "AggregateExpr" | "SubqueryExpr" | "ParenExpr" | "UnaryExpr":
            _walk(node.expr, found)
        case "NumberLiteral" | "StringLiteral":
            pass
        case other:
            raise ValueError(f"no rule for {other}")
