"""One real run of the demo for each scenario, shared by the tests that read what it left."""

import os
import shutil

import pytest

from tests.demo import Shown, run_demo


@pytest.fixture(scope="session", autouse=True)
def _can_run() -> None:
    assert os.geteuid() == 0, "this tier runs as root: `make test-integration` does that"
    assert shutil.which("nft"), "the lab needs nft: `make setup` installs it"


@pytest.fixture(scope="session")
def shop() -> Shown:
    return run_demo("lab/shop.yaml")


@pytest.fixture(scope="session")
def clinic() -> Shown:
    return run_demo("lab/clinic.yaml")
