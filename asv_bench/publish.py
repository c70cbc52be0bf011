"""Build the page of the kept results into ``asv_bench/html``: ``python asv_bench/publish.py [RANGE]``.

The page that asv writes fetches its scripts from other hosts and its data with requests that a browser refuses for a
file. Here the scripts come from npm, are put next to the page, and the data is in a script too: the page opens from the
disk, without the internet. It needs the dependency group ``bench``, npm, and at the time of building a registry.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

BENCH = Path(__file__).parent.resolve()
HTML = BENCH / "html"
# What asv's page fetches, by the end of its address: the package on npm and the file in it.
SCRIPTS = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.4.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.4.1", "dist/css/bootstrap.min.css"),
}
FONT = ("bootstrap@3.4.1", "dist/fonts/glyphicons-halflings-regular.woff2")
ELSEWHERE = re.compile(r'<(script|link)\b[^>]*?\b(src|href)="https?://[^"]*/([^"/]+)"[^>]*>')
ANSWERS = """
(function ($) {
    "use strict";
    var ask = $.ajax;
    $.ajax = function (options) {
        var path = options.url.split("?")[0];
        var name = [path, decodeURIComponent(path)].find(function (name) { return name in FILES; });
        if (name === undefined) {
            return ask.apply(this, arguments);
        }
        var answer = $.Deferred();
        setTimeout(function () { answer.resolve(JSON.parse(JSON.stringify(FILES[name])), "success", {}); }, 0);
        return answer.promise();
    };
})(jQuery);
"""


def fetch(wanted: set[tuple[str, str]], into: Path) -> dict[tuple[str, str], bytes]:
    """Return the contents of files in packages of npm, which checks what it downloads."""
    found = {}
    for package in sorted({package for package, _ in wanted}):
        packed = subprocess.run(
            ["npm", "pack", "--silent", package], cwd=into, check=True, capture_output=True, text=True
        )
        with tarfile.open(into / packed.stdout.split()[-1]) as archive:
            for key in wanted:
                if key[0] == package:
                    member = archive.extractfile(f"package/{key[1]}")
                    assert member is not None, f"{package} has no {key[1]}"
                    found[key] = member.read()
    return found


def make_local(page: str) -> tuple[str, dict[str, tuple[str, str]]]:
    """Return the page with every script and style sheet next to it, and which files it needs."""
    needed = {}

    def local(tag: re.Match[str]) -> str:
        kind, attribute, name = tag.groups()
        if name not in SCRIPTS:
            raise SystemExit(f"publish.py: asv's page fetches {name}, found in no package of SCRIPTS; add it there")
        needed[name] = SCRIPTS[name]
        rel = ' rel="stylesheet"' if kind == "link" else ""
        return f'<{kind}{rel} {attribute}="vendor/{name}">'

    page = ELSEWHERE.sub(local, page)
    return page.replace('src="asv.js"', 'src="data.js"></script>\n    <script src="asv.js"', 1), needed


def main(options: list[str]) -> int:
    """Publish with asv, then make the page independent of other hosts; return the exit status."""
    published = subprocess.run([sys.executable, "-m", "asv", "publish", *options], cwd=BENCH, check=False)
    if published.returncode:
        return published.returncode
    index = HTML / "index.html"
    page, needed = make_local(index.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        contents = fetch({*needed.values(), FONT}, Path(folder))
    for name, key in needed.items():
        target = HTML / "vendor" / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(contents[key])
    (HTML / "fonts").mkdir(exist_ok=True)
    (HTML / "fonts" / Path(FONT[1]).name).write_bytes(contents[FONT])
    files = {
        path.relative_to(HTML).as_posix(): json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(HTML.rglob("*.json"))
    }
    (HTML / "data.js").write_text(f"var FILES = {json.dumps(files)};\n{ANSWERS}", encoding="utf-8")
    index.write_text(page, encoding="utf-8")
    print(f"open {index}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
