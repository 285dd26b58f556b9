"""The path parser: it never crashes, never gives a UID that the path does not name, and reads every driver's shape."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.identity.paths import ContainerPath, parse

UID = "8a3f6c1e-1b2c-4d5e-8f90-112233445566"
ESCAPED = UID.replace("-", "_")
CONTAINER = "0123456789abcdef" * 4
STATIC = "ab12" * 8
POD = f"pod{ESCAPED}.slice"
CRI = f"cri-containerd-{CONTAINER}.scope"
CRIO = f"crio-{CONTAINER}.scope"
SYSTEMD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-"
KIND = "/kubelet.slice/kubelet-kubepods.slice/"
SHAPES = {
    "v2 systemd containerd": f"{SYSTEMD}{POD}/{CRI}",
    "v2 systemd CRI-O": f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}/{CRIO}",
    "v2 systemd CRI-O, nested scope": f"/kubepods.slice/kubepods-{POD}/{CRIO}/container",
    "v2 cgroupfs guaranteed": f"/kubepods/pod{UID}/{CONTAINER}",
    "v1 cgroupfs burstable": f"/kubepods/burstable/pod{UID}/{CONTAINER}",
    "v1 systemd docker": f"{SYSTEMD}{POD}/docker-{CONTAINER}.scope",
    "containerd with the cgroupfs driver": (
        f"/system.slice/containerd.service/kubepods-burstable-{POD}:cri-containerd:{CONTAINER}"
    ),
    "kind": f"{KIND}kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-{POD}/{CRI}",
    "kind inside docker": f"/docker/{'9' * 64}{KIND}kubelet-kubepods-{POD}/{CRI}",
    "agent inside a cgroup namespace": f"/../../kubepods-burstable-{POD}/{CRI}",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: str) -> None:
    assert parse(SHAPES[shape]) == ContainerPath(pod_uid=UID, container_id=CONTAINER)


def test_static_pod_has_the_hash_of_its_manifest() -> None:
    path = f"{SYSTEMD}pod{STATIC}.slice/{CRI}"
    assert parse(path) == ContainerPath(pod_uid=STATIC, container_id=CONTAINER)


def test_pods_own_group_has_no_container() -> None:
    assert parse(f"/kubepods/pod{UID}") == ContainerPath(pod_uid=UID, container_id="")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/system.slice/sshd.service",
        f"/user.slice/pod{UID}/{CONTAINER}",
        f"/kubepods/pod{UID}x/{CONTAINER}",
        f"/kubepods/xpod{UID}/{CONTAINER}",
        f"/kubepods/pod{UID[:-1]}/{CONTAINER}",
        f"/kubepods/pod{UID}/{CONTAINER}/kubepods/pod{UID[:-1]}7/{CONTAINER}",
        f"/docker/{CONTAINER}",
        f"/kubepods/{CONTAINER}",
    ],
)
def test_what_names_no_pod_is_none(path: str) -> None:
    assert parse(path) is None


@given(st.text(max_size=300))
def test_arbitrary_text_never_names_a_pod_it_does_not_contain(path: str) -> None:
    found = parse(path)
    if found is not None:
        assert found.pod_uid in path or found.pod_uid.replace("-", "_") in path.replace("-", "_")


COMPONENT = st.one_of(
    st.sampled_from(["kubepods", "kubepods.slice", "burstable", "system.slice", "container", "", ".."]),
    st.uuids().map(lambda uid: f"pod{uid}"),
    st.uuids().map(lambda uid: f"kubepods-pod{str(uid).replace('-', '_')}.slice"),
    st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    st.from_regex(r"cri-containerd-[0-9a-f]{64}\.scope", fullmatch=True),
    st.text(alphabet="abcdef0123456789-_.:pod", max_size=40),
)


@given(st.lists(COMPONENT, max_size=8))
def test_a_found_pod_is_the_only_one_of_its_path(components: list[str]) -> None:
    path = "/" + "/".join(components)
    found = parse(path)
    if found is None:
        return
    wanted = re.escape(found.pod_uid).replace(r"\-", "[-_]")
    assert re.search(f"pod{wanted}", path)
    assert not found.container_id or found.container_id in path
    assert re.fullmatch(r"[0-9a-f]{64}|", found.container_id)
