from __future__ import annotations

from pathlib import Path

import pytest

from tests.doctor.examined import Examined, prepared
from tests.scene import Scene
from tests.services.broker import Broker
from tests.services.slurm import SlurmCluster


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("on_disk")


@pytest.fixture
def scene(scene: Scene, rabbitmq: Broker, slurm: SlurmCluster) -> Scene:
    """One in which doctor finds nothing to mend."""
    return prepared(scene)


@pytest.fixture
def examined(scene: Scene, tmp_path: Path) -> Examined:
    return Examined(scene.installation, tmp_path / "cron")
