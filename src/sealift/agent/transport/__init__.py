"""The way to the server over HTTPS with a client certificate: the ``Transport`` port.

``https`` speaks, ``wire`` holds the TLS connection and watches every byte that comes,
``answers`` judges heads of answers, ``pace`` knows when slow is too slow. TLS carries
no authority here: whatever comes through is verified again by its signatures.
"""

from sealift.agent.transport.https import HttpsTransport, Limits
from sealift.agent.transport.wire import TlsFiles, tls_context

__all__ = ["HttpsTransport", "Limits", "TlsFiles", "tls_context"]
