"""Making payloads, at the desk and on the server: deltas, sealing, looking into them.

What a device needs to take them apart is in ``core``; nothing here runs on a device.
"""
