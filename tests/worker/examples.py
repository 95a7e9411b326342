"""A site, its credentials and its facts, for tests to vary. The site file speaks to both generations of a real service."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from worker.config import read_config
from worker.job.spec import Input, JobSpec, Resources, parse_spec
from worker.partial import Partial, Room
from worker.settings import Config, Form, Limits, Queue, ResourceRules, Seconds, Timing, Workload

if TYPE_CHECKING:
    from worker.api import Api

NOW = 1_700_000_000.0
API = "https://api.example.org"
ROOT = Path(__file__).resolve().parents[2]

SITE = """\
[[queues]]
name = "hpc-jobs"
workload = "train"

[queues.resources]
cpus = 2
memory_mb = 8000
time = "2h"
max_cpus = 48
max_memory_mb = 257000
max_time = "7d"
max_gpus = 4
gpus_by_memory = [
    { up_to_mb = 128000, gres = "gpu:1" },
    { up_to_mb = 192000, gres = "gpu:v100l:1" },
    { up_to_mb = 257000, gres = "gpu:p100l:4" },
]

[queues.resources.names]
cpus = "CPUs"
memory_mb = "Maximum memory (MB)"
time = "Maximum time (D-HH:MM)"
email = "Slurm Notification Email"

[workloads.train]
argv = ["/bin/true"]

[[workloads.train.forms]]
required = ["Image", "Background", "Music Layer", "Staff Layer", "Text", "Selected Regions"]
outputs = { "Background Model" = ".h5", "Music Symbol Model" = ".h5", "Staff Lines Model" = ".h5", "Text Model" = ".h5" }

[[workloads.train.forms]]
required = ["Image", "Background", "Selected Regions", "rgba PNG - Layer {n}"]
outputs = { "Background Model" = ".h5", "Model {n}" = ".h5" }
"""

CREDENTIALS = f"""\
RABBITMQ_HOST=mq.example.org
RABBITMQ_USER=mary
RABBITMQ_PASSWORD=mq-canary
API_URL={API}
API_USER=anna
API_PASSWORD=api-canary
"""


def write_files(folder: Path, site: str = SITE, credentials: str = CREDENTIALS, mode: int = 0o600) -> tuple[Path, Path]:
    """A site file and a credentials file."""
    site_file, credentials_file = folder / "site.toml", folder / "credentials.env"
    site_file.write_text(site, encoding="utf-8")
    credentials_file.write_text(credentials, encoding="utf-8")
    credentials_file.chmod(mode)
    return site_file, credentials_file


def read(folder: Path, site: str = SITE, credentials: str = CREDENTIALS, mode: int = 0o600) -> Config:
    """What the reader makes of these two files."""
    return read_config(folder, *write_files(folder, site, credentials, mode))


QUEUE = Queue(
    name="jobs",
    workload="copy",
    resources=ResourceRules(cpus=1, memory_mb=1000, time=Seconds(3600), max_cpus=8, max_memory_mb=16000,
                            max_time=Seconds(86400), max_gpus=2),
)  # fmt: skip
COPY = Workload(argv=("/bin/true",), forms=(Form(required=("Image",), outputs={"Copy": ".png"}),))


def parse(message: object, queue: Queue = QUEUE, workload: Workload = COPY, input_hosts: tuple[str, ...] = (),
          limits: Limits = Limits()) -> JobSpec:  # noqa: B008  # frozen  # fmt: skip
    """What becomes of a body, given as bytes or as what its JSON says."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return parse_spec(body, queue, {"copy": workload}, API, input_hosts, limits)


def asking(**more: Any) -> dict[str, Any]:
    """A good message and what else it says."""
    return {"inputs": {"Image": "/a.png"}, "settings": {}, **more}


SPEC = JobSpec(
    workload="copy",
    inputs={"Image": Input(f"{API}/a.png", "00_Image", with_token=True)},
    outputs={"Copy": "00_Copy.png"},
    settings={"depth": 3},
    resources=Resources(cpus=2, memory_mb=16000, time_seconds=7200),
)


def config_for(folder: Path, api_url: str = API, user: str = "anna", password: str = "api-canary",
               more: str = "", changes: Optional[Mapping[str, Any]] = None) -> Config:  # fmt: skip
    """A site whose jobs live in `folder` and whose API is at `api_url`; `changes` are fields of Site."""
    credentials = CREDENTIALS.replace(API, api_url).replace("anna", user).replace("api-canary", password)
    config = read(folder, f'jobs_dir = "jobs"\npython = {json.dumps(sys.executable)}\n{more}{SITE}', credentials)
    return replace(config, site=replace(config.site, **(changes or {})))


TIMING = Timing()
"""As the site file has it when it says nothing: 90 s to become visible, 300 s cut off, 120 s to adopt, 600 s to be lost."""


def download(api: Api, source: Input, token: str, target: Path, most: int) -> int:
    """One input called "Image", in one go."""
    return api.download(Partial("Image", source, target, Room(most, target.parent)), token)
