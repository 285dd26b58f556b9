"""The two evaluators share no code; on random clusters, policies of every kind and plug-ins they must agree."""

import numpy as np
from evalworlds import PORTS, admin_policies, all_ends, clusters, foreign_policies, native_policies, raw_policies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.model.endpoint import Connection
from aggregator.model.protocol import Direction, Protocol
from aggregator.model.verdict import DirectionOutcome
from aggregator.policy.compiled import VERDICTS, compile_policies
from aggregator.policy.evaluation.evaluate import evaluate, explain_direction
from aggregator.policy.manifest.parse import parse_policy
from aggregator.policy.profiles.known import GENERIC, PROFILES

FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def assert_agreement(compiled, policies, cluster, profile, ports=(80, 81)):
    ends = all_ends(cluster)
    asked = [
        Connection(src=src, dst=dst, protocol=protocol, port=port)
        for src in ends
        for dst in ends
        for protocol in Protocol
        for port in ports
    ]
    codes = compiled.verdicts(
        np.array([compiled.number(c.src) for c in asked]),
        np.array([compiled.number(c.dst) for c in asked]),
        np.array([c.protocol.number for c in asked]),
        np.array([c.port for c in asked]),
    )
    for connection, code in zip(asked, codes, strict=True):
        explanation = evaluate(policies, cluster, connection, profile)
        assert explanation.verdict is VERDICTS[code], (connection, explanation)


def compiled_for(policies, cluster, profile):
    return compile_policies(policies, cluster, profile, others=all_ends(cluster))


@FEW
@given(clusters(), native_policies, st.sampled_from(list(PROFILES.values())))
def test_on_network_policies(cluster, policies, profile):
    assert_agreement(compiled_for(policies, cluster, profile), policies, cluster, profile)


@FEW
@given(
    clusters(),
    native_policies,
    st.lists(admin_policies, max_size=4),
    st.lists(foreign_policies, max_size=1),
    st.sampled_from(list(PROFILES.values())),
)
def test_on_policies_of_every_tier(cluster, native, admin, foreign, profile):
    policies = [*native, *admin, *foreign]
    assert_agreement(compiled_for(policies, cluster, profile), policies, cluster, profile, ports=(80,))


@settings(FEW, max_examples=20)
@given(clusters(), native_policies)
def test_on_every_port_that_matters(cluster, policies):
    assert_agreement(compiled_for(policies, cluster, GENERIC), policies, cluster, GENERIC, ports=PORTS)


@FEW
@given(clusters(), native_policies, raw_policies(), st.lists(admin_policies, max_size=1))
def test_a_changed_policy_gives_what_compiling_afresh_gives(cluster, policies, raw, admin):
    compiled = compiled_for([*policies, *admin], cluster, GENERIC)
    added = parse_policy(raw | {"metadata": {"namespace": "x", "name": "p0"}})
    after = [*(p for p in policies if str(p) != str(added)), added]
    assert_agreement(compiled.with_policy(added), [*after, *admin], cluster, GENERIC, ports=(80,))
    without = [p for p in after if p is not added]
    back = compiled.with_policy(added).without_policy(added)
    assert_agreement(back, [*without, *admin], cluster, GENERIC, ports=(80,))
    assert_agreement(compiled, [*policies, *admin], cluster, GENERIC, ports=(80,))  # the first one is as it was


@FEW
@given(clusters(), native_policies)
def test_isolated_ends_are_those_that_a_policy_selects(cluster, policies):
    compiled = compiled_for(policies, cluster, GENERIC)
    far = all_ends(cluster)[-1]
    for direction in Direction:
        isolated = compiled.isolated(direction)
        for end in all_ends(cluster):
            src, dst = (end, far) if direction is Direction.EGRESS else (far, end)
            connection = Connection(src=src, dst=dst, protocol=Protocol.TCP, port=80)
            said = explain_direction(direction, policies, cluster, connection)
            assert isolated[compiled.number(end)] == bool(said.policies)
            assert (said.outcome is DirectionOutcome.DEFAULT_ALLOW) <= (not said.policies)
