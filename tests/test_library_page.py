"""What docs/library.md says of the library besides its programs, which tests/test_pages.py runs."""

import re

from tests.shared import ROOT

PAGE = (ROOT / "docs" / "library.md").read_text()


def test_the_page_shows_every_name_of_the_library() -> None:
    import calibrant

    assert {name for name in calibrant.__all__ if name not in PAGE} <= {"CalibrationResult", "Prices", "__version__"}


def test_the_page_quotes_the_file_that_adds_a_model() -> None:
    file = (ROOT / "src" / "calibrant" / "models" / "double_heston.py").read_text()
    (quoted,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert quoted == file.split("\n\n", 1)[1]


def test_the_page_names_every_model_with_its_factors() -> None:
    from calibrant.models import MODELS

    assert re.findall(r"^\| `(\w+)` \| .*(?:factor|jumps)", PAGE, re.MULTILINE) == list(MODELS)
