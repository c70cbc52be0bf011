"""Compare starts of models with torch's own: eight transformer layers, many small layers, rules, a model on disk.

`python asv_bench/peer_modules.py` prints the seconds, warm, the best of several rounds. The model of transformers has
1.5 billion bfloat16 parameters by default: numparam writes it to disk, its own `from_config` fills memory.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from comparison import best_seconds, heading, machine, markdown, on_cores, record

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "dtype": "bfloat16",
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def module() -> Any:
    from torch import nn

    layers = [nn.TransformerEncoderLayer(1024, 16, 4096, batch_first=True) for _ in range(8)]
    return nn.ModuleList([nn.Embedding(30_000, 1024), *layers])


def small_layers() -> Any:
    from torch import nn

    return nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(16, 16) for _ in range(15_360)])})


def reset(parts: Any) -> None:
    for part in parts.modules():
        for name in ("reset_parameters", "_reset_parameters"):
            if hasattr(part, name):
                getattr(part, name)()


def measure(threads: int, rounds: int) -> tuple[int, dict[str, float]]:
    """Return how many values there are, and the seconds of each contender."""
    import torch

    import numparam
    import numparam.torch

    torch.set_num_threads(threads)
    numparam.set_num_threads(threads)
    parts = module()
    calls = {"numparam": lambda: numparam.torch.init_(parts, seed=7), "torch": lambda: reset(parts)}
    return sum(values.numel() for values in parts.parameters()), best_seconds(calls, rounds)


def measure_small(threads: int, rounds: int) -> dict[str, float]:
    """Return the seconds for 15,360 small layers: by torch, by numparam, and by numparam with 1 and with 256 globs."""
    import torch

    import numparam
    import numparam.torch
    from numparam.initializer import Normal

    torch.set_num_threads(threads)
    numparam.set_num_threads(threads)
    parts = small_layers()
    globs: dict[str, Any] = {f"*.head_{number}.*weight": Normal(0.02) for number in range(255)}
    calls = {
        "torch": lambda: reset(parts),
        "numparam": lambda: numparam.torch.init_(parts, seed=7),
        "1 glob": lambda: numparam.torch.init_(parts, {"*": Normal(0.02)}, seed=7),
        "256 globs": lambda: numparam.torch.init_(parts, globs | {"*": Normal(0.02)}, seed=7),
    }
    return best_seconds(calls, rounds)


_CHILD = """
import json, sys
from pathlib import Path
from time import perf_counter
import torch, transformers
from transformers import LlamaForCausalLM
import numparam.torch.traced
from numparam.cli import main
folder = Path(sys.argv[1])
def peak():  # KiB; ru_maxrss counts what the parent had
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
config = LlamaForCausalLM.config_class.from_dict(json.loads((folder / "config.json").read_text()))
before, start = peak(), perf_counter()
if sys.argv[2] == "numparam":
    main(["init", "--like", str(folder), "--seed", "7", "-o", str(folder / "out.safetensors")])
else:
    LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
print(json.dumps([perf_counter() - start, (peak() - before) / 1024]))
"""


def measure_model(layers: int) -> dict[str, tuple[float, float]]:
    """Return the seconds and the MiB above the imports, of `numparam init` to disk and of the model's `from_config`."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text(json.dumps({**LLAMA, "num_hidden_layers": layers}))
        found = {}
        for who in ("numparam", "transformers"):
            ran = subprocess.run([sys.executable, "-c", _CHILD, name, who], capture_output=True, text=True, check=True)
            found[who] = tuple(json.loads(ran.stdout.splitlines()[-1]))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts, 5 by default")
    parser.add_argument(
        "--layers", type=int, default=22, help="of the model of transformers; 22 are 1.5 billion values"
    )
    arguments = parser.parse_args()
    measured = on_cores([1, 2], measure, arguments.rounds)
    print(heading(machine(), ["numparam", "numba", "torch"], [], f"{measured[1][0]} float32 values, in seconds;"))
    rows = [
        [str(threads), f"{times['numparam']:.3f}", f"{times['torch']:.3f} ({times['torch'] / times['numparam']:.3g}×)"]
        for threads, (_, times) in measured.items()
    ]
    print(markdown([["threads", "numparam", "torch"], *rows]))
    print("15,360 Linear(16, 16), in seconds:")
    small = on_cores([1, 2], measure_small, arguments.rounds)
    names = ["torch", "numparam", "1 glob", "256 globs"]
    print(markdown([["threads", *names], *[[str(n), *[f"{t[name]:.3f}" for name in names]] for n, t in small.items()]]))
    model = measure_model(arguments.layers)
    print("A bfloat16 Llama, numparam to disk and transformers in memory:")
    print(
        markdown(
            [["", "seconds", "MiB"], *[[who, f"{took:.1f}", f"{size:.0f}"] for who, (took, size) in model.items()]]
        )
    )
    found = [
        {
            "work": "init_ of eight transformer layers",
            "threads": threads,
            "speeds": {who: 1 / took for who, took in times.items()},
        }
        for threads, (_, times) in measured.items()
    ]
    record("peer_modules", "modules/s", ["numparam", "numba", "torch"], found)


if __name__ == "__main__":
    main()
