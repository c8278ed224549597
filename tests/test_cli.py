"""The command line: one sentence and exit code 2 for bad input, and runs that survive being killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Column
from dwarf_tables import mock
from tiny import MODEL, SLOW, fit_words, lay_out, stars

import bayesdust
from bayesdust.progress import Progress
from bayesdust.runs import load
from bayesdust.workplace import RESULTS, workplace

COMMANDS = ("demo", "fit", "report", "compare", "galaxies", "fetch", "models")
ENVIRONMENT = os.environ | {"PYTHONWARNINGS": "default"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model, a table and a galaxy, where the command is given."""
    monkeypatch.chdir(lay_out(tmp_path))
    return tmp_path


# A shell that runs the tests in the background makes them, and their children, deaf to Ctrl-C.
PROGRAM = """import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
from bayesdust.cli import main; main()"""


def start(folder: Path, *words: str) -> subprocess.Popen:
    """The command line in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# Bad input


def put(name, row, value):
    return lambda table: table[name].__setitem__(row, value)


def scaled(names, factor, unit=None):
    def change(table):
        for name in names:
            table[name] = Column(np.asarray(table[name]) * factor, unit=unit or table[name].unit)

    return change


TABLES = {
    "no errors": (lambda t: t.remove_column("v_los_err"), "no column for v_los_err; its columns"),
    "NaN": (put("v_los", 16, np.nan), "row 17, column v_los: the value is nan"),
    "infinite": (put("x", 3, np.inf), "row 4, column x: the value is inf"),
    "negative error": (put("v_los_err", 2, -1.0), "row 3, column v_los_err: the error -1 is neg"),
    "one zero": (put("v_los_err", 2, 0.0), "row 3, column v_los_err: the error is zero where"),
    "m/s": (scaled(["v_los"], 1000), "column v_los: the velocities scatter by"),
    "m/s advice": (scaled(["v_los"], 1000), "as --unit v_los=m/s."),
    "deg for arcmin": (scaled("xy", 60 / 84, "arcmin"), "columns x and y: the stars' median"),
    "deg advice": (scaled("xy", 60 / 84, "arcmin"), "as --unit x=deg --unit y=deg."),
    "identical": (lambda t: t.add_row(t[4]), "rows 5 and 101 are identical"),
    "few": (lambda t: t.remove_rows(slice(9, None)), "holds 9 stars, fewer than 10"),
    "none": (lambda t: t.remove_rows(slice(0, None)), "the table has no rows"),
}


def assert_refused(outcome, place, words, out="out"):
    """Exit code 2, one sentence on stderr, nothing on stdout and nothing written."""
    code, stdout, stderr = outcome
    assert words in stderr
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1
    assert len(stderr) < 600
    assert not (place / out).exists()


@pytest.mark.parametrize("case", TABLES)
def test_bad_tables(place, call, case):
    change, words = TABLES[case]
    table = stars()
    if case.startswith("deg"):  # degrees, said to be arcmin
        table["x"], table["y"] = (np.degrees(table[c] / 80.0) * 84 / 60 for c in "xy")
    change(table)
    table.write("stars.ecsv", format="ascii.ecsv", overwrite=True)
    outcome = call(*fit_words())
    assert_refused(outcome, place, words)
    assert "stars.ecsv" in outcome[2]


FILES = {
    "empty": (b"", "stars.ecsv: the file is empty"),
    "cut": (None, "the file may be truncated"),
    "binary": (bytes(range(256)), "stars.ecsv: is a binary file of an unknown kind"),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_files(place, call, case):
    content, words = FILES[case]
    path = place / "stars.ecsv"
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    assert_refused(call(*fit_words()), place, words)


def test_a_truncated_fits_file(place, call):
    stars().write("stars.fits")
    path = place / "stars.fits"
    path.write_bytes(path.read_bytes()[:-4000])
    words = [word.replace("stars.ecsv", "stars.fits") for word in fit_words()]
    assert_refused(call(*words), place, "stars.fits: is")


def replaced(old, new):
    return lambda words: [new if word == old else word for word in words]


def added(*more):
    return lambda words: [*words, *more]


def without(option):
    return lambda words: words[: words.index(option)] + words[words.index(option) + 2 :]


WORDS = {
    "no stars": (replaced("stars.ecsv", "nope.csv"), "nope.csv: cannot be read (No such file"),
    "unknown galaxy": (replaced("mock.toml", "dracoo"), "did you mean 'Draco'"),
    "no galaxy file": (replaced("mock.toml", "nope.toml"), "nope.toml"),
    "no model": (replaced("tiny.py", "nope"), "There is no model 'nope'"),
    "no model file": (replaced("tiny.py", "nope.py"), "There is no model 'nope.py'"),
    "photometry": (added("--photometry", "nope.csv"), "nope.csv: cannot be read"),
    "method": (added("--method", "guess"), "guess"),
    "no galaxy": (without("--galaxy"), "Missing option '--galaxy'"),
    "flag": (added("--zzz"), "No such option: --zzz (see bayesdust fit --help)"),
    "argument": (added("more"), "unexpected extra argument"),
    "chains": (added("--chains", "0"), "Invalid value for '--chains'"),
    "draws": (added("--draws", "99"), "Invalid value for '--draws'"),
    "seed": (added("--seed", "-1"), "Invalid value for '--seed'"),
    "text": (added("--seed", "one"), "Invalid value for '--seed'"),
    "seed of 64 bits": (added("--seed", str(2**63)), "Invalid value for '--seed'"),
    "no folder": (replaced("out", ""), "Invalid value for '--out': it is empty"),
    "setting": (added("--method", "vi"), "Method vi has no option --chains: leave it out"),
    "option": (added("--option", "frob=1"), "has no option 'frob'"),
    "choice": (added("--option", "anisotropy=round"), "anisotropy cannot be 'round'"),
    "pair": (added("--option", "frob"), "--option 'frob' should read KEY=VALUE"),
    "half a pair": (added("--unit", "v_los="), "--unit 'v_los=' should read KEY=VALUE"),
    "twice": (added("--unit", "x=kpc", "--unit", "x=pc"), "--unit x is given twice"),
    "column": (added("--column", "v_los=HRV"), "has no column 'HRV' (wanted for v_los)"),
    "quantity": (added("--column", "velocity=v"), "--column names 'velocity'"),
    "unit": (added("--unit", "v_los=parrots"), "'parrots' is not a unit"),
}


@pytest.mark.parametrize("case", WORDS)
def test_bad_words(place, call, case):
    change, words = WORDS[case]
    assert_refused(call(*change(fit_words())), place, words)


def test_advice_names_the_option(place, call):
    table = stars()
    table.rename_columns(["v_los", "v_los_err"], ["speed", "speed_err"])
    table.write("stars.ecsv", format="ascii.ecsv", overwrite=True)
    assert_refused(call(*fit_words()), place, "as --column v_los=NAME.")


def test_photometry_of_another_layout(place, call):
    """The advice can be followed: names and units of the photometric table are its own."""
    rng = np.random.default_rng(4)
    rows = rng.normal(0.0, 5.0, (300, 2))
    (place / "light.txt").write_text(
        "".join(f"{i} {x:.5f} {y:.5f}\n" for i, (x, y) in enumerate(rows))
    )
    words = [*fit_words(), "--photometry", "light.txt"]
    assert_refused(call(*words), place, "name the right ones, as --photometry-column ra=NAME.")
    words += ["--photometry-column", "x=col2", "--photometry-column", "y=col3"]
    wrong = [*words, "--photometry-unit", "x=km/s"]
    assert_refused(call(*wrong), place, "column col2: the unit km / s is not that of a length")
    words += ["--photometry-unit", "x=arcmin", "--photometry-unit", "y=arcmin"]
    assert call(*words)[0] in (0, 3)
    words = [*fit_words(), "--photometry-unit", "x=deg"]
    assert_refused(call(*words), place, "go with --photometry FILE.", out="other")


def test_stars_of_another_galaxy(place, call):
    mock("fornax").write("stars.ecsv", format="ascii.ecsv", overwrite=True)
    outcome = call(*replaced("mock.toml", "draco")(fit_words()))
    assert_refused(outcome, place, "Fornax is there: give it as the galaxy")


MODELS = {
    "syntax": ("def model(data:\n", "tiny.py, line 1 does not run (SyntaxError"),
    "import": ("import nope\n", "tiny.py, line 1 does not run (ModuleNotFoundError"),
    "model": (MODEL + "    1 / 0\n", "tiny.py, line 14 does not run (ZeroDivisionError"),
    "prepare": (
        MODEL + "\n\ndef prepare(stars, options):\n    return options['a']\n",
        "tiny.py, line 17 does not run (KeyError: 'a')",
    ),
    "contract": ("KIND = 'dwarf'\n", "tiny.py must define model(data)"),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_models(place, call, case):
    text, words = MODELS[case]
    (place / "tiny.py").write_text(text)
    assert_refused(call(*fit_words()), place, words)


def test_folders_that_will_not_do(place, call):
    (place / "file").write_text("mine")
    assert_refused(call(*fit_words("file")), place, "file is a file: give a folder")
    assert_refused(call(*fit_words("file/out")), place, "file/out cannot be written")
    with workplace(place / "busy", {}, False) as partial:
        code, stdout, stderr = call(*fit_words("busy"))
        assert (code, stdout) == (2, "")
        assert f"busy is in use by another run (process {os.getpid()})" in stderr
        assert {path.name for path in partial.iterdir()} == {"lock", "request.json"}
        for name in RESULTS:
            (partial / name).write_text("old")
    code, stdout, stderr = call(*fit_words("busy"))
    assert (code, stdout) == (2, "")
    assert stderr == "error: busy holds a finished run: add --overwrite to replace it.\n"
    assert {(place / "busy" / name).read_text() for name in RESULTS} == {"old"}


@pytest.mark.parametrize("words", [["frob"], ["--zzz"], ["models", "frob"], ["report"]])
def test_unknown_commands(call, words):
    code, stdout, stderr = call(*words)
    assert (code, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert "--help)." in stderr


def test_an_internal_error(call, monkeypatch, caplog):
    def broken():
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("bayesdust.catalogs.galaxies.built_in", broken)
    assert call("galaxies")[0] == 1
    assert "please report it" in caplog.text
    assert "a bug of ours" in caplog.text


# The small commands


def test_help(call):
    code, stdout, stderr = call()
    assert (code, stderr) == (0, "")
    assert stdout == call("--help")[1]
    for command in COMMANDS:
        assert f"\n  {command} " in stdout
        code, text, stderr = call(command, "--help")
        assert (code, stderr) == (0, "")
        assert max(map(len, text.splitlines())) <= 100
    text = " ".join(call("fit", "--help")[1].split())
    for words in ("MODEL", "STARS", "OURS=UNIT", "v_los=m/s", "3 the diagnostics failed"):
        assert words in text


def test_version(call):
    assert call("--version") == (0, f"bayesdust {bayesdust.__version__}\n", "")


def test_galaxies(call):
    code, stdout, stderr = call("galaxies")
    assert (code, stderr) == (0, "")
    assert "Draco " in stdout
    assert len(stdout.splitlines()) > 10


def test_models(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, stdout, stderr = call("models")
    assert (code, stderr) == (0, "")
    assert "\ndsph_gnfw " in f"\n{stdout}"
    assert call("models", "copy", "dsph_gnfw") == (0, "dsph_gnfw.py\n", "")
    assert call("models", "copy", "dsph_gnfw", "mine.py") == (0, "mine.py\n", "")
    assert (tmp_path / "mine.py").read_text() == (tmp_path / "dsph_gnfw.py").read_text()
    code, stdout, stderr = call("models", "copy", "dsph_gnfw")
    assert (code, stdout) == (2, "")
    assert "exists: choose another name" in stderr


def test_fetch(call, tmp_path, monkeypatch):
    asked = []

    def fetch(name, out, *, overwrite):
        asked.append((name, out, overwrite))
        return out

    code, stdout, stderr = call("fetch", "fornax", "--out", tmp_path / "a.ecsv")
    assert (code, stdout) == (2, "")
    assert "VizieR did not deliver" in stderr  # tests have no network
    monkeypatch.setattr("bayesdust.catalogs.fetch.fetch", fetch)
    words = ("fetch", "fornax", "--out", "a.ecsv", "--overwrite")
    assert call(*words) == (0, "a.ecsv\n", "")
    assert asked == [("fornax", Path("a.ecsv"), True)]


def test_small_commands_import_little(tmp_path):
    code = """
import json, sys
from bayesdust.cli import main
loaded = {}
for words in (["--help"], ["--version"], ["models"], ["galaxies"]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit:
        pass
    loaded[words[0]] = sorted({name.split(".")[0] for name in sys.modules})
print(json.dumps(loaded))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    heavy = {"arviz", "astropy", "equinox", "galpy", "matplotlib", "numpyro", "pandas", "xarray"}
    assert not heavy & set(loaded["models"])
    assert not (heavy - {"astropy"}) & set(loaded["galaxies"])


def test_demo_asks_for_its_own_run(call, monkeypatch, tmp_path):
    asked = []

    def stop(request, out, **settings):
        asked.append((request, out, settings))
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesdust.runs.run", stop)
    code, stdout, stderr = call("demo", "--out", tmp_path / "demo", "--seed", "7")
    assert (code, stdout) == (130, "")
    assert stderr.strip() == "interrupted: repeat the command to go on from what is done"
    ((request, out, settings),) = asked
    assert (request.program.name, request.stars.n) == ("dsph_gnfw", 1000)
    assert request.settings["seed"] == 7
    assert out == tmp_path / "demo"
    assert settings["spent"].keys() == {"import", "reading"}
    assert settings["command"][:2] == ["bayesdust", "demo"]


# Runs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run in one go, in a process of its own, which may use one core."""
    folder = lay_out(tmp_path_factory.mktemp("whole"), SLOW)
    process = start(folder, *fit_words())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process.pid, sorted(os.sched_getaffinity(0))[:1])
    stdout, stderr = process.communicate()
    return folder, process.returncode, stdout, stderr


def test_a_run_too_short_fails_and_says_so(finished):
    folder, code, stdout, stderr = finished
    assert code == 3
    assert stdout == "out/report.html: diagnostics FAILED\n"
    lines = stderr.splitlines()
    assert lines[0] == "compiling"
    assert lines[1].startswith("warm-up: ")
    assert "writing" in lines
    assert any("ESS" in line and "400 wanted" in line for line in lines)
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(RESULTS)
    page = (folder / "out" / "report.html").read_text()
    assert "Diagnostics failed" in page[page.index("<body") :][:1000]
    about = json.loads((folder / "out" / "run.json").read_text())
    assert about["command"] == "bayesdust " + " ".join(fit_words())


def test_a_report_made_again_has_the_same_verdict(finished, call):
    folder, *_ = finished
    page = (folder / "out" / "report.html").read_bytes()
    code, stdout, _ = call("report", folder / "out")
    assert (code, stdout) == (3, f"{folder}/out/report.html: diagnostics FAILED\n")
    assert (folder / "out" / "report.html").read_bytes() == page
    code, stdout, stderr = call("report", folder)
    assert (code, stdout) == (2, "")
    assert "holds no finished run" in stderr


def stopped_by(sign: int, folder: Path, phase: str) -> tuple[int, str]:
    """Start the run and send it a signal in a phase; its exit code and what it said after."""
    process = start(folder, *fit_words())
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    said = next((line for line in lines if line.startswith(phase) and ": 0 %" not in line), "")
    process.send_signal(sign)
    rest = process.communicate()[1]
    assert said, rest
    return process.returncode, rest


def test_a_run_interrupted_and_killed_gives_the_same_draws(finished, tmp_path):
    # on a busy machine a run may end before the signal comes
    for attempt in ("one", "two", "three"):
        (tmp_path / attempt).mkdir()
        folder = lay_out(tmp_path / attempt, SLOW)
        code, rest = stopped_by(signal.SIGINT, folder, "warm-up")
        if code == 3:
            continue
        assert code == 130
        assert rest.endswith("interrupted: repeat the command to go on from what is done\n")
        code, _ = stopped_by(signal.SIGKILL, folder, "sampling")
        if code != 3:
            break
    assert code == -signal.SIGKILL
    partial = folder / "out" / ".partial"
    assert 4 <= len(list(partial.glob("*.npz"))) < 8
    assert [path.name for path in (folder / "out").iterdir()] == [".partial"]

    process = start(folder, *fit_words())
    _, stderr = process.communicate()
    assert process.returncode == 3, stderr
    one, other = load(finished[0] / "out")[0], load(folder / "out")[0]
    for group in ("posterior", "sample_stats"):
        for name in one[group].data_vars:
            np.testing.assert_array_equal(one[group][name], other[group][name], err_msg=name)
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(RESULTS)


def test_what_is_compiled_is_kept_where_it_can_be(tmp_path, monkeypatch):
    import jax

    from bayesdust.cli import _keep_compiled

    (tmp_path / "file").touch()
    chosen = jax.config.jax_compilation_cache_dir
    _keep_compiled()
    assert jax.config.jax_compilation_cache_dir == chosen
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        for home, kept in (("file", None), ("new", str(tmp_path / "new" / "bayesdust" / "xla"))):
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / home))
            _keep_compiled()
            assert jax.config.jax_compilation_cache_dir == kept
    finally:
        jax.config.update("jax_compilation_cache_dir", chosen)


# Progress


class Stream:
    """A stream that may call itself a terminal."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        self.text = ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def go_through(show: Progress) -> None:
    show(0, 0, "compiling")
    for done in range(0, 4000, 100):
        show(done, 4000, "warm-up" if done < 2000 else "sampling")
    show(4000, 4000, "sampling")
    show(0, 0, "writing")


def test_progress_in_a_file_is_a_few_lines():
    stream = Stream(terminal=False)
    with Progress(stream) as show:
        go_through(show)
    lines = stream.text.splitlines()
    assert [lines[0], lines[1], lines[-2], lines[-1]] == [
        "compiling",
        "warm-up: 0 %",
        "sampling: 100 %",
        "writing",
    ]
    assert len(lines) == 13
    assert all(line.endswith(" left") for line in lines[2:-2])
    assert "\r" not in stream.text


def test_progress_on_a_terminal_is_a_bar():
    stream = Stream(terminal=True)
    with Progress(stream) as show:
        go_through(show)
    assert "\n" not in stream.text.rstrip("\n")
    for phase in ("compiling", "warm-up", "sampling", "writing"):
        assert phase in stream.text
    assert "100%" in stream.text
