"""A job's answers before and after a change of its prompt or its model, row by row.

- `pairs`   the two answers of each row, and the counts of all
- `words`   which words of two texts differ
- `write`   the pairs as a page
"""

from batchgen.comparison.pairs import Comparison, Pair, Side, compare
from batchgen.comparison.words import Part, changed_words
from batchgen.comparison.write import describe_comparison, describe_side, write_comparison

__all__ = [
    "Comparison",
    "Pair",
    "Part",
    "Side",
    "changed_words",
    "compare",
    "describe_comparison",
    "describe_side",
    "write_comparison",
]
