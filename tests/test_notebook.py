"""The Python interface in a notebook: work is shown as a bar, and an interrupted cell leaves everything usable."""

import asyncio
import json
import sys

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

BEGIN = """
import sys
sys.path[:0] = {path}
import tosca_cache as tosca
store = tosca.open_store({store!r})
stream = tosca.task_stream(store, increment=3)
trained = tosca.train(stream, epochs=2, router="sample", engine="torch")
store
"""
MORE = """
table = tosca.compare(store, ["simplecil", "slda"], seeds=2, increment=3)
space = dict(lr=[0.1, 0.2])
found = tosca.sweep(store, space, ledger={ledger!r}, report_seeds=[1], epochs=1, increment=3)
table
"""
ENDLESS = (  # hours of work
    'trained = tosca.train(stream, epochs=20_000, router="sample")',
    "found = tosca.sweep(store, space, ledger={ledger!r}, report_seeds=[1], epochs=20_000, increment=3)",
)
AFTER = """
import json
again = tosca.train(stream, epochs=2, router="sample", engine="torch")
labels, modules = tosca.route(trained, store.features("test")[:, 0])
same = again.outcome.R[-1].tolist() == trained.outcome.R[-1].tolist()
same = same and tosca.evaluate(trained)["last_accuracy"] == tosca.evaluate(again)["last_accuracy"]
once_more = tosca.sweep(store, space, ledger={ledger!r}, report_seeds=[1], epochs=1, increment=3)
print(json.dumps([same, len(labels), once_more.finals[0].metrics == found.finals[0].metrics]))
"""


def bars(cell):
    """What a cell has displayed as HTML with a bar in it, at its latest."""
    shown = [output["data"].get("text/html", "") for output in cell.outputs if output.output_type == "display_data"]
    return [html for html in shown if "<progress" in html]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


async def run(client, cells, endless):
    """Runs all cells in turn; those that are endless are interrupted, as the button does it, as soon as a bar is shown."""
    async with client.async_setup_kernel():
        for number, cell in enumerate(cells):
            task = asyncio.create_task(client.async_execute_cell(cell, number))
            if cell not in endless:
                await task
                continue
            while not bars(cell):
                assert not task.done(), cell.outputs
                await asyncio.sleep(0.05)
            await client.km.interrupt_kernel()
            with pytest.raises(nbclient.exceptions.CellExecutionError) as interrupted:
                await task
            assert interrupted.value.ename == "KeyboardInterrupt"


def test_bars_and_interrupts(make_store, tmp_path):
    from nbformat.v4 import new_code_cell, new_notebook

    store, ledger = str(make_store(tmp_path / "shapes").path), str(tmp_path / "l.sqlite")
    facts = {"path": [*filter(None, sys.path)], "store": store, "ledger": ledger}
    begin, more, after = (new_code_cell(source.format(**facts)) for source in (BEGIN, MORE, AFTER))
    endless = [new_code_cell(source.format(**facts)) for source in ENDLESS]
    notebook = new_notebook(cells=[begin, more, *endless, after])
    client = nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(tmp_path)}})
    asyncio.run(run(client, notebook.cells, endless))
    (bar,) = bars(begin)
    assert 'value="4" max="4"' in bar and "train seed 1993, task 2/2 4/4" in bar
    assert begin.outputs[-1]["data"]["text/html"].startswith("<table><caption>Store")
    assert len(bars(more)) == 2 and all("<progress" in bar for bar in bars(more))
    assert json.loads(printed(after).splitlines()[-1]) == [True, 30, True]
    for cell in (begin, more, after):
        assert "\x1b" not in printed(cell) and "Traceback" not in str(cell.outputs)
