"""Pass 1: prompts -> requests -> the journal's rows.

It is skipped while the files and the job are unchanged.

- `stager`         one pass: opens the prompts, stages each, keeps what the pass read
- `prompt_stager`  one prompt -> its rows: one for each combination and each turn
- `selection`      which prompts become rows
- `rows`           writes the journal's tables `prompts` and `rows`
- `adoption`       rows take over outcomes of equal requests whose rows are gone
- `forecast`       what one call is expected to take
- `problems`       collects what is wrong
- `result`         what a pass left in the journal, and whether it still holds
"""

from batchgen.staging.result import StagedPrompts, is_current, signature_of, staged
from batchgen.staging.stager import GivenPrompts, LinesCallback, Stager, has_prompts

__all__ = [
    "GivenPrompts",
    "LinesCallback",
    "StagedPrompts",
    "Stager",
    "has_prompts",
    "is_current",
    "signature_of",
    "staged",
]
