"""For the tests of applications: callers without a sign-in, in test mode (``Settings(environment="test")``).

::

    app.dependency_overrides[guard.current_session] = lambda: session_for(ada)

    with acting_as(guard, ada):
        assert client.get("/me").status_code == 200
"""

from __future__ import annotations

from routeguard.testing.acting import acting_as as acting_as
from routeguard.testing.principals import key_for as key_for
from routeguard.testing.principals import session_for as session_for
