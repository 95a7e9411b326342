"""The service's account at the API."""

from __future__ import annotations

import time
from typing import Callable

from ..errors import LoginRefused, Transient
from ..folder.records import Fact
from ..job.facts import SiteFault
from .away import SiteAway
from .pass_state import Faults

_IS_OLD = 300.0
"""Seconds for which a login is known to be good: a token may have been withdrawn."""
_LONGEST_RETRY_AFTER = 3600.0
"""Seconds; what an API asks for beyond it is not believed."""


class Login:
    """One login, when it is first needed, and none before the time that the API gave last. `authenticate`: returns a token,
    and raises LoginRefused and Transient."""

    def __init__(self, authenticate: Callable[[], str], last_fault: Fact[SiteFault], faults: Faults) -> None:
        self._authenticate, self._last_fault, self._faults = authenticate, last_fault, faults
        self._token, self._at = "", 0.0

    def is_old(self) -> bool:
        return not 0 <= time.time() - self._at < _IS_OLD

    def token(self) -> str:
        """Raises SiteAway."""
        if not self._at:
            self._token = self._log_in()
            self._at = time.time()
        return self._token

    def _log_in(self) -> str:
        fault = self._faults.read(self._last_fault)
        left = min(fault.not_before - time.time(), _LONGEST_RETRY_AFTER) if fault else 0
        if fault and left > 0:
            raise SiteAway(fault.kind, f"{fault.words}; it asked to be left alone for {left:.0f} s more", left)
        try:
            return self._authenticate()
        except LoginRefused as error:
            raise SiteAway("login", str(error)) from None
        except Transient as error:
            raise SiteAway("api", str(error), error.retry_after) from None
