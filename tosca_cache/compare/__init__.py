"""Many learners on one store under one protocol: a table of all of them, kept in a ledger."""
