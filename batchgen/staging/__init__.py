"""Pass 1: prompts -> requests -> the journal's rows.

While the files and the job are unchanged, it is skipped.
"""

from batchgen.staging.result import StagedPrompts, is_current, signature_of, staged
from batchgen.staging.stager import Stager, has_more

__all__ = ["StagedPrompts", "Stager", "has_more", "is_current", "signature_of", "staged"]
