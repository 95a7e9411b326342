"""Downloads the inputs: streamed to disk, the token to the API's host only, retried as long as the site file says."""

from __future__ import annotations

import logging
from pathlib import Path

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay
from tenacity.wait import wait_exponential_jitter

from ..api import Api, TokenExpired
from ..errors import LoginRefused, StepFailed, Transient
from ..folder.paths import contents
from ..job import sentences
from ..job.spec import Input, JobSpec
from ..settings import Config

log = logging.getLogger(__name__)

_BACK_OFF = wait_exponential_jitter(initial=1, max=60)


def fetch(config: Config, spec: JobSpec, token_file: Path, folder: Path) -> int:
    """Fills `folder`, and removes the token; returns how many bytes came. Raises StepFailed with a sentence for the
    requester."""
    fetcher = Fetcher(config, token_file)
    fetcher.fetch_all(spec, folder)
    token_file.unlink(missing_ok=True)
    return fetcher.fetched


class Fetcher:
    """One session with the API, for one job after the other."""

    def __init__(self, config: Config, token_file: Path) -> None:
        self._api = Api(config)
        self._token = (contents(token_file) or b"").decode()
        self._may_log_in = True
        self._patience = config.site.api.fetch_patience
        self._most = self._left = config.site.limits.input_bytes
        self.fetched = 0

    def fetch_all(self, spec: JobSpec, folder: Path) -> int:
        """All inputs of one job; returns their bytes. Raises StepFailed."""
        self._may_log_in, self._left, self.fetched = True, self._most, 0
        for name, source in spec.inputs.items():
            self.fetch(name, source, folder / source.file)
        return self.fetched

    def fetch(self, name: str, source: Input, target: Path) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type(Transient),
            stop=stop_after_delay(self._patience),
            wait=self._wait,
            reraise=True,
        )
        try:
            size = retrying(self._once, name, source, target)
        except Transient as error:
            reason = sentences.not_fetched(name, self._patience, error.found)
            raise StepFailed("fetch", reason, may_work_again=True) from None
        except OSError as error:
            raise StepFailed(
                "fetch", f'The input "{name}" could not be stored ({error.strerror}).', may_work_again=True
            ) from None
        self._left -= size
        self.fetched += size
        log.info("fetched input=%r bytes=%d", name, size)

    def _once(self, name: str, source: Input, target: Path) -> int:
        try:
            return self._api.download(name, source, self._token, target, self._left)
        except TokenExpired as refused:
            if not self._may_log_in:
                raise StepFailed("fetch", str(refused)) from None
        self._log_in_again()
        return self._once(name, source, target)

    def _log_in_again(self) -> None:
        """The token may have been deleted while the job waited in Slurm's queue; one fresh login tells."""
        log.info("token refused, logging in once more")
        try:
            self._token = self._api.authenticate()
        except LoginRefused:
            reason = "The inputs could not be downloaded: the service's account was refused."
            raise StepFailed("fetch", reason, may_work_again=True) from None
        self._may_log_in = False

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, Transient) else 0
        # Never past our own patience: stop_after_delay looks at the time only before a wait.
        left = max(0.0, self._patience - (state.seconds_since_start or 0))
        log.warning("download failed, trying again why=%r", str(error))
        return min(max(asked, _BACK_OFF(state)), left)
