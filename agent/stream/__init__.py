"""The stream: from the spool to the aggregator, over one gRPC call that is opened again and again."""

from agent.stream.channel import ChannelSecurity, MutualTls, PlaintextLoopback, TokenTls
from agent.stream.flowlink import FlowLinkStream, StreamConfig

__all__ = ["ChannelSecurity", "FlowLinkStream", "MutualTls", "PlaintextLoopback", "StreamConfig", "TokenTls"]
