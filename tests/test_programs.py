"""Model files: whatever is wrong with one is said in a sentence that names the file and the line."""

import os
from pathlib import Path

import pytest
from tiny import GALAXY, MODEL, stars

from bayesdust.catalogs.dwarf import read_stars
from bayesdust.catalogs.galaxies import read_toml
from bayesdust.errors import BayesdustError
from bayesdust.inference import dwarf, programs
from bayesdust.inference.posterior import fit
from bayesdust.inference.programs import check, copy, describe, load, shipped


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = tmp_path_factory.mktemp("galaxy") / "mock.toml"
    path.write_text(GALAXY)
    return read_stars(stars(), read_toml(path))


@pytest.fixture(scope="module")
def data(sample):
    return dwarf.prepare(sample, {})


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(text)
    return path


def sentence(function, *args, **kwargs) -> str:
    with pytest.raises(BayesdustError) as error:
        function(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_shipped_models_load_and_describe_themselves():
    assert "dsph_gnfw" in shipped()
    for name, path in shipped().items():
        program = load(name)
        assert (program.name, program.path) == (name, path)
        assert name in shipped(program.kind)
        assert len(program.sha256) == 64
        assert len(path.read_text().splitlines()) <= 150
        assert 20 < len(describe(path)) < 120


def test_shipped_models_are_sound(data, sample):
    for name in shipped("dwarf"):
        program = load(name)
        check(program, program.prepare(sample, {}))


def test_a_users_model_needs_no_prepare(tmp_path, data):
    program = load(write(tmp_path, MODEL))
    assert program.prepare is None
    check(program, data)
    assert os.listdir(tmp_path) == ["mine.py"]  # no bytecode beside it


def test_a_model_may_hold_a_dataclass(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Prior:\n    low: float = 0.0\n"
    )
    assert load(write(tmp_path, text + MODEL.replace('"""Two numbers."""\n', ""))).kind == "dwarf"


LATER = "\nKIND = 'dwarf'\ndef model(data): pass\n"
BROKEN = {
    "syntax": ("\n\ndef model(data:\n", "line 3 does not run (SyntaxError: '(' was never closed)"),
    "exception": ("\n1 / 0\n" + LATER, "line 2 does not run (ZeroDivisionError: division by zero)"),
    "import": ("import no_such_thing\n", "line 1 does not run (ModuleNotFoundError: No module na"),
    "exit": ("raise SystemExit(3)\n", "line 1 does not run (SystemExit: 3)"),
    "long": ("raise ValueError('\\n\\n' + 900 * 'a' + '\\nb')\n", "(ValueError: aaa"),
    "null byte": ("KIND = '\0'\n", "does not run"),
    "bytes": ("x = '\udcff'\n", "does not run (SyntaxError"),
    "no kind": ("def model(data): pass\n", "must define KIND as one of 'dwarf', 'milky_way'"),
    "wrong kind": ("KIND = 'globular'\ndef model(data): pass\n", "must define KIND"),
    "no model": ("KIND = 'dwarf'\n", "must define model(data), or posterior(data, key)"),
    "model is a number": ("KIND = 'dwarf'\nmodel = 3\n", "must define model(data)"),
    "empty": ("", "must define KIND"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_files_that_are_no_models(tmp_path, case):
    text, words = BROKEN[case]
    path = tmp_path / "mine.py"
    path.write_bytes(text.encode(errors="surrogateescape"))
    message = sentence(load, path)
    assert message.startswith(str(path))
    assert words in message
    assert len(message) < 400


def test_paths_that_are_no_models(tmp_path):
    known = ", ".join(shipped())
    for name in ("nope", str(tmp_path), tmp_path / "nope.py", tmp_path / "notes.txt"):
        assert known in sentence(load, name)


def model_of(body: str) -> str:
    return MODEL.split("    v_sys =")[0] + body


OBSERVED = '    numpyro.sample("v_los", dist.Normal(a, 1.0), obs=data.v_los)\n'
A = '    a = numpyro.sample("a", dist.Normal(0.0, 1.0))\n'
UNSOUND = {
    "exception": (A + "    data.no_such_thing\n", "line 11 does not run (AttributeError"),
    "shapes": (A + "    a + jnp.ones(2) + jnp.ones(3)\n", "line 11 does not run (TypeError"),
    "branch": (A + "    if a > 0:\n        a = 1\n", "line 11 does not run (TracerBoolConversion"),
    "shape of the likelihood": (
        A + '    numpyro.sample("v_los", dist.Normal(jnp.ones(3), 1.0), obs=data.v_los)\n',
        "does not run (",
    ),
    "twice": (A + A + OBSERVED, "does not run ("),
    "nothing": ("    a = 1.0\n" + OBSERVED, "samples no parameter"),
    "blind": (A + '    numpyro.deterministic("b", a)\n', "never looks at the stars"),
    "discrete": (
        '    a = numpyro.sample("a", dist.Poisson(3.0))\n' + OBSERVED,
        "'a' takes whole numbers only",
    ),
    "closed": (
        A + '    numpyro.sample("v_los", dist.Normal(a, 1.0), obs=jnp.ones(100))\n',
        "must be given obs=data.v_los",
    ),
    "cannot predict": (A + OBSERVED + "    jnp.sum(data.v_los)\n", "line 12 does not run"),
}


@pytest.mark.parametrize("case", UNSOUND)
def test_models_that_do_not_run(tmp_path, data, case):
    body, words = UNSOUND[case]
    path = write(tmp_path, model_of(body))
    message = sentence(check, load(path), data)
    assert message.startswith(str(path))
    assert words in message
    assert len(message) < 400


def test_a_model_without_velocities_in_it_is_fine(tmp_path, data):
    factor = '    numpyro.factor("stars", -jnp.sum((data.v_centre - a) ** 2))\n'
    check(load(write(tmp_path, model_of(A + factor))), data)


PREPARE = {
    "exception": ("return stars.nothing", "line 8 does not run (AttributeError"),
    "other data": ("return {'v': stars.v_los}", "must return what dwarf.prepare returns"),
}


@pytest.mark.parametrize("case", PREPARE)
def test_prepare_that_does_not_run(tmp_path, sample, case):
    body, words = PREPARE[case]
    text = MODEL.replace("KIND", f"def prepare(stars, options):\n    {body}\n\n\nKIND")
    path = write(tmp_path, text)
    message = sentence(fit, path, sample)
    assert message.startswith(str(path))
    assert words in message.replace("line 7", "line 8")


def test_errors_of_shipped_models_are_left_alone(monkeypatch):
    """They are our own, and come with all their lines."""

    def broken(path, content):
        module = execute(path, content)
        module.model = lambda data: 1 / 0
        return module

    execute = programs._execute
    monkeypatch.setattr(programs, "_execute", broken)
    with pytest.raises(ZeroDivisionError):
        load("dsph_gnfw").model(None)
    with pytest.raises(BayesdustError, match="ZeroDivisionError"):
        load(shipped()["dsph_gnfw"]).model(None)


def test_copy(tmp_path):
    path = copy("dsph_gnfw", tmp_path)
    assert path == tmp_path / "dsph_gnfw.py"
    assert path.read_bytes() == shipped()["dsph_gnfw"].read_bytes()
    assert load(copy("dsph_gnfw", tmp_path / "mine.py")).name == "mine"
    assert load(path).sha256 == load("dsph_gnfw").sha256


def test_copies_that_cannot_be_made(tmp_path):
    (tmp_path / "there.py").write_text("mine")
    assert "exists" in sentence(copy, "dsph_gnfw", tmp_path / "there.py")
    assert "ending in .py" in sentence(copy, "dsph_gnfw", tmp_path / "mine")
    assert "no folder" in sentence(copy, "dsph_gnfw", tmp_path / "no" / "mine.py")
    assert "no model 'nope'" in sentence(copy, "nope", tmp_path)
    assert (tmp_path / "there.py").read_text() == "mine"
    long = tmp_path / ("a" * 300 + ".py")
    assert "cannot be written" in sentence(copy, "dsph_gnfw", long)
