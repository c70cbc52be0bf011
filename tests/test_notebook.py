"""A notebook that runs in a real kernel shows tables, histograms and progress bars."""

import os
from pathlib import Path
from typing import Any

import pytest

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")

CELLS = (
    "import numparam; from numparam import *; from numparam.initializer import *",
    "Parameter(initializer('normal', (300, 4)), name='<w>')",
    "net = SequentialCell(Cell(), Cell()); net.v = Parameter([1.0]); net",
    "Layout({'tp': 2}, ('tp',))",
    "save_checkpoint({'w': Parameter(initializer('normal', (300, 4)), name='w')}, 'net.safetensors', progress=True)",
    "load_param_into_net(net, load_checkpoint('net.safetensors'), strict_load=False)",
)


def html(cell: Any) -> str:
    return "".join(output["data"]["text/html"] for output in cell["outputs"] if "text/html" in output.get("data", {}))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries that start the kernel
def test_a_notebook_shows_what_it_evaluates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    _, parameter, tree, layout, saving, report = notebook["cells"]
    assert "<code>&lt;w&gt;</code> (300, 4)" in html(parameter)
    assert "<svg" in html(parameter)
    assert "0 … 1 2 × <b>Cell</b>" in html(tree)
    assert html(layout).count("<td") == 2
    assert html(saving) == "<div>saving <progress value='4800' max='4800'></progress> 4.8 kB of 4.8 kB</div>"
    assert "<table>" in html(report)
