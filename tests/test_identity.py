"""One file can be read in many ways: work on one column is never taken for work on another."""

import numpy as np
import pytest
import tiny
from astropy import units as u

import bayesdust as bd
from bayesdust import evidence_run
from bayesdust.errors import BayesdustError
from bayesdust.inference.calibration import Trial
from bayesdust.inference.evidence import marks
from bayesdust.inference.programs import load
from bayesdust.runs import Request, run

SETTINGS = {"num_runs": 4, "num_particles": 100}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two velocities a star, and two proper motions, in one file."""
    monkeypatch.chdir(tmp_path)
    folder, table = tiny.lay_out(tmp_path), tiny.stars()
    rng = np.random.default_rng(2)
    table["v2"] = 2 * table["v_los"]
    table["p2"] = rng.uniform(0.5, 1.0, len(table))
    for name in ("pmra", "pmdec", "pm2"):
        table[name] = rng.normal(0.0, 0.1, len(table)) * u.mas / u.yr
        table[f"{name}_err"] = np.full(len(table), 0.1) * u.mas / u.yr
    table.write(folder / "stars.ecsv", format="ascii.ecsv", overwrite=True)
    return folder


def read(here, photometry=None, **columns):
    return bd.read_stars(here / "stars.ecsv", here / "mock.toml", columns, photometry=photometry)


def requests(here, **columns):
    """What a fit, an evidence and a calibration are known by."""
    program, stars = load(str(here / "tiny.py")), read(here, **columns)
    return (
        Request(program, stars).fingerprint(),
        evidence_run.Request(program, stars).fingerprint(),
        Trial(str(here / "tiny.py"), stars).fingerprint(),
    )


@pytest.mark.parametrize("columns", [{"v_los": "v2"}, {"pmra": "pm2"}, {"p_member": "p2"}])
def test_other_columns_are_another_request(here, columns):
    for one, same, other in zip(
        requests(here), requests(here), requests(here, **columns), strict=True
    ):
        assert one == same
        assert one != other


def test_a_stopped_fit_does_not_go_on_with_another_column(here, monkeypatch):
    program = load(str(here / "tiny.py"))

    def stopped(*arguments, **named):
        raise KeyboardInterrupt

    request = Request(program, read(here), settings=tiny.SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr("bayesdust.runs.write_tree", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(request, here / "out")
    assert list((here / "out" / ".partial").glob("chain*"))
    other = Request(program, read(here, v_los="v2"), settings=tiny.SETTINGS)
    with pytest.raises(BayesdustError, match="an unfinished run with other stars: repeat"):
        run(other, here / "out")


def test_checkpoints_are_of_one_thing(here):
    stars = read(here)
    for seed in (0, 0, 1):
        arguments = {"checkpoint": here / "kept", "seed": seed, **SETTINGS}
        if seed == 0:
            bd.log_evidence(here / "tiny.py", stars, **arguments)
            continue
        with pytest.raises(BayesdustError, match="kept holds checkpoints of other seed: give"):
            bd.log_evidence(here / "tiny.py", stars, **arguments)
    with pytest.raises(BayesdustError, match="holds checkpoints of other stars"):
        bd.log_evidence(
            here / "tiny.py", read(here, v_los="v2"), checkpoint=here / "kept", **SETTINGS
        )
    bd.fit(here / "tiny.py", stars, checkpoint=here / "draws", **tiny.SETTINGS)
    with pytest.raises(BayesdustError, match="draws holds checkpoints of other num_draws: give"):
        bd.fit(
            here / "tiny.py",
            stars,
            checkpoint=here / "draws",
            **(tiny.SETTINGS | {"num_draws": 200}),
        )


def test_evidences_of_other_data_are_told_apart(here):
    """By numbers, whichever file they are from; and by what the likelihood is of beside velocities."""
    (here / "again").mkdir()
    copy = tiny.lay_out(here / "again")
    light = tiny.stars()["x", "y"]
    plain, joint = {"light": "facts"}, {"light": "joint"}
    used = plain | {"proper_motions": "used"}
    own, moved = read(here), read(here, pmra="pm2")
    lit, other = read(here, photometry=light), read(here, photometry=light[:50])
    assert marks(own, plain, ["v_los"]) == marks(read(copy), plain, ["v_los"])
    assert marks(own, plain, ["v_los"]) == marks(moved, plain, ["v_los"])
    assert marks(own, plain, ["v_los"]) != marks(read(here, v_los="v2"), plain, ["v_los"])
    assert marks(own, used, ["pm", "v_los"]) != marks(moved, used, ["pm", "v_los"])
    sites = ["light", "v_los"]
    assert marks(lit, joint, sites) != marks(lit, {"light": "members"}, sites)
    assert marks(lit, joint, sites) != marks(other, joint, sites)
    assert marks(lit, plain, ["v_los"]) == marks(own, plain, ["v_los"])
