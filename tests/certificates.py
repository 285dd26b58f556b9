"""A little certificate authority, by openssl."""

import subprocess
from pathlib import Path


class Authority:
    """Issues certificates into a directory."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self.ca_file = directory / f"{name}.crt"
        self._key = directory / f"{name}.key"
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self._key))
        self._run(
            "req",
            "-x509",
            "-new",
            "-key",
            str(self._key),
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
            "-out",
            str(self.ca_file),
        )

    def issue(self, name: str, alternative: str) -> tuple[Path, Path]:
        """(certificate, key) with a subject alternative name, e.g. "DNS:localhost" or "URI:spiffe://..."."""
        key, request, certificate = (self.directory / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n")
        self._run("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(key))
        self._run("req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request))
        new = self.directory / f"{name}.new"
        self._run(
            "x509", "-req", "-in", str(request), "-CA", str(self.ca_file), "-CAkey", str(self._key), "-CAcreateserial",
            "-days", "2", "-extfile", str(extensions), "-out", str(new),
        )  # fmt: skip
        new.replace(certificate)
        return certificate, key

    @staticmethod
    def _run(*arguments: str) -> None:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
