"""What the doctor looks at: an installation, as far as its files can be read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import Fault
from ..settings import Config, Credentials, Site


@dataclass(frozen=True)
class Subject:
    root: Path
    site_file: Path
    credentials_file: Path
    site: Optional[Site]
    credentials: Optional[Credentials]
    faults: tuple[Fault, ...] = ()
    """Of both files."""
    input: str = ""
    """A path or URL of the API that must be readable."""
    on_node: bool = False
    """Whether this is a compute node."""

    @property
    def known_site(self) -> Site:
        """The defaults, where the site file can't be read: the network can be looked at all the same."""
        return self.site or Site(queues=(), workloads={}, ca_file=os.environ.get("SSL_CERT_FILE", ""))

    @property
    def ca_file(self) -> Optional[str]:
        return self.known_site.ca_file or None

    def config(self, credentials: Credentials) -> Config:
        return Config(self.root, self.site_file, self.credentials_file, self.known_site, credentials)


def read_subject(root: Path, site_file: Path, credentials_file: Path, an_input: str, on_node: bool = False) -> Subject:
    from ..config import read_separately

    site, credentials, faults = read_separately(root, site_file, credentials_file)
    return Subject(root, site_file, credentials_file, site, credentials, tuple(faults), an_input, on_node)
