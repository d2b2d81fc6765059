"""What the tests of ledgers share."""

import sqlite3
from contextlib import closing

NAMES = [f"cell-{number}" for number in range(6)]


def content(address):
    setting = {"lr": 0.1, "milestones": [5, 9]}
    return {"setting": setting, "seed": 1, "select": {"rows": "val"}, "store": "s", "arithmetic": 1, "of": address}


def fill(ledger, addresses=NAMES):
    ledger.add((address, content(address)) for address in addresses)


def sql(path, statement, *values):
    """What another program would do to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()
