"""Tables of numbers for Python: arrays by name, and a DataFrame where pandas is installed."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[Any]


class Columns(Mapping[str, Array]):
    """Arrays of one length by name, in an order.

    Args:
        columns: The arrays.

    Example:
        >>> table = Columns({"round": np.arange(3), "return": np.array([1.0, 4.0, 9.0])})
        >>> table
        Columns of 3 rows: round, return
        >>> table["return"].max(), len(table.rows(table["round"] > 0)["return"])
        (np.float64(9.0), 2)
    """

    def __init__(self, columns: Mapping[str, Array]) -> None:
        self._columns = dict(columns)

    def __getitem__(self, name: str) -> Array:
        """A column."""
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        """Names of columns."""
        return iter(self._columns)

    def __len__(self) -> int:
        """How many columns."""
        return len(self._columns)

    def __repr__(self) -> str:
        """How many rows, and which columns."""
        return f"Columns of {self.n_rows:,} rows: {', '.join(self._columns)}"

    @property
    def n_rows(self) -> int:
        """How many rows."""
        return len(next(iter(self._columns.values()), ()))

    def rows(self, chosen: NDArray[np.bool_]) -> "Columns":
        """The rows for which a condition holds, shape (n_rows,)."""
        return Columns({name: values[chosen] for name, values in self._columns.items()})

    def to_pandas(self) -> "pd.DataFrame":
        """The same as a DataFrame.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("to_pandas needs pandas, which is not installed here: pip install pandas") from error
        return pd.DataFrame(self._columns)


def expanded(table: Mapping[str, Array], column: str, values: list[dict[str, Any]]) -> Columns:
    """A table with one column of numbers for each name that occurs in a column of mappings; nan where it is missing.

    Args:
        table: The table.
        column: The column that is replaced.
        values: Its mappings, row by row.

    Example:
        >>> expanded({"a": np.array([1, 2]), "more": np.array(["", ""])}, "more", [{"x": 0.5}, {}])["x"].tolist()
        [0.5, nan]
    """
    names = dict.fromkeys(name for row in values for name in row)
    more = {name: np.array([np.nan if row.get(name) is None else row[name] for row in values], np.float64) for name in names}
    return Columns({name: found for name, found in table.items() if name != column} | more)
