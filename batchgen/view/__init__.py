"""`batchgen view`: the page of a job, served from its journal on this machine alone.

It reads and never writes. A random token in the address keeps other users of the machine out, and
a check of the Host header other web pages.
"""

from batchgen.view.server import serve

__all__ = ["serve"]
