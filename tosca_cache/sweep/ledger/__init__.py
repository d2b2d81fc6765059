"""What was found: one SQLite file of cells, and what they tell."""

from tosca_cache.sweep.ledger.ledger import (
    DIVERGED,
    DONE,
    FAILED,
    OPEN,
    RUNNING,
    STATES,
    Finished,
    Ledger,
    LedgerCell,
)

__all__ = ["DIVERGED", "DONE", "FAILED", "OPEN", "RUNNING", "STATES", "Finished", "Ledger", "LedgerCell"]
