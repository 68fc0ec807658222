"""What an earlier pass 1 left in the journal, and whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version

from batchgen.job import Job, PromptsFormat
from batchgen.journal import Journal
from batchgen.journal.records import digest_of
from batchgen.prompts import file_digest
from batchgen.requests import PictureStamp, Renderer, canonical, unchanged

# Picture stamps that are kept under one name in the journal: a bound on memory, however many
# pictures the prompts name.
PICTURES = 1000

# Raise this number when rows get other identities: pass 1 is then done again.
IDENTITIES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedPrompts:
    """What pass 1 left in the journal beside the rows.

    Attributes:
        signature: of the job, see `signature_of`.
        source: the prompts' path as the job shows it, "-" for stdin and for rows given in Python.
        digest: of the prompts file.
        format, delimiter, bom: the dialect of the prompts file.
        header: the prompts' columns in order.
        capped: whether every request was found to have a bound on its cost.
        pictures: how many pages of PICTURES picture stamps are kept beside this.
        job: the job file's path.
        draws: whether any request asks for pictures.
        batch_cost, batch_bound: the highest share that a batch takes of a request's expected and
            highest cost outside one.
        fees_not_included: tools of the server that requests use and whose fees are in no cost.
        left_out: how many prompts have no rows, by the key of the job that leaves them out.
        empty: how many prompts are sent although they are empty.
        assumes: what the forecasts of costs assume, each as a phrase.
        charged_share: the expected tokens, as a share of those that limits are charged.
    """

    signature: str
    source: str
    digest: str
    format: PromptsFormat
    delimiter: str
    bom: bool
    header: list[str]
    capped: bool
    pictures: int = 0
    job: str = ""
    draws: bool = True
    batch_cost: float = 1.0
    batch_bound: float = 1.0
    fees_not_included: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    empty: int = 0
    assumes: Sequence[str] = ()
    charged_share: float = 1.0


def staged(journal: Journal) -> StagedPrompts | None:
    """What the last pass 1 left, or None. Raises DamagedError."""
    kept = journal.meta("staged")
    if not kept:
        return None
    # Another version of batchgen may have kept more fields, or fewer.
    names = [each.name for each in fields(StagedPrompts) if each.name in kept]
    return StagedPrompts(**{name: kept[name] for name in names})


def is_current(
    job: Job, journal: Journal, signature: str, *, capped: bool, given: str | None = None
) -> bool:
    """Whether pass 1 would make the rows that the journal has already.

    Args:
        job: the job as it is now. If its prompts come from stdin, the last ones that came count.
        journal: holds the rows.
        signature: the job's, from `signature_of`.
        capped: whether every request needs a bound on its cost.
        given: the digest of prompts that come from no file.

    Raises DamagedError.
    """
    last, path = staged(journal), job.prompts_path
    if last is None or (capped and not last.capped) or last.signature != signature:
        return False
    if given is not None and last.digest != given:
        return False
    if path is not None and not (path.is_file() and last.digest == file_digest(path)):
        return False
    pages = (journal.meta(f"pictures {page}") for page in range(last.pictures))
    return all(page is not None and unchanged(page) for page in pages)


def signature_of(job: Job, renderer: Renderer, base_url: str) -> str:
    """A digest of everything but the prompts that rows and forecasts depend on.

    Prices depend on the server (`base_url`) and on what this version of genai-prices knows.
    """
    pricing = {model: price.model_dump() for model, price in job.pricing.items()}
    prices = [pricing, base_url, version("genai-prices")]
    # PICTURES is part of it, because pages of another size would be read wrongly; the names are,
    # because what an earlier version left lacks some.
    kept = [PICTURES, [each.name for each in fields(StagedPrompts)]]
    return digest_of(
        canonical([renderer.signature(), prices, list(job.output.columns), kept, IDENTITIES])
    ).hex()


class PictureStamps:
    """Keeps the stamps of the pictures that prompts name, page by page, during pass 1.

    `stamps` is the list that grows as pictures are read; what is kept is taken out of it.
    """

    def __init__(self, journal: Journal, stamps: list[PictureStamp]) -> None:
        self._journal, self._stamps = journal, stamps
        self.pages = 0

    def keep_full_page(self) -> None:
        """Keep a page if there are enough stamps for one."""
        if len(self._stamps) >= PICTURES:
            self.keep_rest()

    def keep_rest(self) -> None:
        """Keep the stamps that are left, if any."""
        if self._stamps:
            if not self._journal.shadowed:
                self._journal.keep(f"pictures {self.pages}", self._stamps)
            self._stamps.clear()
            self.pages += 1
