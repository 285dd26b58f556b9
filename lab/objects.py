"""The directory of plain Kubernetes objects: one file each, true to what runs, as an API server would hold them.

Enters: manifests. Leaves: `<kind>.<namespace>.<name>.yaml`, replaced atomically and only on change, each change with a
higher resourceVersion.
"""

from copy import deepcopy
from pathlib import Path

import yaml

from lab.files import write_atomically
from lab.scenario import Manifest

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class ObjectFolder:
    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._version = 1000
        self._written: dict[str, Manifest] = {}

    def put(self, item: Manifest) -> None:
        name = file_name(item)
        if self._written.get(name) == item:
            return
        self._written[name] = deepcopy(item)
        self._version += 1
        stored = {**item, "metadata": {**item["metadata"], "resourceVersion": str(self._version)}}
        text = yaml.dump(stored, Dumper=_Plain, sort_keys=False, default_flow_style=False)
        write_atomically(self.folder / name, text)

    def remove(self, item: Manifest) -> None:
        name = file_name(item)
        if self._written.pop(name, None) is not None:
            (self.folder / name).unlink()

    def names(self) -> set[str]:
        return set(self._written)


class _Plain(DUMPER):  # type: ignore[misc, valid-type]  # the class is chosen when libyaml is there
    def ignore_aliases(self, _data: object) -> bool:
        return True


def file_name(item: Manifest) -> str:
    meta = item["metadata"]
    return ".".join(filter(None, [item["kind"].lower(), meta.get("namespace"), meta["name"]])) + ".yaml"
