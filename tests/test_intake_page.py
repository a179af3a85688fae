"""What docs/intake.md says of the settings; what it shows tests/test_pages.py runs."""

import re

from calibrant.intake.settings import NAMES
from tests.shared import ROOT

PAGE = (ROOT / "docs" / "intake.md").read_text()


def test_every_setting_that_is_asked_for_is_one() -> None:
    asked = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", PAGE.partition("| asked, by")[2], re.MULTILINE)
    names = {name for cell in asked for name in re.findall(r"`(\w+)`", cell)}
    assert len(names) > 10
    assert names <= set(NAMES)
