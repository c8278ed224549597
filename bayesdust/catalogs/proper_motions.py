"""Proper motions of a dwarf galaxy's stars, as a table has them: both components, errors, correlation.

They count only where a model asks for them. A table whose columns cannot be used is still good for its
line-of-sight velocities, so what is wrong is kept as a sentence and said when they are asked for; but at
once where the user named one of the columns.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from bayesdust.catalogs.columns import ColumnReader
from bayesdust.catalogs.tables import fault
from bayesdust.errors import BayesdustError

Numbers = Float[np.ndarray, " n"]

COMPONENTS = ("pmra", "pmdec")
ERRORS = ("pmra_err", "pmdec_err")
CORRELATION = "pm_corr"
LARGEST = 1000.0  # mas/yr: from there on it is a placeholder such as -9999
LARGEST_ERROR = 20.0  # mas/yr, the median; Gaia's faintest stars have 2
SMALLEST_ERROR = 1e-4  # mas/yr, the median; no telescope does better on faint stars


@dataclass(frozen=True, eq=False)
class ProperMotions:
    """Proper motions of n stars; NaN throughout for a star that has none.

    Attributes
    ----------
    value : (n, 2) mas/yr, to the east (with the factor cos(dec)) and to the north
    covariance : (n, 2, 2) (mas/yr)^2, of the errors
    fault : why the table's columns cannot be used, or None; then every value is NaN
    """

    value: Float[np.ndarray, "n 2"]
    covariance: Float[np.ndarray, "n 2 2"]
    fault: str | None = None

    def __post_init__(self) -> None:
        self.value.flags.writeable = False
        self.covariance.flags.writeable = False

    @property
    def known(self) -> np.ndarray:
        """Which stars have one, (n,) of bool."""
        return np.isfinite(self.value).all(axis=1)


def read_proper_motions(reader: ColumnReader, n: int) -> ProperMotions | None:
    """The proper motions of a table's `n` stars; None where it has no such column.

    Columns `pmra`, `pmdec`, `pmra_err`, `pmdec_err`, in mas/yr where they state no unit, and perhaps
    `pm_corr`, the correlation of the two errors. A star without one has a blank, a masked value or NaN in
    both components.

    Raises BayesdustError where the user named one of the columns, or its unit, and they cannot be used.
    """
    names = (*COMPONENTS, *ERRORS, CORRELATION)
    named = {*reader.columns, *reader.units} & set(names)
    try:
        if not named and not any(reader.find(name) for name in COMPONENTS):
            return None
        return _read(reader)
    except BayesdustError as error:
        if named:
            raise
        nothing = np.full((n, 2), np.nan), np.full((n, 2, 2), np.nan)
        return ProperMotions(*nothing, fault=str(error))


def _read(reader: ColumnReader) -> ProperMotions:
    # units of columns that may not be used are not among those of the fit
    reader = dataclasses.replace(reader, used={})
    where = reader.source.where
    if missing := [name for name in (*COMPONENTS, *ERRORS) if reader.find(name) is None]:
        problem = f"has proper motions but no column for {' and '.join(missing)}"
        raise fault(where, problem, f"name it, as columns={{{missing[0]!r}: 'NAME'}}")
    columns = {name: reader.find(name) or name for name in (*COMPONENTS, *ERRORS, CORRELATION)}
    value = [reader.read(name, gaps=True)[0] for name in COMPONENTS]
    errors = [reader.read(name, gaps=True)[0] for name in ERRORS]
    known = _known(where, columns, *value)
    for name, array in zip(COMPONENTS, value, strict=True):
        _check_values(where, columns[name], array, known)
    for name, array in zip(ERRORS, errors, strict=True):
        _check_errors(where, name, columns[name], array, known)
    correlation = np.zeros(len(known))
    if reader.find(CORRELATION):
        correlation = reader.read(CORRELATION, gaps=True)[0]
        wrong = known & ~(abs(correlation) < 1)
        _refuse(where, columns[CORRELATION], wrong, correlation, "is no correlation of two errors")
    mixed = correlation * errors[0] * errors[1]
    covariance = np.array([[errors[0] ** 2, mixed], [mixed, errors[1] ** 2]]).transpose(2, 0, 1)
    covariance[~known] = np.nan
    return ProperMotions(np.where(known[:, None], np.stack(value, axis=1), np.nan), covariance)


def _known(where: str, columns: dict[str, str], east: Numbers, north: Numbers) -> np.ndarray:
    """Stars with both components; one alone is an error, and so is none in the whole table."""
    for name, other, have, lack in (
        ("pmra", "pmdec", east, north),
        ("pmdec", "pmra", north, east),
    ):
        half = np.isfinite(have) & np.isnan(lack)
        if half.any():
            problem = f"the value is missing where there is one in {columns[name]}"
            advice = "give both components, or leave both blank"
            raise fault(where, problem, advice, int(np.argmax(half)) + 1, columns[other])
    known = np.isfinite(east)
    if not known.any():
        raise fault(where, "no star has a proper motion", "fill it in", 0, columns["pmra"])
    return known


def _check_values(where: str, column: str, values: Numbers, known: np.ndarray) -> None:
    wrong = known & (abs(values) >= LARGEST)
    _refuse(where, column, wrong, values, "mas/yr is no star's proper motion", "blank it")


def _check_errors(where: str, name: str, column: str, errors: Numbers, known: np.ndarray) -> None:
    """Errors are there, positive and of a size that is possible."""
    absent = known & np.isnan(errors)
    if absent.any():
        problem = "the error is missing where there is a proper motion"
        advice = "give it, or leave both components blank"
        raise fault(where, problem, advice, int(np.argmax(absent)) + 1, column)
    _refuse(where, column, known & (errors <= 0), errors, "is not positive, as an error must be")
    middle = float(np.median(errors[known]))
    if not SMALLEST_ERROR <= middle <= LARGEST_ERROR:
        problem = f"the median error of the proper motions is {middle:.3g} mas/yr"
        guess = "arcsec/yr" if middle < SMALLEST_ERROR else "uas/yr"
        advice = f"state the unit if it is not mas/yr, as units={{{name!r}: {guess!r}}}"
        raise fault(where, problem, advice, 0, column)


def _refuse(
    where: str,
    column: str,
    wrong: np.ndarray,
    values: Numbers,
    problem: str,
    advice: str = "correct it, or leave both components blank",
) -> None:
    if wrong.any():
        row = int(np.argmax(wrong)) + 1
        raise fault(where, f"{values[row - 1]:g} {problem}", advice, row, column)
