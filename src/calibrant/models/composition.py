"""A model made of independent factors: their log characteristic functions add up, and their parameters follow one
another. What a fit of such a model starts from, nested models included, follows from the factors as well.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from ..arrays import ComplexMatrix, ComplexVector, Vector
from .factor import Factor, LogCharacteristic
from .model import Model


def compose(name: str, factors: Sequence[Factor], *, cost: float, objective_ms: float) -> Model:
    """The model of these factors; of several of one kind the parameters are numbered: kappa1, ..., kappa2, ...

    cost          processor time of a calibration relative to Heston's, over the panels of a market
    objective_ms  within which a desk expects its refined answer, in milliseconds of compute
    """
    parts = tuple(factors)
    ends = np.cumsum([0, *(len(factor.parameters) for factor in parts)]).tolist()
    slices = [slice(first, last) for first, last in itertools.pairwise(ends)]

    def log_characteristic(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
        total = parts[0].log_characteristic(u, expiry, params[slices[0]])
        for factor, own in zip(parts[1:], slices[1:], strict=True):
            total = total + factor.log_characteristic(u, expiry, params[own])
        return total

    def log_characteristic_gradient(
        u: ComplexVector, expiry: float, params: Vector
    ) -> tuple[ComplexVector, ComplexMatrix]:
        pieces = [
            factor.log_characteristic_gradient(u, expiry, params[own])
            for factor, own in zip(parts, slices, strict=True)
        ]
        total = pieces[0][0]
        for more, _ in pieces[1:]:
            total = total + more
        return total, np.concatenate([gradient for _, gradient in pieces])

    def expected_variance(expiry: float, params: Vector) -> float:
        return sum(f.expected_variance(expiry, params[own]) for f, own in zip(parts, slices, strict=True))

    def feller_ratio(params: Vector) -> float:
        ratios = [f.feller_ratio(params[own]) for f, own in zip(parts, slices, strict=True) if f.feller_ratio]
        return min(ratios)

    def log_term_of(factor: Factor, own: slice) -> LogCharacteristic | None:
        term = factor.log_term
        return None if term is None else lambda u, expiry, params: term(u, expiry, params[own])

    terms = [log_term_of(factor, own) for factor, own in zip(parts, slices, strict=True)]
    alone = len(parts) == 1
    return Model(
        name=name,
        factors=parts,
        parameters=_names(parts),
        lower=np.concatenate([factor.lower for factor in parts]),
        upper=np.concatenate([factor.upper for factor in parts]),
        log_characteristic=parts[0].log_characteristic if alone else log_characteristic,
        log_characteristic_gradient=parts[0].log_characteristic_gradient if alone else log_characteristic_gradient,
        expected_variance=parts[0].expected_variance if alone else expected_variance,
        feller_ratio=feller_ratio,
        log_terms=tuple(term for term in terms if term),
        cost=cost,
        objective_ms=objective_ms,
    )


def _names(factors: Sequence[Factor]) -> tuple[str, ...]:
    names = []
    for i, factor in enumerate(factors):
        alike = [j for j, other in enumerate(factors) if other.kind == factor.kind]
        number = "" if len(alike) == 1 else str(alike.index(i) + 1)
        names += [name + number for name in factor.parameters]
    return tuple(names)
