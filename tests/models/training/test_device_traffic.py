"""How often a training step on a GPU waits for the device, and what it copies: counted on the emulated GPU."""

import pytest

from tests import emulated_gpu
from tests.small_runs import config_maker, trainer_for

MOST = {"fetches": 1, "uploads": 4, "synchronisations": 1}  # lower a number when a copy or a wait is gone


@pytest.mark.skipif(not emulated_gpu.requested(), reason="copies are counted with TENSORLIB_TEST_GPU=emulated")
def test_copies_and_waits_of_a_training_step(tmp_path):
    from tests.emulated_gpu.device import counted

    config = config_maker(tmp_path)(backend="cupy", optim={"accumulate": 1}, steps=5)
    trainer = trainer_for(config, tmp_path / "run")
    trainer.step()  # the first step compiles kernels and makes tables
    with counted() as c:
        trainer.step()
    trainer.log.close(), trainer.run.lock.release()
    assert all(getattr(c, name) <= most for name, most in MOST.items()), c
