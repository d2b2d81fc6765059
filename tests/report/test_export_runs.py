"""`tosca export-runs`: what other tools get, by their own readers where they are installed."""

import csv
import io
import re
import shutil
import subprocess
from importlib.util import find_spec

import pytest
from commands import tosca
from report.targets import EVIL, comparison_values, run_values, sweep_values

from tosca_cache.report.records import TEXTS, TOOLS, records_of, to_parquet

FACTS = [run_values(), sweep_values(), comparison_values()]


def test_csv_and_parquet_have_a_line_a_record_with_parameters_and_metrics(tmp_path):
    rows = list(csv.DictReader(io.StringIO(TEXTS["csv"](FACTS))))
    assert len(rows) == 3 + 12 + 9
    assert rows[0]["lr"] == "0.025" and rows[0]["seed"] == "1993"
    assert float(rows[-1]["last_accuracy"]) in (81.5, 92.5)
    parquet = pytest.importorskip("pyarrow.parquet")
    to_parquet(records_of(FACTS), tmp_path / "runs.parquet")
    table = parquet.read_table(tmp_path / "runs.parquet")
    assert table.num_rows == 3 + 12 + 9 and {"group", "seed", "lr", "last_accuracy"} <= set(table.column_names)


def test_names_that_spreadsheets_or_latex_would_compute_are_text():
    found = [comparison_values({"=cmd()": (90.0, 91.0), "$x_1$": (80.0, 82.0)})]
    assert "\n'=cmd()," in TEXTS["csv"](found)
    assert all(r"\$x\_1\$" in TEXTS[form](found) for form in ("latex", "markdown"))
    for name, announced in (("數字", True), ("é", False)):  # letters that pdflatex has not
        text = TEXTS["latex"]([comparison_values({name: (90.0, 91.0), "b": (80.0, 82.0)})])
        assert ("LuaLaTeX" in text.splitlines()[0]) == ("LuaLaTeX" in text) == announced


def test_the_best_is_marked_and_what_is_not_told_from_it():
    found = comparison_values({"a": (90.0, 91.0, 92.0), "b": (89.0, 92.0, 90.0), "c": (79.0, 80.0, 82.0)})
    lines = {line[:2]: line for line in TEXTS["latex"]([found]).splitlines()}
    assert r"\textbf{91.00" in lines["a "] and r"\underline{90.33" in lines["b "]
    assert " & 80.33" in lines["c{"], "neither; it keeps train rows"
    found["found"]["rows"][0]["bound"] = True
    assert r"\textbf{90.33" in TEXTS["latex"]([found]), "a bound is not the best"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no TeX (Debian: texlive-latex-recommended)")
def test_tables_compile_whatever_names_are(tmp_path):
    found = comparison_values({name: (90.0 - n, 91.0 - n / 2, 92.0) for n, name in enumerate(EVIL)})
    text = TEXTS["latex"]([found])
    page = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n" + text + "\\end{document}\n"
    (tmp_path / "table.tex").write_text(page, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0 and (tmp_path / "table.pdf").stat().st_size > 1000, done.stdout[-2000:]
    assert not re.search("Missing character|[Uu]ndefined", done.stdout), done.stdout[-3000:]


@pytest.fixture(scope="module")
def comparison(make_store, tmp_path_factory):
    """The ledger of a comparison of three learners with two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    make_store(folder / "store", noise=2.0)
    asked = ("--store", folder / "store", "--runs", folder, "--increment", 2, "--methods", "nmc,lda,simplecil")
    tosca("compare", *asked, "--seeds", 2, "--no-report", code=0)
    return folder / "shapes-compare.sqlite"


@pytest.mark.parametrize("tool", ["tensorboard", "mlflow", "wandb-offline"])
def test_tools_are_written_to_or_said_to_be_missing(tool, comparison, tmp_path):
    done = tosca("export-runs", comparison, "--to", tool, "--out", tmp_path / "out")
    if find_spec(TOOLS[tool][0]) is None:
        assert done.exit_code and f"needs the package {TOOLS[tool][0]}" in done.output
        return
    assert done.exit_code == 0, done.output
    assert any((tmp_path / "out").iterdir())
    if tool == "mlflow":
        mlflow = pytest.importorskip("mlflow")
        client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
        (experiment,) = [e.experiment_id for e in client.search_experiments() if e.name == "tosca"]
        found = [run.data.metrics["last_accuracy"] for run in client.search_runs([experiment])]
        assert len(found) == 6 and all(0 < value <= 100 for value in found)


def test_text_is_printed_or_written_and_mistakes_are_said(comparison, tmp_path):
    printed = tosca("export-runs", comparison, "--to", "markdown", code=0).stdout
    tosca("export-runs", comparison, "--to", "markdown", "-o", tmp_path / "t.md", code=0)
    assert "| lda |" in printed == (tmp_path / "t.md").read_text()
    for wrong in ("excel", "parquet"):
        assert "error: " in tosca("export-runs", comparison, "--to", wrong, code=2).output
