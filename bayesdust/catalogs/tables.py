"""Any table of stars on disk, read into an astropy table; what is wrong is said in one sentence.

The format is recognised from the content, never from the name. No reader used here runs code from
a file: pickles and NumPy archives are refused, and so is a VOTable that refers to another address.
"""

import csv
import gzip
import hashlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.table import Table

from bayesdust.errors import BayesdustError

FORMATS = "ECSV, FITS, Parquet, CSV, VizieR TSV, VOTable, MRT or whitespace-separated text"


@dataclass(frozen=True, eq=False)
class SourceTable:
    """A table with where it came from: `where` for messages, the digest of the file's bytes."""

    table: Table
    where: str
    sha256: str | None = None
    notes: list[str] = field(default_factory=list)


def fault(where: str, problem: str, advice: str, row: int = 0, column: str = "") -> BayesdustError:
    """One sentence: file, row and column (where they apply; rows count from 1), problem, advice."""
    place = [f"row {row}"] if row else []
    place += [f"column{'s' * (' and ' in column)} {column}"] if column else []
    spot = f"{', '.join(place)}: " if place else ""
    return BayesdustError(f"{where}: {spot}{problem}; {advice}.")


def read_table(source: str | Path | Table) -> SourceTable:
    """The table in a file, or the astropy table given, with its digest and notes on the reading.

    Formats: ECSV, FITS (first table), Parquet, CSV (comma, semicolon, tab or | between fields),
    VizieR's tab-separated output, VOTable, machine-readable tables of the AAS and CDS, and text
    with a header line and blanks between fields; each also compressed with gzip. Raises
    BayesdustError for a file that is missing, empty, truncated or no table.
    """
    if isinstance(source, Table):
        return _checked(SourceTable(source, "<table>"))
    where = str(source)
    content = read_bytes(where)
    digest = hashlib.sha256(content).hexdigest()
    if content.startswith(b"\x1f\x8b"):
        content = _guarded(_unzip, content, where, "gzip file")[0]
    kind, reader = _recognise(content, where)
    table, notes = _guarded(reader, content, where, kind)
    if kind in ("ECSV table", "text table") and not content.endswith((b"\n", b"\r")):
        # cut inside its last cell, a number is still a number
        problem = "the last line does not end, so its last cell may be cut off"
        advice = "write or download the file again, or end the line if it is whole"
        raise fault(where, problem, advice, row=len(table))
    return _checked(SourceTable(table, where, digest, notes))


def digest(*arrays: np.ndarray | None) -> str:
    """SHA-256 of numbers given as a table, independent of the machine."""
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(b"none" if array is None else array.astype("<f8").tobytes())
    return hasher.hexdigest()


def rounded_digest(*arrays: np.ndarray | None) -> str:
    """As `digest`, of numbers in single precision: the last digits of an angle hang on the processor."""
    return digest(*(None if array is None else array.astype(np.float32) for array in arrays))


def _checked(source: SourceTable) -> SourceTable:
    if len(source.table) == 0:
        raise fault(source.where, "the table has no rows", "give a table with one row a star")
    _check_names(source.table.colnames, source.where)
    return source


def read_bytes(where: str) -> bytes:
    """The bytes of a file that is there and not empty; BayesdustError otherwise."""
    try:
        path = Path(where).expanduser()
        if path.is_dir():
            raise fault(where, "is a directory", "give the path of a file")
        content = path.read_bytes()
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise fault(where, f"cannot be read ({why})", "check the path") from error
    except BayesdustError:
        raise
    except ValueError as error:
        raise fault(where, "is not the name of a file", "check the path") from error
    if not content.strip():
        raise fault(where, "the file is empty", "give a table with one row a star")
    return content


def _guarded(reader: Callable, content: bytes, where: str, kind: str) -> tuple:
    """What `reader` makes of the content, and its warnings; any other failure as a BayesdustError.

    astropy, pyarrow and expat raise dozens of kinds of exception for damaged files, so all are
    caught; the original stays attached as the cause.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = reader(content, where)
        except BayesdustError:
            raise
        except Exception as error:
            if "name already used" in str(error):
                raise fault(where, "two columns share a name", "rename one") from error
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise fault(
                where, f"is not a complete {kind} ({reason})", "write or download it again"
            ) from error
    messages = [" ".join(str(w.message).split()) for w in caught]
    if any("truncated" in m for m in messages):
        raise fault(where, f"is a truncated {kind}", "write or download it again")
    return result, [f"{where}: {m}" for m in messages if "multiple tables" in m]


def _recognise(content: bytes, where: str) -> tuple[str, Callable[[bytes, str], Table]]:
    head = content[:65536]
    if content.startswith(b"SIMPLE  ="):
        return "FITS table", _read_fits
    if content.startswith(b"PAR1"):
        return "Parquet table", _read_parquet
    if re.search(rb"[\x00-\x08\x0e-\x1f]", head):
        raise fault(where, "is a binary file of an unknown kind", f"give a table as {FORMATS}")
    if content.lstrip().startswith(b"<"):
        return "VOTable", _read_votable
    if content.startswith(b"# %ECSV"):
        return "ECSV table", _read_ecsv
    if b"Byte-by-byte Description" in head:
        return "machine-readable table", _read_mrt
    return "text table", _read_text


def _unzip(content: bytes, where: str) -> bytes:
    return gzip.decompress(content)


def _read_fits(content: bytes, where: str) -> Table:
    return Table.read(io.BytesIO(content), format="fits", memmap=False)


def _read_mrt(content: bytes, where: str) -> Table:
    return Table.read(_decode(content, where), format="ascii.mrt")


def _read_votable(content: bytes, where: str) -> Table:
    if re.search(rb"<STREAM[^>]*href|<!ENTITY|<!DOCTYPE", content, re.IGNORECASE):
        raise fault(where, "refers to another file", "save its data inside the VOTable")
    return Table.read(io.BytesIO(content), format="votable")


def _read_parquet(content: bytes, where: str) -> Table:
    """A Parquet table; one that astropy wrote keeps its units and masks."""
    import pyarrow.parquet as pq

    arrow = pq.read_table(io.BytesIO(content))
    _check_names(arrow.column_names, where)
    if b"table_meta_yaml" in (arrow.schema.metadata or {}):
        return Table.read(io.BytesIO(content), format="parquet")
    columns = {}
    for name, column in zip(arrow.column_names, arrow.columns, strict=True):
        kind = str(column.type)
        if re.match(r"u?int|float|double|halffloat|bool|decimal|null", kind):
            columns[name] = column.cast("float64", safe=False).to_numpy()  # null becomes NaN
        elif kind in ("string", "large_string", "string_view"):
            columns[name] = np.array(["" if v is None else v for v in column.to_pylist()])
    return Table(columns)  # nested columns and times are left out: none of ours is one


# Text


def _decode(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:  # older catalogues carry names of authors in Latin-1
        return content.decode("latin-1")


def _read_ecsv(content: bytes, where: str) -> Table:
    text = _decode(content, where)
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    comma = re.search(r"""^# delimiter: ['"],['"]""", text, re.MULTILINE)
    plain = _delimited(lines, "," if comma else " ", where)
    _check_names(plain.colnames, where)  # astropy would rename a repeated column
    try:
        return Table.read(text, format="ascii.ecsv")
    except ValueError as error:
        if match := re.match(r"column '(.*)' failed to convert", str(error)):
            column = match[1]
            for row, cell in enumerate(plain[column], start=1):
                parse_number(cell, where, row, column)
        raise


def _read_text(content: bytes, where: str) -> Table:
    lines = [line for line in _decode(content, where).splitlines() if line.strip()]
    data = [line for line in lines if not line.startswith("#")]
    if data and _all_numbers(data[0]) and lines[0].startswith("#"):
        header = lines[lines.index(data[0]) - 1]  # a last comment line may name the columns
        names, fields = header.lstrip("# "), re.split(r"[,;|\s]+", data[0].strip())
        if len(re.split(r"[,;|\s]+", names.strip())) == len(fields):
            data.insert(0, names)
    if not data:
        raise fault(where, "holds only comments", "give a table with one row a star")
    if _all_numbers(data[0]):
        # no names: astropy's col1, col2, ... which the user can map
        delimiter = _delimiter(data[0])
        count = len([c for c in re.split(r"[,;|\s]+", data[0].strip()) if c])
        names = delimiter.join(f"col{i}" for i in range(1, count + 1))
        return _delimited([names, *data], delimiter, where)
    if rule := next((i for i, line in enumerate(data[1:4], 1) if _is_rule(line)), 0):
        return _vizier(data, rule, where)
    return _delimited(data, _delimiter(data[0]), where)


def _delimiter(line: str) -> str:
    """What parts the cells of a line: the first of comma, tab, semicolon, bar, else white space."""
    return next((d for d in (",", "\t", ";", "|") if d in line), " ")


def _all_numbers(line: str) -> bool:
    cells = [c for c in re.split(r"[,;|\s]+", line.strip()) if c]
    return bool(cells) and all(re.fullmatch(r"[-+.\deE]+|nan", c, re.IGNORECASE) for c in cells)


def _is_rule(line: str) -> bool:
    return bool(re.fullmatch(r"[-\s]*-[-\s]*", line))


def _vizier(data: list[str], rule: int, where: str) -> Table:
    """VizieR's layout: names, perhaps units, a line of dashes, then rows; tabs between fields."""
    if any(_is_rule(line) for line in data[rule + 1 :]):
        raise fault(where, "holds more than one table", "keep the one with the velocities")
    delimiter = "\t" if "\t" in data[0] else ";" if ";" in data[0] else " "
    table = _delimited([data[0], *data[rule + 1 :]], delimiter, where)
    if rule == 2 and delimiter != " ":
        units = (unit.strip() for unit in data[1].split(delimiter))
        for name, unit in zip(table.colnames, units, strict=False):
            table[name].unit = unit or None
    return table


def _delimited(lines: list[str], delimiter: str, where: str) -> Table:
    """Header and rows as columns of text; a row of another length raises BayesdustError."""
    if delimiter == " ":
        lines = [line.replace("\t", " ").strip() for line in lines]
    if delimiter == "\t":  # VizieR quotes nothing, and writes " for arcsec
        parser = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE, skipinitialspace=True)
    else:
        parser = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    rows = [[cell.strip() for cell in row] for row in parser if row]
    if len(rows) < 2:
        raise fault(where, "the table has no rows", "give a table with one row a star")
    names, width = rows[0], len(rows[0])
    if width == 1:
        raise fault(where, f"has one column, {names[0][:40]!r}", f"give a table as {FORMATS}")
    _check_names(names, where)
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != width:
            problem = f"has {len(row)} fields where the header has {width}"
            advice = "the file may be truncated" if number == len(rows) - 1 else "correct the row"
            raise fault(where, problem, advice, row=number)
    return Table([list(cells) for cells in zip(*rows[1:], strict=True)], names=names)


def _check_names(names: list[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise fault(where, "a column has no name", "name every column")
        if name.casefold() in seen:
            first = seen[name.casefold()]
            pair = f"{first} twice" if name == first else f"both {first} and {name}"
            raise fault(where, f"has {pair} among its columns", "rename one")
        seen[name.casefold()] = name


MISSING = ("", "-", "--", "null", "none", "n/a", "na")


def is_missing(cell: object) -> bool:
    """Whether a cell of text says that there is no value."""
    return _as_text(cell).strip().casefold() in MISSING


def _as_text(cell: object) -> str:
    return cell.decode("latin-1") if isinstance(cell, bytes) else str(cell)


def parse_number(cell: object, where: str, row: int, column: str) -> float:
    """The number in one cell; raises BayesdustError where there is none."""
    text = _as_text(cell)
    if is_missing(cell):
        raise fault(where, "the value is missing", "fill it in or remove the row", row, column)
    try:
        return float(text)
    except ValueError as error:
        problem = f"{text.strip()[:40]!r} is not a number"
        raise fault(where, problem, "correct it or remove the row", row, column) from error
