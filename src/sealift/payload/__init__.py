"""Making payloads, at the desk and on the server, and looking into them.

``delta`` makes deltas, ``fence`` has that done by processes with limits, ``look`` tells
what an image or a container is made of; here are the parts they share, sealing and
patches for microcontrollers. What a device needs to take payloads apart is in ``core``;
nothing here runs on a device.
"""
