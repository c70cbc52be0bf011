"""Build the documentation into build/docs: ``python docs/build.py``.

It needs the dependency group ``docs``, torch and jax.

A broken reference is an error, and so is anything that a page would load from another host: the site opens from the
disk, without the internet.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent.resolve()
SITE = DOCS.parent / "build" / "docs"
# What a browser fetches by itself; links that a reader may follow are not included.
LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(?:https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect|dns-prefetch|modulepreload))[^>]*\bhref=["']?(?:https?:)?//"""
    r"""|@import\s+(?:url\()?["']?(?:https?:)?//|url\(["']?(?:https?:)?//""",
    re.IGNORECASE,
)


def main() -> int:
    """Build, and look for loads from elsewhere; return the exit status."""
    shutil.rmtree(DOCS / "api", ignore_errors=True)  # written by autosummary
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "--keep-going", "-q", "-b", "html", str(DOCS), str(SITE)],
        check=False,
    )
    if built.returncode:
        return built.returncode
    outside = [
        f"{path.relative_to(SITE)}: {match[0]}"
        for path in sorted(SITE.rglob("*"))
        if path.suffix in (".html", ".css")
        for match in LOADED.finditer(path.read_text(encoding="utf-8"))
    ]
    if outside:
        print("loaded from the internet:", *outside, sep="\n  ", file=sys.stderr)
        return 1
    print(f"open {SITE / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
