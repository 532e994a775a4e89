"""A client of the identity service for Python programs, sync and async.

::

    with Client("https://id.example.com") as client:
        client.sign_in("ada@example.com", "plum tractor wobble seventeen")
        print(client.session()["user"]["name"])

Needs ``pip install "routeguard[client]"``; that it is missing is said when a client is made, not at the import.
"""

from __future__ import annotations

from routeguard.client.aio import AsyncClient as AsyncClient
from routeguard.client.auth import KeyAuth as KeyAuth
from routeguard.client.auth import SignedAuth as SignedAuth
from routeguard.client.auth import TokenAuth as TokenAuth
from routeguard.client.errors import ClientProblem as ClientProblem
from routeguard.client.errors import ServiceUnavailable as ServiceUnavailable
from routeguard.client.errors import StepUpRequired as StepUpRequired
from routeguard.client.models import TokenPair as TokenPair
from routeguard.client.sync import Client as Client
