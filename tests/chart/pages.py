"""Writes what the chart repeats of the code: the settings in values.schema.json, and README's table of values.

Enters: the settings of both programs, values.yaml and its comments. Leaves: the two files as text; `make docs` writes
them, a test holds them to it.
"""

import dataclasses
import json
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.config import AgentConfig
from aggregator.config import Settings

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "wattle"
START, END = (
    "<!-- values: made by `make docs` from the comments in values.yaml -->\n",
    "<!-- /values -->\n",
)

# The chart sets these itself, or a value of its own stands for them; every other setting is open under `settings`.
AGENT_OWNED = {
    "cluster",
    "node",
    "server",
    "ca_file",
    "token_file",
    "cgroup_root",
    "pod_logs",
    "pin_directory",
    "spool_directory",
    "spool_disk_bytes",
    "http_listen",
}
AGENT_ELSEWHERE = {
    "plaintext": "only to loopback",
    "certificate_file": "in a cluster an agent shows its pod's token",
    "key_file": "in a cluster an agent shows its pod's token",
    "server_name": "the certificate has the Service's name; a member says member.serverName",
    "proc_root": "with hostPID the pod's own /proc shows the node",
}
AGGREGATOR_OWNED = {
    "cluster",
    "database_url",
    "database_wait_seconds",
    "source",
    "http_listen",
    "ingest_listen",
    "query_listen",
    "tls_certificate_file",
    "tls_key_file",
    "agent_service_account",
    "dry_run",
    "kubeconfigs",
    "webhook_secret_file",
    "alertmanager_token_file",
}
AGGREGATOR_ELSEWHERE = {
    "manifests": "in a cluster the API server is the source",
    "development": "only on loopback",
    "kubeconfig": "in a cluster the pod's ServiceAccount is the credential",
    "tls_client_ca_file": "in a cluster an agent shows its pod's token",
    "agent_token_file": "in a cluster an agent shows its pod's token",
}


def agent_settings() -> dict[str, Any]:
    """Setting -> JSON type, of those that are open."""
    hints = typing.get_type_hints(AgentConfig)
    closed = AGENT_OWNED | AGENT_ELSEWHERE.keys()
    return {
        field.name: _type(hints[field.name]) for field in dataclasses.fields(AgentConfig) if field.name not in closed
    }


def aggregator_settings() -> dict[str, Any]:
    closed = AGGREGATOR_OWNED | AGGREGATOR_ELSEWHERE.keys()
    return {name: _type(field.annotation) for name, field in Settings.model_fields.items() if name not in closed}


def _type(annotation: Any) -> dict[str, Any]:
    if annotation is bool:
        return {"type": "boolean"}
    if annotation is int:
        return {"type": "integer"}
    if annotation is float:
        return {"type": "number"}
    if typing.get_origin(annotation) is tuple:
        item = typing.get_args(annotation)[0]
        return {"type": "array", "items": _type(item)}
    return {"type": "string"}


def schema() -> str:
    found = json.loads((CHART / "values.schema.json").read_text())
    for program, settings in (("agent", agent_settings()), ("aggregator", aggregator_settings())):
        found["properties"][program]["properties"]["settings"] = {
            "type": "object",
            "additionalProperties": False,
            "properties": settings,
        }
    return json.dumps(found, indent=2) + "\n"


def readme() -> str:
    before, _, rest = (CHART / "README.md").read_text().partition(START)
    _, _, after = rest.partition(END)
    rows = [f"| `{path}` | `{default}` | {meaning} |" for path, default, meaning in described_values()]
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])
    return f"{before}{START}\n{table}\n\n{END}{after}"


def described_values() -> Iterator[tuple[str, str, str]]:
    """(path, default as written, meaning), of every value that has a meaning of its own."""
    path: list[str] = []
    meaning: list[str] = []
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        if match := re.match(r" *# -- (.*)", line):
            meaning = [match[1]]
        elif meaning and (match := re.match(r" *# ([^-].*)", line)):
            meaning.append(match[1])
        elif match := re.match(r"( *)([A-Za-z]+):(?: (.*))?$", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if meaning:
                yield ".".join(path), match[3] or _below(lines[number + 1 :], len(match[1])), " ".join(meaning)
            meaning = []


def _below(lines: list[str], indent: int) -> str:
    block = []
    for line in lines:
        if not line.startswith(" " * (indent + 1)):
            break
        block.append(line.strip())
    return "; ".join(block)


PAGES = {"README.md": readme, "values.schema.json": schema}


def main() -> int:
    for name, page in PAGES.items():
        (CHART / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
