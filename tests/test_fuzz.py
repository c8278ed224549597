"""Files from strangers, in small: `make check-fuzz` reads a hundred thousand of them."""

import signal

import numpy as np
import pytest
from benchmarks.check_fuzz import _alarm, corpus, fuzz, mutated, outcome


@pytest.fixture(autouse=True)
def alarm():
    before = signal.signal(signal.SIGALRM, _alarm)
    yield
    signal.signal(signal.SIGALRM, before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(corpus()))
def test_a_damaged_file_is_read_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.check_fuzz.FOLDER", tmp_path)
    outcomes, faults = fuzz(name, 40, seed=1)
    assert not faults
    assert outcomes["refused"] > 10


def test_a_reader_that_fails_is_found_out(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")

    def bad(path):
        raise KeyError("x")

    assert outcome(bad, path)[0] == "FAULT"

    def endless(path):
        while True:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.check_fuzz.LONGEST", 0.05)
        what, sentence = outcome(endless, path)
    assert what == "FAULT"
    assert sentence.startswith("TooLongError")


def test_inputs_are_of_their_seed():
    content = corpus()["stars.csv"][0]
    one, again, other = (mutated(content, np.random.default_rng(s)) for s in (3, 3, 4))
    assert one == again != other
    assert one != content
