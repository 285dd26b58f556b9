"""A small real cluster without Kubernetes: `python -m lab up lab/shop.yaml`.

Pods are network namespaces whose processes sit in cgroups shaped like the kubelet's; Services are nft DNAT in a node's
namespace; dnsmasq is the cluster's DNS. One scenario file enters; a directory of plain Kubernetes objects and the
kubelet's log folders leave, both true to what runs.
"""
