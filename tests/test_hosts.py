"""The tool that runs the tests against several ComfyUI checkouts."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tools.host import HostError
from tools.hosts import Outcome, read_report, requirements, table, version_of, write

REPORT = """<testsuites><testsuite>
<testcase classname="tests.host.test_a" name="test_one"/>
<testcase classname="tests.host.test_a" name="test_two[x]"><failure message="no"/></testcase>
<testcase classname="tests.host.test_b" name="test_three"><skipped/></testcase>
</testsuite></testsuites>"""


def test_torch_and_what_is_built_for_it_are_not_taken_from_a_checkout():
    text = "torch\ntorchvision\ntorchaudio>=2\ntorchsde\n\n# words\nav>=16.0.0  # videos\n"
    assert requirements(text) == ["torchsde", "av>=16.0.0"]


def test_a_folder_without_comfyui_is_rejected_by_name(tmp_path: Path):
    with pytest.raises(HostError, match=str(tmp_path)):
        version_of(tmp_path)


def test_the_table_counts_by_file_and_names_what_failed(tmp_path: Path):
    (tmp_path / "report.xml").write_text(REPORT)
    counts, faults = read_report(tmp_path / "report.xml")
    outcome = Outcome(version="1.2.3", front_end="4.5.6", counts=counts, faults=faults)
    text = table([outcome], date(2026, 1, 2))
    assert "Run on 2026-01-02." in text
    assert "| host/test_a | 1 passed, 1 failed |" in text
    assert "| host/test_b | 1 skipped |" in text
    assert "1.2.3: failed: `host/test_a::test_two[x]`" in text
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results: make test-hosts -->\nold\n<!-- end of results -->\nafter\n")
    write(page, text)
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    assert "old" not in page.read_text()
    assert text in page.read_text()
