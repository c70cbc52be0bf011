"""The command line as a user starts it: each sample is a new process."""

from .common import Fresh

LINES = {
    "version": ["--version"],
    "help": ["--help"],
    "plan": ["plan", "--like", "llama-3-8b", "--mesh", "8x4"],
    "init": ["init", "--like", "minilm-l6", "--seed", "7", "-o", "/dev/shm/numparam-bench.safetensors"],
}


class Command(Fresh):
    params = tuple(LINES)
    param_names = ("command",)

    def timeraw_run(self, command: str) -> tuple[str, str]:
        return "subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)", (
            f"import subprocess, sys\nline = [sys.executable, '-m', 'numparam', *{LINES[command]!r}]"
        )
