"""Sums of products on x86 processors without VNNI, whose fastest kernels add two neighbours in 16 bits, and saturate.

An activation is held as uint8, at most 255; with weights up to 127 two products can exceed 32767, and the answer is
wrong. Weights of 7 bits never do, nor do 8-bit ones beside unsigned activations of 7 bits. Elsewhere a layer can read
its input twice and split each weight in halves: the same sums, exact on every processor, for twice the products.
"""

from dataclasses import replace

import numpy as np

from compressor.deploy.machine import machine
from compressor.deploy.nodes import Graph, Grid, Layer, Node, Twice, Value

ROOM = 32767
"""What two products of neighbours may add up to."""


def saturates(layer: Layer, reads: Grid | None) -> bool:
    """Tell whether two products of a layer that reads so may exceed 16 bits; depthwise kernels add in 32."""
    if reads is None or layer.scale is None or layer.groups > 1:
        return False
    return 2 * reads.greatest * int(np.abs(layer.weight.astype(np.int64)).max(initial=0)) > ROOM


def saturating(graph: Graph) -> tuple[str, ...]:
    """Name the layers whose sums may saturate."""
    layers = (node for node in graph.nodes if isinstance(node, Layer))
    return tuple(node.name for node in layers if saturates(node, graph.values[node.reads[0]].grid))


def needed_here() -> bool:
    """Tell whether this processor needs `halved` stages; one that is not known may."""
    return machine().saturates is not False


def right_here(graph: Graph) -> Graph:
    """Give a stage that this processor computes right."""
    return halved(graph) if needed_here() else graph


def halved(graph: Graph) -> Graph:
    """Give a stage of the same answers whose sums never saturate: layers that would read twice, weights in halves."""
    wide = set(saturating(graph))
    nodes: list[Node] = []
    values = dict(graph.values)
    for node in graph.nodes:
        if not isinstance(node, Layer) or node.name not in wide:
            nodes.append(node)
            continue
        (source,) = node.reads
        twice = f"{source}.twice"
        if twice not in values:
            channels, *rest = values[source].shape
            values[twice] = Value((2 * channels, *rest), values[source].grid)
            nodes.append(Twice((source,), twice))
        half = node.weight // 2  # of -127 it is -64, which is within bounds
        nodes.append(replace(node, reads=(twice,), weight=np.concatenate([half, node.weight - half], axis=1)))
    return replace(graph, nodes=tuple(nodes), values=values)
