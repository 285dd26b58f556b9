"""Which cluster's authenticator is asked about an agent, and what its word is good for."""

from aggregator.ingest.authenticate import ByCluster
from aggregator.model.agent import AgentIdentity, Presented


class Knows:
    def __init__(self, identity: AgentIdentity | None) -> None:
        self.identity = identity
        self.asked = 0

    async def authenticate(self, presented: Presented) -> AgentIdentity | None:
        assert presented.peer
        self.asked += 1
        return self.identity


def presented(cluster: str = "") -> Presented:
    return Presented(peer="ipv4:10.0.0.1:1", metadata={"wattle-cluster": cluster} if cluster else {})


def node(cluster: str | None) -> AgentIdentity:
    return AgentIdentity(cluster=cluster, agent_id="node-1")


async def test_a_token_is_shown_to_its_own_cluster_alone() -> None:
    east, west = Knows(node("east")), Knows(node("west"))
    both = ByCluster({"east": east, "west": west}, home="east")
    assert await both.authenticate(presented("west")) == node("west")
    assert (east.asked, west.asked) == (0, 1)
    assert await both.authenticate(presented()) == node("east"), "an agent that names none is of the home cluster"
    assert (east.asked, west.asked) == (1, 1)


async def test_a_cluster_that_is_not_known_vouches_for_nobody() -> None:
    assert await ByCluster({"east": Knows(node("east"))}, home="east").authenticate(presented("north")) is None


async def test_a_cluster_vouches_for_its_own_agents_alone() -> None:
    lying = ByCluster({"west": Knows(node("east"))}, home="west")
    assert await lying.authenticate(presented("west")) is None
