"""The installer of a microcontroller behind this device, its gateway.

The gateway keeps two copies, one per slot: of the image that runs over there and of the
one that shall. The new one is filled, verified and re-read here like that of any slot,
and only then does the microcontroller get a byte. So whatever goes wrong on the last
link, the whole image is at hand to be sent on, and so is the way back where the
microcontroller has one slot only.

A patch is nothing but a shorter way over that link. It is decoded here first, against
the copy of what runs over there (``core.mcu``); one that does not make the signed image
is not sent. Without a patch, a base for it or a loader that takes it, the image goes.

* Two slots: the image is sent while it is staged, next to the one that runs.
* One slot: sending destroys what runs. It waits for the gate, and for a copy here of
  what will be gone. From then on the microcontroller has its loader, which takes the
  same parcel again, and the gateway both images; a cut on either side costs time.

``installer`` has the five verbs, ``courier`` sends, ``copies`` are the images here.
"""

from sealift.agent.install.mcu.copies import Copies
from sealift.agent.install.mcu.courier import Courier, PatchSource
from sealift.agent.install.mcu.installer import McuInstaller

__all__ = ["Copies", "Courier", "McuInstaller", "PatchSource"]
