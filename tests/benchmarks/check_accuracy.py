"""How accurate sigma_los is: `make check-accuracy` rewrites docs/results/accuracy.md.

Every registered halo x tracer x anisotropy, each with many parameters, at R/r* from 0.01 to 20:
the worst relative error, of `sigma_los` and of the coarser grid that the models use, against
`tests/independent.py` (other formulas, adaptive quadrature, the integrals in the other order); for
every combination the gradient in every parameter, reverse mode against finite differences and
against forward mode; and galpy's Jeans module as a second opinion.

What is finished is kept in build/check-accuracy, so the same command goes on where it was stopped;
a change of the package or of this check starts the part afresh that it touches.
"""

import argparse
import datetime
import functools
import hashlib
import itertools
import json
import math
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import independent  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from differences import finite_differences, sizes  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from registry_examples import (  # noqa: E402
    ANISOTROPY_EXAMPLES,
    HALO_EXAMPLES,
    TRACER_EXAMPLES,
    combinations,
)
from scipy.interpolate import CubicSpline  # noqa: E402

from bayesdust.anisotropy import ANISOTROPIES  # noqa: E402
from bayesdust.dynamics.jeans import FINE_STEP, STEP, JeansGrid, sigma_los, sigma_r  # noqa: E402
from bayesdust.potentials import NFW, Zhao  # noqa: E402
from bayesdust.potentials.halos import HALOS  # noqa: E402
from bayesdust.products import d_factor, j_factor  # noqa: E402
from bayesdust.tracers import TRACERS, Plummer  # noqa: E402
from bayesdust.units import D_GEV_CM2, J_GEV2_CM5, G  # noqa: E402

# what the numbers depend on
PACKAGE = sorted(
    Path(str(module.__file__))
    for name, module in sys.modules.items()
    if name.startswith("bayesdust.")
)
LIMIT = 1e-4
FAINTEST = 1e-20  # of the central surface density: further out a steep profile has no star at all
SCALE = 0.25  # r* [kpc]
RADII = SCALE * np.geomspace(0.01, 20, 13)
#: (r_a/r*, eta) of Baes-van Hese
SHARPNESS = ((0.3, 2.0), (2.0, 0.5), (1.0, 1.0), (1.0, 3.0), (1.0, 4.0), (5.0, 4.0), (1.0, 8.0))
#: what the coarser grid is not made for, and the models shipped do not have: see JeansGrid.build
SHARPEST = 3.0  # eta
SHARP = ("corenfwtides", "baes_van_hese, eta > 3")
GALPY_AT = (2, 5, 8, 9)  # of RADII; further out galpy's absolute tolerance is too large
STEPS = {"fine": FINE_STEP, "default": STEP}
Spec = independent.Spec
Combination = tuple[Spec, Spec, Spec]


def product(name: str, **values: Sequence[Any]) -> list[Spec]:
    """One spec for every combination of the values."""
    return [
        (name, dict(zip(values, some, strict=True))) for some in itertools.product(*values.values())
    ]


def halo_grid() -> list[Spec]:
    """Scale radii from well inside to far outside the stars, inner slopes from 0 to 1.9."""
    rho_s, r_s, slopes = [6.4e7], [0.4 * SCALE, 4 * SCALE, 40 * SCALE], [0.0, 0.5, 1.0, 1.5, 1.9]
    common = {"rho_s": rho_s, "r_s": r_s}
    specs = product("gnfw", **common, gamma=slopes)
    for alpha, beta in ((2.0, 4.0), (1.0, 2.5), (0.5, 4.0), (3.0, 3.5), (1.0, 3.0), (2.0, 6.0)):
        specs += product("zhao", **common, alpha=[alpha], beta=[beta], gamma=[0.0, 1.0, 1.9])
    specs += product("nfw", **common) + product("burkert", **common)
    specs += product("einasto", **common, alpha=[0.1, 0.17, 0.5, 1.0])
    specs += product(
        "corenfwtides",
        **common,
        r_c=[0.5 * SCALE, 2 * SCALE],
        n=[0.1, 1.0],
        r_t=[0.5 * SCALE, 2 * SCALE, 10 * SCALE],
        delta=[3.5, 5.0],
    )
    return specs + missing(HALOS, HALO_EXAMPLES, specs)


def tracer_grid() -> list[Spec]:
    """Cored and cuspy, shallow and steep; every size is r*."""
    zhao = [(2, 5, 0), (2, 5, 0.1), (2, 5, 1), (1, 3.2, 0.5), (1, 4, 0), (4, 4, 0.1)]
    zhao += [(2, 6, 2), (4, 9, 0)]
    specs = product("plummer", a=[SCALE])
    specs += [
        ("zhao", {"r_s": SCALE, "alpha": float(a), "beta": float(b), "gamma": float(c)})
        for a, b, c in zhao
    ]
    specs += product("exponential", R_d=[SCALE])
    specs += product("sersic", R_e=[SCALE], m=[0.5, 0.7, 1.0, 2.0, 4.0, 8.0])
    sizes, weights = np.array([0.4, 2.0]) * SCALE, np.array([1.0, 2.0])
    specs.append(("plummer_sum", {"a": sizes, "weights": weights}))
    return specs + missing(TRACERS, TRACER_EXAMPLES, specs)


def anisotropy_grid() -> list[Spec]:
    """beta from -3 to 0.9, and to 1 outside for the profiles that go there."""
    specs: list[Spec] = [("isotropic", {})]
    specs += product("constant", beta_0=[-3.0, -1.0, -0.3, 0.3, 0.5, 0.7, 0.9])
    specs += product("osipkov_merritt", r_a=[0.1 * SCALE, 0.3 * SCALE, SCALE, 4 * SCALE])
    for beta_0, beta_inf in ((0.0, 1.0), (-3.0, 0.9), (0.9, -3.0), (-0.5, 0.5)):
        for r_a, eta in SHARPNESS:
            values = {"beta_0": beta_0, "beta_inf": beta_inf, "r_a": r_a * SCALE, "eta": eta}
            specs.append(("baes_van_hese", values))
    return specs + missing(ANISOTROPIES, ANISOTROPY_EXAMPLES, specs)


def missing(registry: Any, examples: Any, specs: list[Spec]) -> list[Spec]:
    """The examples of entries that no grid above has: a new profile is checked without more."""
    known = {name for name, _ in specs}
    return [(name, fields) for name in registry if name not in known for fields in examples[name]]


@dataclass(frozen=True)
class Grid:
    """What is compared: a full product."""

    halos: list[Spec] = field(default_factory=halo_grid)
    tracers: list[Spec] = field(default_factory=tracer_grid)
    anisotropies: list[Spec] = field(default_factory=anisotropy_grid)
    radii: np.ndarray = field(default_factory=lambda: RADII)


# --- references ---------------------------------------------------------------------------------


def references(grid: Grid, folder: Path | None = None) -> np.ndarray:
    """sigma_los (anisotropies, radii, tracers, halos) by adaptive quadrature, kept in `folder`."""
    found = side_by_side(
        "references, by radius", functools.partial(at_radius, grid, folder), grid.radii
    )
    return np.stack([found[float(R)] for R in grid.radii], axis=1)


def at_radius(grid: Grid, folder: Path | None, R: float) -> np.ndarray:
    """sigma_los (anisotropies, tracers, halos) at one R."""
    kept = folder / f"reference-{R:.6g}.npy" if folder else None
    if kept and kept.exists():
        return np.load(kept)
    sources = independent.Sources(grid.halos, grid.tracers)
    values = np.stack([independent.dispersions(R, sources, a) for a in grid.anisotropies])
    if kept:
        np.save(kept.with_suffix(".part.npy"), values)
        kept.with_suffix(".part.npy").rename(kept)
    return values


def side_by_side(stage: str, function: Callable[[Any], Any], arguments: Sequence[Any]) -> dict:
    """{argument: function(argument)}, a process on every core, or here where there is little to do."""
    values = [a.item() if isinstance(a, np.generic) else a for a in arguments]
    if len(values) < 8:
        return {value: function(value) for value in values}
    progress, found = Progress(stage, len(values)), {}
    # a process that has compiled for many combinations runs out of room for programs: a few each
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), maxtasksperchild=5) as pool:
        for value, result in pool.imap_unordered(functools.partial(_paired, function), values):
            found[value] = result
            progress.step()
    return found


# --- the package --------------------------------------------------------------------------------


def build(kinds: tuple[str, str, str], fields: Sequence[Any]) -> tuple[Any, Any, Any]:
    halo, tracer, anisotropy = kinds
    return (
        HALOS[halo](**fields[0]),
        TRACERS[tracer](**fields[1]),
        ANISOTROPIES[anisotropy](**fields[2]),
    )


@functools.cache
def _dispersions(halo: str, tracer: str, anisotropy: str) -> Any:
    """Compiled sigma_los (anisotropies, halos, radii) of stacked parameters."""

    def one(grid, halo_fields, tracer_fields, anisotropy_fields):
        fields = (halo_fields, tracer_fields, anisotropy_fields)
        return jnp.sqrt(grid.variance(*build((halo, tracer, anisotropy), fields)))

    over_halos = jax.vmap(one, (None, 0, None, None))
    if anisotropy == "isotropic":
        return jax.jit(lambda *args: over_halos(*args)[None])
    return jax.jit(jax.vmap(over_halos, (None, None, None, 0)))


def floats(fields: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, dtype=float), fields)


def stack(specs: Sequence[Spec]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *[floats(fields) for _, fields in specs])


def places(specs: Sequence[Spec], name: str) -> list[int]:
    return [i for i, (kind, _) in enumerate(specs) if kind == name]


def names(specs: Sequence[Spec]) -> list[str]:
    return list(dict.fromkeys(name for name, _ in specs))


def kinds_of(specs: Sequence[Spec]) -> dict[str, list[int]]:
    """Places of the anisotropies by name, sharp ones of Baes-van Hese apart."""
    found: dict[str, list[int]] = {}
    for i, (name, fields) in enumerate(specs):
        sharp = fields.get("eta", 0.0) > SHARPEST
        found.setdefault(f"{name}, eta > {SHARPEST:g}" if sharp else name, []).append(i)
    return found


def errors_of_tracer(
    grid: Grid, tracer_index: int, expected: np.ndarray, step: float = STEP
) -> dict[str, Any]:
    """Worst error of every halo and anisotropy with one tracer, and where it is."""
    name, fields = grid.tracers[tracer_index]
    tracer_fields = floats(fields)
    surface_density = independent.tracer(name, fields)[1](grid.radii)
    seen = surface_density > FAINTEST * surface_density[0]
    radii, expected = grid.radii[seen], expected[:, seen]
    jeans = JeansGrid.build(radii, TRACERS[name](**tracer_fields), floor=0.0, step=step)
    worst: dict[str, Any] = {}
    kinds = kinds_of(grid.anisotropies)
    for halo, label in itertools.product(names(grid.halos), kinds):
        h, a, anisotropy = places(grid.halos, halo), kinds[label], label.split(",")[0]
        stacked = {} if anisotropy == "isotropic" else stack([grid.anisotropies[i] for i in a])
        halos = stack([grid.halos[i] for i in h])
        got = np.asarray(_dispersions(halo, name, anisotropy)(jeans, halos, tracer_fields, stacked))
        wanted = expected[np.ix_(a, range(len(radii)), [tracer_index], h)][:, :, 0]
        error = np.abs(got.transpose(0, 2, 1) / wanted - 1)
        error = np.where(np.isfinite(error), error, np.inf)
        i, j, k = np.unravel_index(np.argmax(error), error.shape)
        worst[f"{halo}|{name}|{label}"] = {
            "error": float(error[i, j, k]),
            "above": int(np.sum(error > LIMIT)),
            "count": int(error.size),
            "R": float(radii[j]),
            "fields": readable([grid.halos[h[k]], (name, fields), grid.anisotropies[a[i]]]),
        }
    return worst


def readable(specs: Sequence[Spec]) -> str:
    return "; ".join(
        ", ".join(f"{k}={np.array2string(np.asarray(v), precision=3)}" for k, v in fields.items())
        for _, fields in specs
    )


def gradient_errors(
    combination: Combination, radii: np.ndarray, *, compiled: bool = False, seed: int = 0
) -> dict[str, float]:
    """Reverse mode against finite differences in every parameter, and against forward mode.

    Of ln sigma_los^2 in the parameters divided by their size, so that errors are relative ones.
    `compiled` pays for one combination; for many, operation by operation is faster.
    """
    kinds = tuple(name for name, _ in combination)
    numbers = floats(tuple(fields for _, fields in combination))
    jeans = JeansGrid.build(radii, TRACERS[kinds[1]](**numbers[1]), floor=0.0)
    flat, unflatten = ravel_pytree(numbers)
    direction = sizes(flat) * np.random.default_rng(seed).normal(size=len(flat))

    def ln_variance(x):
        return jnp.log(jeans.variance(*build(kinds, unflatten(x))))

    def both(x):
        return jax.jacrev(ln_variance)(x), jax.jvp(ln_variance, (x,), (direction,))[1]

    reverse, forward = (jax.jit(both) if compiled else both)(flat)
    differences = finite_differences(ln_variance, flat)
    return {
        "finite_differences": float(np.max(np.abs(reverse * sizes(flat) - differences))),
        "forward": float(np.max(np.abs(reverse @ direction - forward))),
    }


def jeans_residual(combination: Combination) -> float:
    """d(nu sigma_r^2)/dr + 2 beta nu sigma_r^2/r + nu G M/r^2 over its last term, at the worst."""
    halo, tracer, anisotropy = build(
        tuple(name for name, _ in combination), [fields for _, fields in combination]
    )

    def pressure(r):
        return tracer.density(r) * sigma_r(r, halo, tracer, anisotropy) ** 2

    r = SCALE * jnp.array([0.2, 1.2, 4.0])
    p, slope = jax.jvp(pressure, (r,), (jnp.ones_like(r),))
    force = tracer.density(r) * G * halo.enclosed_mass(r) / r**2
    return float(jnp.max(jnp.abs((slope + 2 * anisotropy.beta(r) * p / r) / force + 1)))


def galpy_difference(combination: Combination, radius: float) -> float:
    """sigma_los here over galpy.df.jeans, which integrates in the usual order, minus one."""
    from bayesdust.interop import GALPY_RO as RO
    from bayesdust.interop import GALPY_VO as VO
    from bayesdust.interop import silence_galpy

    silence_galpy()
    from galpy.df import jeans as galpy_jeans
    from galpy.potential.SphericalPotential import SphericalPotential

    mass = independent.halo(*combination[0])[1]

    class GalpyHalo(SphericalPotential):  # the door of interop would work too, more slowly
        def _rforce(self, r, t=0.0):
            return -G * float(mass(r * RO)) / (r**2 * RO * VO**2)

    halo, tracer, anisotropy = build(
        tuple(name for name, _ in combination), [fields for _, fields in combination]
    )
    nu, sigma = independent.tracer(*combination[1])
    beta, _ = independent.anisotropy(*combination[2])
    constant = combination[2][0] in ("isotropic", "constant")
    if combination[1][0] in (
        "sersic",
        "exponential",
    ):  # nu is itself an integral there: a table of it
        x = np.linspace(np.log(1e-6), np.log(1e3), 4000)
        with np.errstate(divide="ignore"):
            ln_nu = np.maximum(np.log(nu(np.exp(x))), np.log(1e-200))
        spline = CubicSpline(x, ln_nu)
        nu = lambda r: math.exp(spline(math.log(r)))  # noqa: E731
    theirs = VO * galpy_jeans.sigmalos(
        GalpyHalo(),
        radius / RO,
        dens=lambda x: max(float(nu(x * RO)), 1e-200),  # galpy divides by it
        surfdens=float(sigma(radius)) / RO,
        beta=beta(1.0) if constant else (lambda x: beta(x * RO)),
        use_physical=False,
    )
    jeans = JeansGrid.build(RADII, tracer, floor=0.0)
    place = int(np.argmin(np.abs(RADII - radius)))
    assert RADII[place] == radius
    return float(jnp.sqrt(jeans.variance(halo, tracer, anisotropy))[place] / theirs - 1)


# --- the command --------------------------------------------------------------------------------


class Progress:
    """Prints how far a stage is and how long it still takes, every few seconds."""

    def __init__(self, stage: str, total: int):
        self.stage, self.total, self.done = stage, total, 0
        self.start = self.shown = time.monotonic()

    def step(self) -> None:
        self.done += 1
        now = time.monotonic()
        if now - self.shown > 5 or self.done == self.total:
            self.shown = now
            left = (now - self.start) / self.done * (self.total - self.done)
            print(f"{self.stage}: {self.done} of {self.total}, {left:.0f} s left", flush=True)


class Kept:
    """Finished pieces of a stage in one file of JSON lines."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {}
        for line in lines:
            try:
                self.known |= json.loads(line)
            except json.JSONDecodeError:  # the last line of a run that was stopped
                continue

    def get(self, key: str, make: Any) -> Any:
        if key not in self.known:
            self.known[key] = make()
            with self.path.open("a") as out:
                out.write(json.dumps({key: self.known[key]}) + "\n")
        return self.known[key]


def digest(*parts: Any) -> str:
    text = b"".join(p.read_bytes() if isinstance(p, Path) else repr(p).encode() for p in parts)
    return hashlib.sha256(text).hexdigest()[:12]


def commit() -> str:
    def git(*args: str) -> str:
        run = subprocess.run(["git", *args], cwd=REPOSITORY, capture_output=True, text=True)
        return run.stdout.strip() if run.returncode == 0 else ""

    changed = " with uncommitted changes" if git("status", "--porcelain", "bayesdust") else ""
    return (git("rev-parse", "--short", "HEAD") or "none yet") + changed


def measure(grid: Grid, cache: Path) -> dict[str, Any]:
    """All three comparisons, resuming from `cache`."""
    here = Path(__file__)
    yardstick = Path(independent.__file__)
    references_at = cache / f"references-{digest(yardstick, grid)}"
    references_at.mkdir(parents=True, exist_ok=True)
    expected = references(grid, references_at)
    kept = Kept(cache / f"{digest(here, yardstick, *PACKAGE, grid)}.jsonl")

    errors: dict[str, Any] = {}
    for name, step in STEPS.items():
        wanted = [i for i in range(len(grid.tracers)) if f"errors {name} {i}" not in kept.known]
        keep = functools.partial(keep_errors, kept, grid, expected, name, step)
        side_by_side(f"errors ({name} step), by tracer", keep, wanted)
        kept = Kept(kept.path)
        errors[name] = {}
        for index in range(len(grid.tracers)):
            for key, value in kept.known[f"errors {name} {index}"].items():
                before = errors[name].get(key, {"error": -1.0, "above": 0, "count": 0})
                best = value if value["error"] > before["error"] else before
                totals = {k: value[k] + before[k] for k in ("above", "count")}
                errors[name][key] = best | totals

    every = ["|".join(name for name, _ in combination) for combination in combinations()]
    found = {}
    for stage, measure_one in (
        ("gradient", gradient_of),
        ("jeans", residual_of),
        ("galpy", galpy_of),
    ):
        keep = functools.partial(keep_one, kept, stage, measure_one)
        wanted = [i for i, key in enumerate(every) if f"{stage} {key}" not in kept.known]
        side_by_side(f"{stage}, by combination", keep, wanted)
        kept = Kept(kept.path)
        found[stage] = {key: kept.known[f"{stage} {key}"] for key in every}
    gradients, residuals, galpy = found["gradient"], found["jeans"], found["galpy"]
    return {"errors": errors, "gradients": gradients, "galpy": galpy, "jeans": residuals}


def _paired(function: Callable[[Any], Any], value: Any) -> tuple[Any, Any]:
    return value, function(value)


def keep_errors(
    kept: Kept, grid: Grid, expected: np.ndarray, name: str, step: float, index: int
) -> None:
    """Compare one tracer at one step and keep the result."""
    kept.get(f"errors {name} {index}", lambda: errors_of_tracer(grid, index, expected, step))


def keep_one(
    kept: Kept, stage: str, measure_one: Callable[[Combination], Any], number: int
) -> None:
    """Measure one combination, in a process of its own kind, and keep the result."""
    combination = list(combinations())[number]
    key = "|".join(name for name, _ in combination)
    kept.get(f"{stage} {key}", lambda: measure_one(combination))


def gradient_of(combination: Combination) -> dict[str, float]:
    return gradient_errors(combination, SCALE * np.geomspace(0.05, 10, 5))


def residual_of(combination: Combination) -> float:
    return jeans_residual(combination)


def galpy_of(combination: Combination) -> float:
    """The worst of `GALPY_AT`; NaN where galpy fails at all of them."""
    found = [abs(galpy_difference(combination, float(RADII[i]))) for i in GALPY_AT]
    return max((d for d in found if math.isfinite(d)), default=math.nan)


def known_values() -> Iterator[str]:
    """sigma_los, J and D beside numbers that others worked out (the tests hold them)."""
    from test_jeans import README_RADII, README_SIGMA
    from test_products import CORE, CUSP, REFERENCE_D, REFERENCE_DISTANCES, REFERENCE_J

    yield "Known dispersions of a Plummer tracer (a = 0.25 kpc) in the cusp (NFW, 6.4e7 Msun/kpc3, 1 kpc):"
    yield ""
    yield "| orbits | R [kpc] | known [km/s] | here |"
    yield "|---|---|---|---|"
    for orbits, known in README_SIGMA.items():
        here = sigma_los(README_RADII, NFW(6.4e7, 1.0), Plummer(0.25), orbits)
        for R, one, other in zip(README_RADII, known, here, strict=True):
            yield f"| {type(orbits).__name__} | {R:g} | {one:.5f} | {float(other):.5f} |"
    yield ""
    yield "Known log10 of J(0.5 deg) [GeV2 cm-5] and D(0.5 deg) [GeV cm-2], without truncation:"
    yield ""
    yield "| halo | distance [kpc] | J known | J here | D known | D here |"
    yield "|---|---|---|---|---|---|"
    for name, halo in (("cusp", CUSP), ("core", CORE)):
        for i, distance in enumerate(REFERENCE_DISTANCES):
            J = math.log10(float(j_factor(halo, 0.5, distance)))
            D = math.log10(float(d_factor(halo, 0.5, distance)))
            yield (
                f"| {name} | {distance:g} | {REFERENCE_J[name][i]:.6f} | {J:.6f} "
                f"| {REFERENCE_D[name][i]:.3f} | {D:.3f} |"
            )
    yield ""
    worst = factors_against_quadrature()
    yield (
        f"J and D of {len(worst)} Zhao haloes (gamma 0 to 1.4, r_s 0.1 to 10 kpc, cones of 0.05 to 8 deg at "
        f"30 and 80 kpc, truncated at 50 kpc) differ from direct adaptive quadrature of the cone by at most "
        f"{max(worst):.1e} (wanted: {LIMIT:g})."
    )
    yield ""


def factors_against_quadrature() -> list[float]:
    """Worst relative error of J and D of each of some haloes, against the definition."""
    from test_products import direct, zhao

    found = []
    for gamma, r_s in itertools.product((0.0, 0.7, 1.0, 1.2, 1.4), (0.1, 1.0, 10.0)):
        shape = (1e8, r_s, 1.5, 4.0, gamma)
        halo, errors = Zhao(*shape), []
        for angle, distance in itertools.product((0.05, 0.5, 8.0), (30.0, 80.0)):
            one = J_GEV2_CM5 * direct(lambda r, s=shape: zhao(r, *s) ** 2, angle, distance, 50.0)
            other = D_GEV_CM2 * direct(lambda r, s=shape: zhao(r, *s), angle, distance, 50.0)
            errors.append(abs(float(j_factor(halo, angle, distance, 50.0)) / one - 1))
            errors.append(abs(float(d_factor(halo, angle, distance, 50.0)) / other - 1))
        found.append(max(errors))
    return found


def table(values: dict[str, float], mark: float) -> Iterator[str]:
    """Rows halo x tracer, columns anisotropy; values above `mark` in bold."""
    columns = list(dict.fromkeys(key.split("|")[2] for key in values))
    yield "| halo | tracer | " + " | ".join(columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for halo, tracer in itertools.product(HALOS, TRACERS):
        cells = [values[f"{halo}|{tracer}|{a}"] for a in columns]
        texts = [f"**{c:.1e}**" if c > mark else f"{c:.1e}" for c in cells]
        yield f"| {halo} | {tracer} | " + " | ".join(texts) + " |"


def write(results: dict[str, Any], grid: Grid, command: str, path: Path) -> bool:
    """The page; whether every number is within its limit."""
    by_differences = {k: row["finite_differences"] for k, row in results["gradients"].items()}
    forward = max(row["forward"] for row in results["gradients"].values())
    today = datetime.date.today().isoformat()
    lines = [
        "# Accuracy of sigma_los",
        "",
        f"`{command}`, {today}, commit {commit()}, jax {jax.__version__}.",
        "",
        "Worst relative error of sigma_los against adaptive quadrature with the integration order "
        f"exchanged (`tests/independent.py`), over {len(grid.halos)} halos x {len(grid.tracers)} "
        f"tracers x {len(grid.anisotropies)} anisotropies x {len(grid.radii)} radii, R/r* from "
        f"{grid.radii[0] / SCALE:g} to {grid.radii[-1] / SCALE:g}; Baes-van Hese up to eta = 8. Bold: "
        f"above {LIMIT:g}. Radii where Sigma is below {FAINTEST:g} of its central value are left out.",
        "",
        "## Against known values",
        "",
        *known_values(),
        "## The function `sigma_los`",
        "",
        *errors_section(results["errors"]["fine"]),
        f"## The grid of the models (step {STEP:g} in ln r instead of {FINE_STEP:g})",
        "",
        "For smooth profiles. The models shipped have no kink (coreNFWtides has one at r_t) and eta "
        f"<= {SHARPEST:g} in Baes-van Hese; a model of your own that has passes `step=FINE_STEP` to "
        "`dwarf.prepare`.",
        "",
        *errors_section(results["errors"]["default"]),
    ]
    lines += [
        "## Gradients",
        "",
        "Largest difference between reverse mode and sixth-order finite differences of "
        "ln sigma_los^2, in every parameter (in units of its own size), first example of each "
        f"combination. Reverse and forward mode differ by at most {forward:.0e}. coreNFWtides has a kink at "
        "r_t, across which differences are good to 1e-5 only.",
        "",
        *table(by_differences, 1e-6),
        "",
        "## galpy",
        "",
        "Largest difference from `galpy.df.jeans.sigmalos` at R/r* = "
        f"{', '.join(f'{RADII[i] / SCALE:.2g}' for i in GALPY_AT)}, first example of each combination, "
        "radii left out where galpy's own quadrature fails (nan: at all of them). Further out its absolute "
        "tolerance is as large as what it integrates.",
        "",
        *table(results["galpy"], LIMIT),
        "",
    ]
    lines += [
        "## The Jeans equation itself",
        "",
        "What is left of it, relative to its force term, when sigma_r(r) is put in and differentiated "
        "automatically; the worst of three radii, first example of each combination. The fixed nodes of "
        "`sigma_r` see the kink of coreNFWtides; those of `sigma_los` are finer.",
        "",
        *table(results["jeans"], LIMIT),
        "",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    smooth = [
        row["above"]
        for key, row in results["errors"]["default"].items()
        if not set(key.split("|")) & set(SHARP)
    ]
    sharp = [row["above"] for row in results["errors"]["fine"].values()]
    slopes = [v for k, v in by_differences.items() if not k.startswith("corenfwtides")]
    return not any(smooth + sharp) and max(slopes) <= 1e-6


def errors_section(rows: dict[str, Any]) -> Iterator[str]:
    """How many are within the limit, the table of the worst, and where the limit is missed."""
    errors = {key: row["error"] for key, row in rows.items()}
    above = sum(row["above"] for row in rows.values())
    count = sum(row["count"] for row in rows.values())
    yield f"{count - above:,} of {count:,} within {LIMIT:g}, the worst {max(errors.values()):.1e}."
    yield ""
    yield from table(errors, LIMIT)
    yield ""
    if above:
        yield from ("Where the limit is missed, the worst of each combination:", "")
        for key, row in rows.items():
            if row["error"] > LIMIT:
                yield (
                    f"- {key.replace('|', ', ')}: {row['error']:.1e} at R = {row['R']:.3g} kpc "
                    f"({row['above']} of {row['count']} above): {row['fields']}"
                )
        yield ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPOSITORY / "docs/results/accuracy.md")
    parser.add_argument("--cache", type=Path, default=REPOSITORY / "build/check-accuracy")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    grid = Grid()
    results = measure(grid, args.cache)
    good = write(results, grid, "make check-accuracy", args.out)
    print(f"{'within' if good else 'NOT everywhere within'} the limits: see {args.out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
