"""Who decided what, and what may be said of it: the record of decisions, and the disclosures made from it.

Here is the log alone, which other programs append to all the time: the rest of the room imports the checks, and scipy with them.
"""

from seamark.governance.log import (
    BrokenLog,
    Entry,
    Head,
    Verification,
    append,
    append_charter,
    export_audit,
    read,
    require_appendable,
    verify,
    verify_export,
)

__all__ = [
    "BrokenLog",
    "Entry",
    "Head",
    "Verification",
    "append",
    "append_charter",
    "export_audit",
    "read",
    "require_appendable",
    "verify",
    "verify_export",
]
