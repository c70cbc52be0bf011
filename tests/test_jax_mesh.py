"""A layout and the sharding made of it put the same part of a parameter on the same device."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numparam
from jax_devices import jax, sharding
from numparam import Fingerprints, Layout
from numparam.indexing.region import Region
from numparam.initializer import Normal, initializer
from numparam.jax import layout, named_sharding

LAYOUTS = [
    Layout({"dp": 2, "tp": 4}, ("dp", "tp")),
    Layout({"dp": 2, "tp": 4}, ("tp",)),
    Layout({"dp": 2, "tp": 4}, (None, ("tp", "dp"))),
    Layout({"dp": 2, "tp": 4}, (("dp", "tp"), None)),
    Layout({"pp": 2, "dp": 2, "tp": 2}, ("tp", ("dp", "pp"))),
    Layout({"dp": 8}, ()),
    Layout({"dp": 2}, (None, "dp")),
    Layout({"dp": 2, "tp": 4}, ("tp", None), optimizer_shard="dp"),
    Layout({"dp": 2, "tp": 4}, (), optimizer_shard=("tp", "dp")),
]


@pytest.mark.parametrize("given", LAYOUTS, ids=repr)
def test_rank_and_device_hold_the_same_region(given: Layout) -> None:
    shape = (16, 24)
    indices = named_sharding(given).devices_indices_map(shape)
    assert len(indices) == given.size
    for rank, device in enumerate(jax.devices()[: given.size]):
        assert Region.full(shape)[indices[device]].ranges == given.region(shape, rank).ranges


def test_devices_may_stand_in_another_order() -> None:
    given, devices = LAYOUTS[0], jax.devices()[::-1]
    indices = named_sharding(given, devices).devices_indices_map((16, 24))
    assert Region.full((16, 24))[indices[devices[3]]].ranges == given.region((16, 24), 3).ranges


@pytest.mark.parametrize("given", [given for given in LAYOUTS if not given.optimizer_shard], ids=repr)
def test_there_and_back(given: Layout) -> None:
    back = layout(named_sharding(given))
    assert back.mesh == given.mesh
    assert [back.region((16, 24), rank).ranges for rank in range(back.size)] == [
        given.region((16, 24), rank).ranges for rank in range(given.size)
    ]
    assert named_sharding(back).is_equivalent_to(named_sharding(given), 2)


def test_errors() -> None:
    with pytest.raises(ValueError, match="has ranks up to 15, found 8 devices"):
        named_sharding(Layout({"dp": 16}, ("dp",)))
    whole: Any = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(TypeError, match="expected a NamedSharding to make a layout of, found SingleDeviceSharding"):
        layout(whole)
    assert layout(sharding((2, 4), ("a", "b"))).spec == (("a", "b"),)


@pytest.mark.slow
def test_the_example_shows_one_hash_on_every_mesh() -> None:
    example = Path(__file__).parent.parent / "examples" / "jax_mesh.py"
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    ran = subprocess.run([sys.executable, example], check=True, capture_output=True, text=True, env=environment)
    rows = dict(re.findall(r"^ *(\S.*\S)  +((?:[0-9a-f]{12} ?)+)$", ran.stdout, re.MULTILINE))
    hashes = {name: row.split() for name, row in rows.items()}
    assert {name: (len(row), len(set(row))) for name, row in hashes.items()} == {
        "numparam": (4, 1), "jax.random": (3, 1), "not partitionable": (3, 1), "by hand": (3, 3),
    }  # fmt: skip
    assert np.unique([row[0] for row in hashes.values()]).size == 4


@pytest.mark.slow
def test_two_processes_make_their_own_parts(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    script = Path(__file__).parent / "jax_process.py"
    ranks = [
        subprocess.Popen(
            [sys.executable, script, str(number), address, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    try:
        answers = [rank.communicate(timeout=300)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()  # one waits for the other
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert all("every part is right" in answer for answer in answers)
    numparam.set_seed(7)
    values = np.arange(24 * 64, dtype=np.float32).reshape(24, 64)
    parameter = numparam.Parameter(initializer(Normal(0.02), (48, 64)), name="w")
    expected = numparam.fingerprint({"w": parameter, "rows": values, "mixed": values})
    tables = {file.stem: Fingerprints.load(file) for file in tmp_path.iterdir()}
    processes = {name: tables.pop(name) for name in ("process 0", "process 1")}
    assert len(tables) == 8
    assert expected.compare(Fingerprints.join(tables)) == []
    joined = Fingerprints.join(processes)
    assert set(joined) == {"w", "rows"}
    assert all(joined[name] == expected[name] for name in joined)
