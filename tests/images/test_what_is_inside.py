"""What an image says of itself, and what is written beside it."""

import json
import subprocess

import pytest

from tests.images.conftest import IMAGES, ROOT, Image
from wattle import __version__

PROGRAMS = ("agent", "aggregator", "postgres")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_bill_of_materials_is_what_is_installed(built: dict[str, Image], program: str) -> None:
    bill = json.loads((IMAGES / f"wattle-{program}.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    references = [each["bom-ref"] for each in bill["components"]]
    assert len(references) == len(set(references)) > 80
    assert bill["dependencies"][0]["dependsOn"] == references
    root = built[program].root
    listed = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    installed = {tuple(line.split()[1:]) for line in listed if line.startswith("installed ")}
    debian = {(e["name"], e["version"]) for e in bill["components"] if e["purl"].startswith("pkg:deb/")}
    assert debian == installed
    wheels = {e["name"].lower() for e in bill["components"] if e["purl"].startswith("pkg:pypi/")}
    assert ("grpcio" in wheels) == (program != "postgres")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_image_gives_the_same_bill(built: dict[str, Image], program: str) -> None:
    again = subprocess.run(
        ["deploy/sbom", str(built[program].root), f"wattle-{program}", __version__],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert again == (IMAGES / f"wattle-{program}.cdx.json").read_text()


@pytest.mark.parametrize("program", PROGRAMS)
def test_labels_user_and_health(built: dict[str, Image], program: str) -> None:
    config = built[program].config
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == f"wattle-{program}"
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"]
    assert config["User"] == ("0:0" if program == "agent" else "65532:65532")
    assert config["Healthcheck"]["Test"][0] == "CMD"
