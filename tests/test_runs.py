"""A run's folder: whole or not there at all, resumable, locked, and all that is in it."""

import contextlib
import errno
import fcntl
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tree import healthy
from tiny import MODEL, SETTINGS, lay_out

from bayesdust import runs
from bayesdust.catalogs.dwarf import read_stars
from bayesdust.errors import BayesdustError, ResumableError
from bayesdust.gate import Verdict
from bayesdust.inference.programs import load as load_program
from bayesdust.runs import Request, load, rewrite_report, run
from bayesdust.workplace import RESULTS, workplace

REQUEST = {"model": "a", "settings": {"seed": 0, "num_draws": 100}, "options": {}}


def contents(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def finish(out: Path, text: str = "new", overwrite: bool = False, request=REQUEST) -> None:
    with workplace(out, request, overwrite) as partial:
        for name in RESULTS:
            (partial / name).write_text(text)


def stop(out: Path, error=KeyboardInterrupt, work: str = "chain0-0000.npz", overwrite=False):
    with pytest.raises(error, match="stopped"):
        leave(out, error("stopped"), work, overwrite)


def leave(out: Path, error: BaseException, work: str, overwrite: bool) -> None:
    with workplace(out, REQUEST, overwrite) as partial:
        if work:
            (partial / work).write_text("work")
        raise error


def refusal(out: Path, request=REQUEST, overwrite: bool = False, error=BayesdustError) -> str:
    """What is said where a workplace cannot be had."""
    with pytest.raises(error) as caught, workplace(out, request, overwrite):
        pytest.fail("it could be had")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The workplace


def test_results_of_another_command_do_not_stay(tmp_path):
    finish(tmp_path)
    for name in ("weights.nc", "notes.txt"):
        (tmp_path / name).write_text("old")
    with workplace(tmp_path, REQUEST, True, ("evidence.ecsv", "run.json")) as partial:
        for name in ("evidence.ecsv", "run.json"):
            (partial / name).write_text("new")
    assert contents(tmp_path) == {"evidence.ecsv", "run.json", "notes.txt"}


def test_results_are_moved_and_nothing_else_is_left(tmp_path):
    out = tmp_path / "a" / "b"
    finish(out)
    assert contents(tmp_path) == {f"a/b/{name}" for name in RESULTS}
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULTS)


def test_the_mark_of_a_finished_run_comes_last(tmp_path, monkeypatch):
    """Killed while results are moved, the folder is not finished, and the same command mends it."""
    finish(tmp_path, "old")
    replace, moved = os.replace, []

    def killed(source, target):
        if Path(target).parent == tmp_path:
            if len(moved) == 2:
                raise KeyboardInterrupt
            moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        finish(tmp_path, "new", overwrite=True)
    monkeypatch.undo()
    assert moved == ["posterior.nc", "summary.ecsv"]
    assert not (tmp_path / "run.json").exists()
    finish(tmp_path, "newer")  # no need for overwrite: nothing finished is there
    assert {(tmp_path / name).read_text() for name in RESULTS} == {"newer"}
    assert not (tmp_path / ".partial").exists()


def test_old_results_survive_until_the_new_are_complete(tmp_path):
    finish(tmp_path, "old")
    for error in (KeyboardInterrupt, BayesdustError, RuntimeError):
        stop(tmp_path, error, work="posterior.nc", overwrite=True)
        assert {(tmp_path / name).read_text() for name in RESULTS} == {"old"}
    finish(tmp_path, "new", overwrite=True)
    assert {(tmp_path / name).read_text() for name in RESULTS} == {"new"}


def test_weights_are_moved_where_there_are_any_and_old_ones_go(tmp_path):
    for content in ("first", None):
        with workplace(tmp_path, {}, content is None) as partial:
            for name in RESULTS:
                (partial / name).write_text("new")
            if content:
                (partial / "weights.nc").write_text(content)
        assert (tmp_path / "weights.nc").exists() == (content is not None)


def test_what_cannot_be_done_leaves_nothing(tmp_path):
    out = tmp_path / "a" / "b"
    stop(out, BayesdustError)
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    stop(out, BayesdustError)
    assert contents(tmp_path) == {"a/b/notes.txt"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, ResumableError])
def test_work_is_kept_and_nothing_else(tmp_path, error):
    out = tmp_path / "out"
    stop(out, error, work="")
    assert list(tmp_path.iterdir()) == []
    stop(out, error)
    with workplace(out, REQUEST, False) as partial:
        assert (partial / "chain0-0000.npz").read_text() == "work"
        for name in RESULTS:
            (partial / name).write_text("new")
    assert contents(out) == set(RESULTS)


def test_another_request_does_not_go_on(tmp_path):
    stop(tmp_path / "out")
    other = REQUEST | {"model": "b", "settings": {"seed": 1, "num_draws": 100}}
    message = refusal(tmp_path / "out", other)
    assert "an unfinished run with other model, seed: repeat its command" in message
    assert (tmp_path / "out/.partial/chain0-0000.npz").exists()
    with workplace(tmp_path / "out", other, True) as partial:
        assert not (partial / "chain0-0000.npz").exists()
        for name in RESULTS:
            (partial / name).write_text("new")


@pytest.mark.parametrize("text", ["", "[]", "{", "{}"])
def test_a_damaged_request_is_another(tmp_path, text):
    stop(tmp_path)
    (tmp_path / ".partial" / "request.json").write_text(text)
    assert "an unfinished run with other" in refusal(tmp_path)


def test_a_killed_beginning_is_in_nobodys_way(tmp_path):
    """Without work in it, the folder of another request is taken over."""
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "lock").touch()
    (tmp_path / ".partial" / "request.json").write_text("{")
    finish(tmp_path)


def test_a_finished_run_is_kept(tmp_path):
    finish(tmp_path, "old")
    assert refusal(tmp_path).endswith("holds a finished run: add --overwrite to replace it.")
    assert {(tmp_path / name).read_text() for name in RESULTS} == {"old"}
    assert not (tmp_path / ".partial").exists()


def test_a_file_of_the_same_name_is_kept(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    assert "holds a report.html of something else" in refusal(tmp_path)
    assert contents(tmp_path) == {"report.html"}


def test_a_folder_in_use(tmp_path):
    with workplace(tmp_path, REQUEST, False) as partial:
        message = refusal(tmp_path)
        assert f"in use by another run (process {os.getpid()})" in message
        refusal(tmp_path, overwrite=True)
        assert partial.exists()
        for name in RESULTS:
            (partial / name).write_text("new")


def test_the_lock_of_a_dead_process_counts_for_nothing(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from bayesdust.workplace import workplace\n"
        f"with workplace(Path({str(tmp_path)!r}), {REQUEST!r}, False): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert (tmp_path / ".partial" / "lock").exists()
    finish(tmp_path)


def test_a_lock_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    """Another run finishes, and removes its workplace, between our opening its lock and locking."""
    flock, calls = fcntl.flock, []

    def late(file, operation):
        calls.append(file)
        if len(calls) == 1:
            os.unlink(tmp_path / ".partial" / "lock")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    finish(tmp_path)
    assert len(calls) == 2
    assert contents(tmp_path) == set(RESULTS)


def test_places_that_cannot_be_written(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    assert refusal(file) == f"{file} is a file: give a folder."
    for out in (file / "out", file / "a" / "out", tmp_path / ("a" * 300)):
        assert f"{out} cannot be written (" in refusal(out)
    assert contents(tmp_path) == {"file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    assert "cannot be written (Permission denied)" in refusal(tmp_path / "out")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_that_refuses(tmp_path, monkeypatch, code):
    def refuse(self, *args, **kwargs):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert f"({os.strerror(code)}): choose another folder" in refusal(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_the_system_are_not_hidden(tmp_path):
    with pytest.raises(FileNotFoundError), workplace(tmp_path / "out", REQUEST, False):
        (tmp_path / "nowhere" / "to be found").read_text()
    assert list(tmp_path.iterdir()) == []


# A run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("tiny"))


def tiny_request(folder: Path, **settings) -> Request:
    stars = read_stars(folder / "stars.ecsv", folder / "mock.toml")
    return Request(
        load_program(folder / "tiny.py"), stars, "nuts", {}, SETTINGS | settings, {"v_sys": 0.0}
    )


@pytest.fixture(scope="module")
def phases():
    return []


@pytest.fixture(scope="module")
def finished(folder, phases):
    verdict = run(
        tiny_request(folder),
        folder / "out",
        on_progress=lambda done, total, phase: phases.append(phase),
        spent={"import": 2.0, "reading": 1.0},
        command=["bayesdust", "fit", "my model.py"],
    )
    return folder / "out", verdict


def test_the_folder_of_a_run(finished):
    out, _ = finished
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULTS)


def test_posterior(finished):
    tree, _ = load(finished[0])
    assert {"posterior", "sample_stats", "prior", "posterior_predictive"} <= set(tree.children)
    assert {"observed_data", "constant_data", "truth"} <= set(tree.children)
    assert tree["posterior"]["v_sys"].shape == (2, 150)
    assert tree["posterior"]["v_sys"].attrs["units"] == "km/s"
    assert tree["prior"]["v_sys"].sizes["chain"] == 1
    assert tree["posterior_predictive"]["v_los"].sizes["star"] == 100
    assert float(tree["truth"]["v_sys"]) == 0.0
    units = {name: v.attrs["units"] for name, v in tree["constant_data"].data_vars.items()}
    assert units == {"v_los_err": "km/s", "R": "kpc", "xi": "rad", "eta": "rad"}
    assert tree.attrs["model"] == "tiny"
    assert json.loads(tree.attrs["parameters"]) == ["v_sys", "ln_sigma"]


def test_run_json(finished, phases):
    out, verdict = finished
    about = json.loads((out / "run.json").read_text())
    assert about["schema_version"] == 1
    assert about["command"] == "bayesdust fit 'my model.py'"
    assert (about["model"], about["method"], about["seed"]) == ("tiny", "nuts", 3)
    assert about["settings"] == SETTINGS
    assert len(about["data_sha256"]) == len(about["model_sha256"]) == 64
    assert about["units"]["v_los"] == "km / s"
    assert about["versions"].keys() >= {"python", "bayesdust", "jax", "numpyro"}
    assert about["passed"] is verdict.passed is False
    assert about["resumed"] is False
    walls = about["wall_seconds"]
    parts = ["import", "reading", "compile", "warmup", "sampling", "products", "writing"]
    assert list(walls) == [*parts, "total"]
    assert min(walls.values()) > 0
    assert sum(walls[part] for part in parts) == pytest.approx(walls["total"], abs=0.1)
    assert list(dict.fromkeys(phases)) == ["compiling", "warm-up", "sampling", "writing"]


def test_the_report_says_at_the_top_that_diagnostics_failed(finished):
    page = (finished[0] / "report.html").read_text()
    assert "Diagnostics failed" in page[page.index("<body") :][:1000]


def test_the_report_can_be_made_again(finished, tmp_path):
    out, verdict = finished
    before = {name: (out / name).read_bytes() for name in RESULTS}
    for name in ("report.html", "summary.ecsv"):
        (out / name).unlink()
    again = rewrite_report(out)
    assert {name: (out / name).read_bytes() for name in RESULTS} == before
    assert again.passed is verdict.passed


def test_folders_without_a_run(finished, tmp_path):
    with pytest.raises(BayesdustError, match=r"no finished run: there is no run\.json"):
        rewrite_report(tmp_path)
    for name in ("posterior.nc", "run.json"):
        for other in RESULTS:
            (tmp_path / other).write_bytes((finished[0] / other).read_bytes())
        for content in (b"", b"[1]", (finished[0] / name).read_bytes()[:-100]):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BayesdustError, match=r"run\.json is damaged: run the fit again"):
                rewrite_report(tmp_path)


@contextlib.contextmanager
def file_size_limit(size: int):
    """No file may grow beyond `size` bytes: as close to a full disk as a test can come."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_run_is_the_same_after_an_interruption(finished, folder, tmp_path, monkeypatch):
    """Stopped in sampling; then a full disk while results are written; then whole."""
    wanted, _ = load(finished[0])

    def interrupt(done, total, phase):
        if phase == "sampling":
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(tiny_request(folder), out, on_progress=interrupt)
    kept = contents(out)
    assert {".partial/chain0-0001.npz", ".partial/chain1-0001.npz"} <= kept
    assert not kept & set(RESULTS)

    with (
        pytest.raises(ResumableError, match=r"out cannot be written \(.*\): make room"),
        file_size_limit(50_000),
    ):
        run(tiny_request(folder), out)
    assert ".partial/chain1-0003.npz" in contents(out)
    assert not contents(out) & set(RESULTS)

    monkeypatch.setattr(runs, "write_report", lambda *args, **kwargs: only_a_verdict(args[1]))
    run(tiny_request(folder), out)
    tree, about = load(out)
    assert about["resumed"] is True
    for group in ("posterior", "sample_stats", "prior", "posterior_predictive"):
        for name in wanted[group].data_vars:
            np.testing.assert_array_equal(tree[group][name], wanted[group][name], err_msg=name)


def only_a_verdict(path: Path):
    """In place of a report, which takes its time."""
    path.write_text("report")
    return Verdict(passed=True, checks=(), method="nuts")


IMPOSSIBLE = {
    "no finite likelihood": (
        MODEL + '    numpyro.factor("wall", jnp.where(v_sys > 1e9, 0.0, -jnp.inf))\n',
        "finite likelihood",
    ),
    "does not run": (MODEL + "    data.nothing\n", "line 14 does not run (AttributeError"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_request_that_cannot_be_done_leaves_nothing(folder, tmp_path, case):
    model, words = IMPOSSIBLE[case]
    (tmp_path / "mine.py").write_text(model)
    request = tiny_request(folder)
    request = Request(load_program(tmp_path / "mine.py"), request.stars, settings=SETTINGS)
    with pytest.raises(BayesdustError) as error:
        run(request, tmp_path / "a" / "out")
    assert words in str(error.value)
    assert contents(tmp_path) == {"mine.py"}
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "change",
    [{"method": "guess"}, {"options": {"nothing": 1}}, {"settings": {"nothing": 1}}],
)
def test_unknown_names_leave_nothing(folder, tmp_path, change):
    request = tiny_request(folder)
    values = {"settings": SETTINGS} | change
    with pytest.raises(BayesdustError, match=r"nothing|guess"):
        run(Request(request.program, request.stars, **values), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_posterior_is_one_sentence(tmp_path):
    """Two thirds of it zero: no second complaint from h5netcdf when its half-open file is collected."""
    path = tmp_path / "posterior.nc"
    runs.write_tree(healthy(), path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3].ljust(len(content), b"\0"))
    code = (
        "import sys\nfrom pathlib import Path\nfrom bayesdust import runs\n"
        "try:\n    runs.read(Path(sys.argv[1]))\nexcept (ValueError, OSError):\n    print('refused')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "refused"
    assert "Traceback" not in found.stderr
