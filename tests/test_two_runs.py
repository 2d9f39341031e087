"""Runs on one store at once, of which one is killed: the others finish, with nothing lost and nothing left over."""

import signal

from affuse.features.store import FeatureStore
from processes import SOUND_ALONE, Gate, shards
from whole import NAMES, Whole


def half_written(store) -> int:
    return len(list((store / "shards").rglob(".*.partial")))


def test_others_finish_and_a_dead_ones_file_goes_while_theirs_stay(tmp_path):
    """All are about to write the same video; the third begins, and clears up, when the first is dead."""
    whole, store = Whole(tmp_path / "whole", *SOUND_ALONE), tmp_path / "store"
    gate, runs = Gate(tmp_path, store), []
    gate.allow(0, "writing")

    def begin():
        run = whole.started(gate, store, "--workers", 0)
        runs.append(run)
        run.until(lambda: run.process.pid in gate.at("writing"), "the moment of writing")
        return run

    try:
        victim, second = begin(), begin()
        assert half_written(store) == 2
        victim.process.send_signal(signal.SIGKILL)
        victim.wait()
        third = begin()
        assert half_written(store) == 2  # of the second and third
        assert not shards(store)
        gate.allow(len(NAMES) + 1)
        assert [second.wait(), third.wait()] == [0, 0], second.said + third.said
    finally:
        for run in runs:
            run.end()
    assert half_written(store) == 0
    assert len(shards(store)) == len(FeatureStore(store)) == len(NAMES)
    whole.check(store)
    assert "nothing to do" in whole.extract(store).stderr
