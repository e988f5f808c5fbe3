"""What the pages say works: code compiles, marked code runs, targets and links exist."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.tidy.tree import ROOT, SRC, project_files

PAGES = [ROOT / "README.md", *(path for path in project_files() if path.suffix == ".md" and path.parts[-2] != "tests")]
PAGES = sorted({page for page in PAGES if page.exists()})

FENCE = re.compile(
    r"(?P<marker><!-- run -->[ \t]*\n\s*)?^(?P<indent>[ ]*)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
MAKE_TARGET = re.compile(r"\bmake ([a-z][a-z-]*)")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")


class Block(NamedTuple):
    place: str
    language: str
    code: str
    is_run: bool


def blocks(text: str, page: str) -> list[Block]:
    found = []
    for fence in FENCE.finditer(text):
        line = text.count("\n", 0, fence.start("code")) + 1
        indent = len(fence["indent"])
        code = "".join(row[indent:] if row.strip() else row for row in fence["code"].splitlines(keepends=True))
        found.append(Block(f"{page}:{line}", fence["language"], code, fence["marker"] is not None))
    return found


def compile_block(block: Block) -> None:
    # An example may await at the top level, as in an interactive session.
    compile(block.code, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def run_block(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    script = folder / "example.py"
    script.write_text(block.code, encoding="utf-8")
    path = os.pathsep.join([str(SRC), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))


def named_targets(text: str) -> set[str]:
    """The targets that code in the page names: in fenced or indented blocks and in code spans, not in prose."""
    fenced = [block.code for block in blocks(text, "page")]
    rest = FENCE.sub("", text)
    indented = re.findall(r"^ {4,}\S.*$", rest, re.MULTILINE)
    return {target for code in [*fenced, *indented, *CODE_SPAN.findall(rest)] for target in MAKE_TARGET.findall(code)}


ALL_BLOCKS = [block for page in PAGES for block in blocks(page.read_text("utf-8"), str(page.relative_to(ROOT)))]
PYTHON_BLOCKS = [block for block in ALL_BLOCKS if block.language in {"python", "py"}]


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.place)
def test_every_python_example_compiles(block: Block) -> None:
    compile_block(block)


@pytest.mark.parametrize("block", [block for block in ALL_BLOCKS if block.is_run], ids=lambda block: block.place)
def test_every_example_marked_to_run_runs(block: Block, tmp_path: Path) -> None:
    assert block.language == "python"
    done = run_block(block, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    assert named_targets(page.read_text("utf-8")) <= make_targets((ROOT / "Makefile").read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(FENCE.sub("", page.read_text("utf-8")))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    opening = (ROOT / "README.md").read_text("utf-8").splitlines()[:12]
    assert {"demo", "test"} <= named_targets("\n".join(opening) + "\n```")


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text("utf-8")
    assert [path.name for path in sorted(folder.glob("0*.md")) if f"({path.name})" not in index] == []


SAMPLE = """\
Please make sure.

<!-- run -->
```python
print("ran")
```

- a list
  ```python
  await something()
  ```

    make demo

Run `make test` too.

```python
def (:
```
"""


def test_the_blocks_of_a_page_are_found_as_they_are_written(tmp_path: Path) -> None:
    marked, listed, broken = blocks(SAMPLE, "sample.md")
    assert (marked.place, marked.is_run) == ("sample.md:5", True)
    assert run_block(marked, tmp_path).stdout == "ran\n"
    assert (listed.code, listed.is_run) == ("await something()\n", False)
    compile_block(listed)
    with pytest.raises(SyntaxError):
        compile_block(broken)


def test_make_targets_are_read_from_code_and_not_from_prose() -> None:
    assert named_targets(SAMPLE) == {"demo", "test"}
    assert make_targets(".PHONY: x\ntest: $(READY)\n\t@echo no:\nbench-peers:\n") == {"test", "bench-peers"}
