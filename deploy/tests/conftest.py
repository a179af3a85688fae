"""What the tests of the deployment share: a base image made here, and the image of the service built upon it."""

import pytest

from deploy.tests import images
from deploy.tests.watched import watched  # noqa: F401


@pytest.fixture(scope="session")
def base_image() -> str:
    return images.base()


@pytest.fixture(scope="session")
def service_image() -> str:
    return images.service()
