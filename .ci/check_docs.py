"""Hold the documentation against the code: the README's two commands, the CLI reference, the links."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "CLI.md"
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def readme_commands() -> list[str]:
    """The first two fenced ``sh`` blocks of the README, each exactly one line."""
    blocks = [block.strip() for block in _BLOCK.findall((ROOT / "README.md").read_text())[:2]]
    if len(blocks) != 2 or any("\n" in block for block in blocks):
        sys.exit("README.md: the first two sh blocks must be one line each: the demo, then the tests")
    return blocks


def reference() -> str:
    """The CLI reference as Typer writes it from the commands themselves."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "CLI.md"
        command = ["typer", "cli.py", "utils", "docs", "--name", "featstore", "--title", "featstore", "--output"]
        subprocess.run([sys.executable, "-m", *command, str(target)], cwd=ROOT, check=True, capture_output=True)
        return target.read_text()


def broken_links() -> list[str]:
    """Links in our own pages that lead to no file."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return [
        f"{page.relative_to(ROOT)}: {link}"
        for page in pages
        for link in _LINK.findall(page.read_text())
        if "://" not in link and not (page.parent / link).exists()
    ]


def main() -> None:
    """Check everything, or do one thing that is asked for."""
    if "--print-test-command" in sys.argv:
        print(readme_commands()[1])
        return
    if "--write" in sys.argv:
        REFERENCE.write_text(reference())
        return
    readme_commands()
    problems = [f"link to nowhere: {link}" for link in broken_links()]
    if not REFERENCE.exists() or REFERENCE.read_text() != reference():
        problems.append("docs/CLI.md is not what the commands say: run python .ci/check_docs.py --write")
    if problems:
        sys.exit("\n".join(problems))
    print("docs: the commands, the reference and the links hold")


if __name__ == "__main__":
    main()
