"""What pyproject.toml cannot say of a build: where it happens, what PyPI shows, and the link to the kernels."""

import re
import tempfile
from pathlib import Path

from setuptools import setup
from setuptools.command.editable_wheel import editable_wheel
from setuptools.command.sdist import sdist

ROOT = Path(__file__).parent
BLOB = "https://github.com/numparam/numparam/blob/main/"
RAW = "https://raw.githubusercontent.com/numparam/numparam/main/"


def readme() -> str:
    """Return the README with absolute links, since PyPI has none of the files that relative ones name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{RAW}", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\1{BLOB}", text)


class LinkedSdist(sdist):
    """Keep the link ``numparam/kernels``, without which an unpacked source distribution cannot be imported."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Write the files, then the link."""
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / "numparam/kernels").symlink_to("../kernels", target_is_directory=True)


class LinkedEditable(editable_wheel):
    """Put the checkout on the path: the mapping of the kernels asks for a hook that no type checker follows."""

    def finalize_options(self) -> None:
        """Take the packages where the link shows them."""
        super().finalize_options()
        self.package_dir = {"": "."}


# A fresh folder for each build: setuptools ships whatever an earlier build left behind, deleted modules too.
with tempfile.TemporaryDirectory() as folder:
    setup(
        long_description=readme(),
        long_description_content_type="text/markdown",
        cmdclass={"editable_wheel": LinkedEditable, "sdist": LinkedSdist},
        options={"build": {"build_base": folder}},
    )
