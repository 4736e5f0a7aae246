"""Text files of cells: encoding, separator and decimal sign are found out over the whole file, or given.

Nothing is guessed: where a file can be read in two ways, an error names both and the key that decides.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from raymae.errors import DataError
from raymae.spec.sweep import Reading

if TYPE_CHECKING:
    import pyarrow as pa

Decimal = Literal[".", ","]
SEPARATORS = {",": "`,`", ";": "`;`", "\t": "tabs", "|": "`|`"}
MISSING = frozenset((  # pandas' words for a missing cell, and those of other tools
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null", "?", "-", "--", ".", "NaT", "#VALUE!", "#DIV/0!", "#REF!", "#NULL!",
    "#NUM!",
))
SNIFFED_ROWS = 200  # of which the separator is told; a later row of another length is an error
# numbers whose decimal sign is beyond doubt, and those that are a thousand times larger with the other one
SURE = {",": r"^[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+([eE][+-]?\d+)?$",
        ".": r"^[+-]?(\d*|\d{1,3}(,\d{3})+)\.\d+([eE][+-]?\d+)?$"}
EITHER = {",": r"^[+-]?\d{1,3}(,\d{3})+$", ".": r"^[+-]?\d{1,3}(\.\d{3})+$"}
GROUPED = {",": r"^[+-]?\d{1,3}(\.\d{3})+(,\d+)?$", ".": r"^[+-]?\d{1,3}(,\d{3})+(\.\d+)?$"}


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a file as they are written, without blanks around them.

    Attributes:
        path: The file.
        names: Of the columns, as the header has them; "" where one has none.
        columns: Text of every column.
        separator: Between cells.
        decimal: In numbers.
        notes: What a person should know of how it was read.
        text: The file, decoded.
        first: Line of the header, counted from 1.
    """

    path: Path
    names: tuple[str, ...]
    columns: tuple[pa.Array, ...]
    separator: str
    decimal: Decimal
    notes: tuple[str, ...]
    text: str
    first: int

    def line_of(self, row: int) -> int:
        """The line of a row of cells, counted from 1; rows below the header are counted from 0."""
        return next(line for index, (line, _) in enumerate(_rows(self.text, self.separator, self.first))
                    if index == row + 1)


def read_cells(path: Path, reading: Reading, what: str) -> Cells:
    """Read a text file with a header line; `.gz`, `.bz2`, `.xz` and `.zip` are unpacked.

    Parquet is read as the text that it would be, with its first row on line 2.

    Args:
        path: The file.
        reading: What is given of how it is written.
        what: The kind of content, for messages: `series` or `table`.

    Raises:
        DataError: It cannot be read, in one way only; names file and line, and the key that decides.
    """
    if path.suffix.lower() in (".parquet", ".pq"):
        reading = reading.model_copy(update={"separator": ",", "decimal": "."})
        text = _stored(path, what)
    else:
        text = _decoded(path, _raw(path, what), reading.encoding, what)
    first, notes = _below_comments(text)
    head = [cells for _, cells in islice(_rows(text, ",", first), 1)]
    if not head:
        raise DataError(f"{path} is empty; a {what} needs a header line and at least one row")
    separator = reading.separator or _separator(path, text, first)
    if separator == " ":
        text = "\n".join("\t".join(line.split()) for line in text.splitlines())
        separator = "\t"
    elif separator != ",":
        notes.append(f"cells separated by {SEPARATORS.get(separator, repr(separator))}")
    line, header = next(_rows(text, separator, first))
    columns = _columns(path, text, separator, first, line, header)
    decimal: Decimal = reading.decimal or _decimal(path, header, columns)
    if decimal == ",":
        notes.append("decimal comma")
    names = tuple(name.strip() for name in header)
    return Cells(path, names, tuple(columns), separator, decimal, tuple(notes), text, first)


def _raw(path: Path, what: str) -> bytes:
    from pandas.io.common import get_handle  # type: ignore[import-not-found,import-untyped,unused-ignore]

    try:
        with get_handle(path, "rb", compression="infer", is_text=False) as opened:
            raw: bytes = opened.handle.read()
    except FileNotFoundError:
        raise DataError(f"cannot read the {what} {path}: no such file") from None
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"cannot read the {what} {path}: {reason}") from None
    return raw


def _stored(path: Path, what: str) -> str:
    import pyarrow as pa
    from pyarrow import csv as pa_csv
    from pyarrow import parquet

    sink = io.BytesIO()
    try:
        table = parquet.read_table(path)
        for place, column in enumerate(table.schema):
            if pa.types.is_dictionary(column.type):
                table = table.set_column(place, column.name, table.column(place).cast(column.type.value_type))
        numbered = [name for name in table.column_names if name.startswith("__index_level_")
                    and pa.types.is_integer(table.schema.field(name).type)]
        pa_csv.write_csv(table.drop_columns(numbered), sink)  # saved row numbers are no column
    except FileNotFoundError:
        raise DataError(f"cannot read the {what} {path}: no such file") from None
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from None
    return sink.getvalue().decode()


def _decoded(path: Path, raw: bytes, encoding: str | None, what: str) -> str:
    if not raw.strip(b"\xef\xbb\xbf \t\r\n"):
        raise DataError(f"{path} is empty; a {what} needs a header line and at least two rows")
    if encoding is None and raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"  # says so itself
    try:
        text = raw.decode(encoding or "utf-8-sig").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        if encoding is not None:
            raise DataError(f"{path}:{line}: is not {encoding}, which data.encoding says: {error.reason} at byte "
                            f"{error.start}") from None
        raise DataError(f"{path}:{line}: must be UTF-8 text: {error.reason} at byte {error.start}; if it is text, set "
                        "data.encoding, such as cp1252 or latin-1 (Western Europe)") from None
    except UnicodeError as error:  # of encodings that have more rules than bytes, such as utf-16 with its first mark
        raise DataError(f"{path}: is not {encoding}, which data.encoding says: {error}") from None
    if "\0" in text:
        raise DataError(f"{path} must be a text file, it holds zero bytes; is it compressed or UTF-16?")
    return text


def _below_comments(text: str) -> tuple[int, list[str]]:
    """The line of the header, counted from 1, below lines that begin with #, and what is to be said of those."""
    lines = text.splitlines()
    count = next((index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")), 0)
    above = [index for index in range(count) if lines[index].startswith("#")]
    if not above:
        return 1, []
    last, row = lines[above[-1]], lines[count]
    if any(separator in last and last.count(separator) == row.count(separator) for separator in SEPARATORS):
        count = above.pop()  # the header itself begins with #
    lines_of = "a line of comment" if len(above) == 1 else f"{len(above)} lines of comment"
    return count + 1, [f"{lines_of} above the header left out"] if above else []


def _rows(text: str, separator: str, first: int) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, the header included, with the number of the line it ends on."""
    lines = io.StringIO(text, newline="")
    for _ in range(first - 1):
        lines.readline()
    reader = csv.reader(lines, delimiter=separator)
    return ((first - 1 + reader.line_num, cells) for cells in reader if cells and (len(cells) > 1 or cells[0].strip()))


def _separator(path: Path, text: str, first: int) -> str:
    """The one sign that cuts header and rows into equally many cells; else the one that the header has most of."""
    widths = {}
    for sign in SEPARATORS:
        try:
            widths[sign] = [len(cells) for _, cells in islice(_rows(text, sign, first), SNIFFED_ROWS)]
        except csv.Error:
            widths[sign] = [1]
    even = [sign for sign, counts in widths.items() if counts[0] > 1 and len(set(counts)) == 1]
    if len(even) > 1:
        raise DataError(f"{path} can be read in two ways, with cells separated by {SEPARATORS[even[0]]} or by "
                        f"{SEPARATORS[even[1]]}; set data.separator")
    if even:
        return even[0]
    return max(SEPARATORS, key=lambda sign: widths[sign][0])  # rows of other lengths are an error that names the first


def _columns(path: Path, text: str, separator: str, first: int, line: int, header: list[str]) -> list[pa.Array]:
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as pa_csv

    if len(header) == 1:  # pyarrow takes an empty cell for a blank line
        cells = [row for _, row in _rows(text, separator, first)][1:]
        if any(len(row) > 1 for row in cells):
            _explain(path, text, separator, first, 1, "")
        return [pc.utf8_trim_whitespace(pa.array([row[0] for row in cells], pa.string()))]
    names = [str(index) for index in range(len(header))]
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(text.encode()),
            # trials are many, cores are few
            read_options=pa_csv.ReadOptions(use_threads=False, skip_rows=line, column_names=names, block_size=1 << 22),
            parse_options=pa_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
    except pa.ArrowInvalid as error:
        _explain(path, text, separator, first, len(header), str(error))
    return [pc.utf8_trim_whitespace(column.combine_chunks()) for column in table.columns]


def _explain(path: Path, text: str, separator: str, first: int, width: int, reason: str) -> NoReturn:
    """Find the row that pyarrow could not read, and say its line."""
    for line, cells in list(_rows(text, separator, first))[1:]:
        if len(cells) != width:
            raise DataError(f"{path}:{line}: has {len(cells)} cells, the header has {width}"
                            + ("; is there a title above it?" if width == 1 else ""))
    raise DataError(f"{path} cannot be read as CSV: {' '.join(reason.split())[:300]}")


def _decimal(path: Path, header: list[str], columns: list[pa.Array]) -> Decimal:
    """The sign that every number of the file has: of columns that hold nothing but numbers."""
    import pyarrow.compute as pc

    sure: dict[str, str] = {}
    doubtful = ""
    for name, column in zip(header, columns, strict=True):
        cells = column.drop_null() if column.null_count else column
        cells = cells.filter(pc.invert(pc.is_in(cells, value_set=_words(MISSING))))
        signs = pc.any(pc.match_substring_regex(cells, r"[.,]")).as_py()
        if not signs or not pc.all(pc.match_substring_regex(cells, r"^[+-]?[\d.,]+([eE][+-]?\d+)?$")).as_py():
            continue
        for sign in (",", "."):
            either = pc.match_substring_regex(cells, EITHER[sign])
            known = cells.filter(pc.and_not(pc.match_substring_regex(cells, SURE[sign]), either))
            if len(known):
                sure.setdefault(sign, f"{known[0].as_py()} in column {name!r}")
            elif sign == "," and pc.any(either).as_py():
                doubtful = doubtful or f"{cells.filter(either)[0].as_py()!r} in column {name!r}"
    if len(sure) > 1:
        raise DataError(f"{path} has numbers with a decimal comma ({sure[',']}) and with a decimal point "
                        f"({sure['.']}); set data.decimal")
    if doubtful and not sure:
        raise DataError(f"{path}: {doubtful} has a decimal comma or separates thousands; set data.decimal to `,` or "
                        "`.`")
    return "," if "," in sure else "."


def _words(words: frozenset[str] | set[str]) -> pa.Array:
    import pyarrow as pa

    return pa.array(sorted(words), pa.string())


def missing_words(reading: Reading) -> frozenset[str]:
    """The words that stand for a missing cell."""
    return (MISSING | {*reading.missing}) - {*reading.not_missing}


def without_missing(cells: pa.Array, words: frozenset[str]) -> tuple[pa.Array, dict[str, int]]:
    """The cells with null where a word stands for a missing one; and how often which word that is not empty does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pc.is_in(cells, value_set=_words(words))
    found = {str(item["values"]): int(item["counts"]) for item in pc.value_counts(cells.filter(gone)).to_pylist()}
    return pc.if_else(gone, pa.scalar(None, pa.string()), cells), {word: n for word, n in found.items() if word}


def as_numbers(cells: pa.Array, decimal: str) -> tuple[np.ndarray, np.ndarray]:
    """Cells as float64, NaN where one is null or no number; and whether it is no number though it is there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    there = ~cells.is_null().to_numpy(zero_copy_only=False)
    try:
        if decimal == ".":
            return _floats(cells.cast(pa.float64())), np.zeros(len(cells), bool)
    except pa.ArrowInvalid:
        pass
    coded = pc.dictionary_encode(cells)  # a column of text repeats itself
    known = np.array([_number(cell, decimal) for cell in coded.dictionary.to_pylist()] or [np.nan], dtype=object)
    values = known[np.nan_to_num(coded.indices.to_numpy(zero_copy_only=False)).astype(int)]
    wrong = np.array([value is None for value in values], bool) & there
    numbers = np.where(there & ~wrong, values, np.nan).astype(np.float64)
    return numbers, wrong


def _floats(column: Any) -> np.ndarray:
    return np.array(column.to_numpy(zero_copy_only=False), dtype=np.float64)


def _number(cell: str, decimal: str) -> float | None:
    """A number as a file writes it; None where it is none."""
    import re

    if re.match(GROUPED[decimal], cell):
        cell = cell.replace("." if decimal == "," else ",", "")
    if decimal == ",":
        cell = cell.replace(".", "_").replace(",", ".")  # a point that separates no thousands makes it no number
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None
