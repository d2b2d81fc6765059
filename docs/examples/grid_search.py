"""A grid search from Python: python grid_search.py STORE [LEDGER]

Run it twice: the second time it only reads its ledger. Add a value to an axis, and only the new cells are trained.
"""

import sys

import tosca_cache as tosca


def main(path: str, ledger: str = "grid.sqlite") -> None:
    store = tosca.open_store(path)
    report = tosca.sweep(
        store,
        {"l1": [1e-4, 5e-4, 1e-3], "lr": "log:0.005:0.1:3", "flow": ["tosca", "adapter"]},
        ledger=ledger,
        seeds=[1993, 1994],
        report_seeds=[1993, 1994, 1995],
        increment=2,
    )
    print(f"{report.cells} cells, {report.how}")
    for scored in report.top[:3]:
        print(f"  {scored.mean:.2f} +- {scored.spread:.2f}  {scored.point}")
    for final in report.finals:
        mean, spread = final.metrics["last_accuracy"]
        print(f"{final.name}: last accuracy {mean:.2f} +- {spread:.2f} over {final.seeds} seeds")


if __name__ == "__main__":
    main(*sys.argv[1:])
