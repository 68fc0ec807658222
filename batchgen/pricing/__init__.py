"""Usage and bounds -> money, in whole nano-dollars, so that sums are exact.

- `money`   nano-dollars
- `rates`   the most that a model charges
- `fees`    what tools of the server cost, and no cost holds
- `table`   the prices of genai-prices, which works offline
- `prices`  `Prices`: what requests and answers cost at one provider

Prices come from the server's own bill, else from the job's `pricing`, else from genai-prices. An
unknown price is None, never 0.
"""

from batchgen.pricing.money import NANO, dollars
from batchgen.pricing.prices import BatchShares, Prices

__all__ = ["NANO", "BatchShares", "Prices", "dollars"]
