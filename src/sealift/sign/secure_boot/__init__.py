"""What a device's own boot chain has to believe: roots, boot files, keys, slot images.

One module for each verb of ``sealift release secure-boot``. The standard tools do the
work; only the hash tree is ours (``core.verity``). Each verb checks what it made with
another tool than the one that made it, and gives the digests that go into a release.
"""
