"""Pass the connections between the ranks of a world through a process that can disturb them.

1. ``client.py`` runs in each rank. It wraps the store of each gloo group, so that the addresses of
   peers lead to the switch.
2. ``gloo_address.py`` reads and rewrites the address in what gloo writes to the store.
3. ``switch.py`` is a process of its own, so that it outlives each rank: the end of one rank is not
   visible to a rank on the other side of a partition.
4. ``stream.py`` passes the bytes of one direction of one connection, under its condition.
5. ``gloo_frames.py`` finds the payloads in such a stream.

``namespaces.py`` does the same in the kernel, for faults with ``real=True``, and ``real.py`` decides
if that is possible.

They exist only in worlds whose schedule has a fault of links.
"""
