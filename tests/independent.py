"""sigma_los a second way: formulas in numpy and scipy, the integrals in the other order.

Exchanging the two integrals of the Jeans equation and its projection gives

    Sigma sigma_los^2 (R) = 2 G int_R^inf nu(s) M(s) g(s)/s^2 K(R, s) ds,
    K(R, s) = int_R^s (1 - beta R^2/r^2) r / (g(r) sqrt(r^2 - R^2)) dr,

both done by adaptive Gauss-Kronrod quadrature after s = R cosh u, r = R cosh t, which removes the
singular end point. Nothing here uses the package except its value of G; an entry of a registry that
has no formula here (a new one) falls back on the package's density and on quadrature.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import integrate, special

from bayesdust.anisotropy import ANISOTROPIES
from bayesdust.potentials.halos import HALOS
from bayesdust.tracers import TRACERS
from bayesdust.units import G

Function = Callable[[Any], Any]
Spec = tuple[str, dict[str, Any]]  # name in a registry, fields

OUTERMOST = 30.0  # u at which the integral over s ends: nothing is left at R e^30


def _quad(f: Callable[[float], float], a: float, b: float, rtol: float = 1e-11, **kw: Any) -> float:
    return integrate.quad(f, a, b, epsabs=0.0, epsrel=rtol, limit=400, **kw)[0]


def slope(f: Function, h: float) -> Any:
    """f'(0) by fourth-order central differences."""
    return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)


# --- halos: rho(r) [Msun/kpc3] and M(<r) [Msun] -------------------------------------------------


def _zhao(rho_s, r_s, alpha, beta, gamma):
    a, b = (3 - gamma) / alpha, (beta - 3) / alpha

    def density(r):
        x = r / r_s
        return rho_s * x**-gamma * (1 + x**alpha) ** ((gamma - beta) / alpha)

    def mass(r):
        y = 1 / (1 + (r / r_s) ** -alpha)
        # B(y; a, b) by DLMF 8.17.7; near y = 1 with b > 0 through its complement
        if b > 0.2:
            q = 1 / (1 + (r / r_s) ** alpha)
            near = special.betaincc(b, a, q) * special.beta(a, b)
            value = np.where(y > 0.5, near, y**a / a * special.hyp2f1(a, 1 - b, a + 1, y))
        else:
            value = y**a / a * special.hyp2f1(a, 1 - b, a + 1, np.minimum(y, 1 - 1e-13))
        return 4 * np.pi * rho_s * r_s**3 / alpha * value

    return density, mass


def _gnfw(rho_s, r_s, gamma):
    density, _ = _zhao(rho_s, r_s, 1.0, 3.0, gamma)
    a = 3 - gamma

    def mass(r):
        x = r / r_s
        y = x / (1 + x)
        inner = y**a / a * special.hyp2f1(a, 1.0, a + 1, np.minimum(y, 0.9))
        # int v^(a-1)/(1-v) dv = -ln(1-y) - int (1 - v^(a-1))/(1-v) dv, the last a digamma series
        q = 1 / (1 + x)
        rest = np.zeros_like(np.asarray(x, dtype=float))
        term = np.ones_like(rest)
        for n in range(1, 60):
            term = term * (n - a) / n * q
            rest = rest + term / n
        outer = np.log1p(x) - special.digamma(a) - np.euler_gamma - rest
        return 4 * np.pi * rho_s * r_s**3 * np.where(y > 0.7, outer, inner)

    return density, mass


def _nfw(rho_s, r_s):
    def mass(r):
        x = r / r_s
        return 4 * np.pi * rho_s * r_s**3 * (np.log1p(x) - x / (1 + x))

    return lambda r: rho_s / (r / r_s * (1 + r / r_s) ** 2), mass


def _burkert(rho_s, r_s):
    def mass(r):
        x = r / r_s
        closed = (np.log1p(x**2) + 2 * np.log1p(x) - 2 * np.arctan(x)) / 4
        y = np.minimum(x, 0.1)  # where that cancels, x^2 (1 - x)/(1 - x^4) term by term
        series = sum(y**k / k - y ** (k + 1) / (k + 1) for k in (3, 7, 11, 15))
        return 4 * np.pi * rho_s * r_s**3 * np.where(x < 0.1, series, closed)

    return lambda r: rho_s / ((1 + r / r_s) * (1 + (r / r_s) ** 2)), mass


def _einasto(rho_s, r_s, alpha):
    def mass(r):
        c = rho_s * math.exp(2 / alpha) * r_s**3 / alpha * (alpha / 2) ** (3 / alpha)
        s = 2 / alpha * (r / r_s) ** alpha
        return 4 * np.pi * c * special.gamma(3 / alpha) * special.gammainc(3 / alpha, s)

    return lambda r: rho_s * np.exp(-2 / alpha * ((r / r_s) ** alpha - 1)), mass


def _corenfwtides(rho_s, r_s, r_c, n, r_t, delta):
    nfw_density, nfw_mass = _nfw(rho_s, r_s)

    def cored_mass(r):
        return np.tanh(r / r_c) ** n * nfw_mass(r)

    def cored_density(r):
        f = np.tanh(r / r_c)
        slope = n * f ** (n - 1) * (1 - f**2) / r_c
        return f**n * nfw_density(r) + slope * nfw_mass(r) / (4 * np.pi * r**2)

    def density(r):
        outside = cored_density(r_t) * np.maximum(r / r_t, 1.0) ** -delta
        return np.where(r < r_t, cored_density(np.minimum(r, r_t)), outside)

    def mass(r):
        stretch = np.log(np.maximum(r / r_t, 1.0))
        k = 3 - delta
        shell = np.expm1(k * stretch) / k if k else stretch
        return cored_mass(np.minimum(r, r_t)) + 4 * np.pi * cored_density(r_t) * r_t**3 * shell

    return density, mass


_HALOS: dict[str, Callable[..., tuple[Function, Function]]] = {
    "zhao": _zhao,
    "gnfw": _gnfw,
    "nfw": _nfw,
    "burkert": _burkert,
    "einasto": _einasto,
    "corenfwtides": _corenfwtides,
}


def halo(name: str, fields: dict[str, Any]) -> tuple[Function, Function]:
    """rho(r) and M(<r) of an entry of HALOS as functions of numpy arrays."""
    if name in _HALOS:
        return _HALOS[name](**fields)
    density = HALOS[name](**fields).density

    def mass(r):
        shells = lambda z: float(density(r * math.exp(-z))) * math.exp(-3 * z)  # noqa: E731
        return 4 * math.pi * r**3 * _quad(shells, 0, math.inf)

    return lambda r: np.asarray(density(r)), np.vectorize(mass)


# --- tracers: nu(r) [1/kpc3] and Sigma(R) [1/kpc2] ----------------------------------------------


def _plummer(a):
    def density(r):
        return 3 / (4 * np.pi * a**3) * (1 + (r / a) ** 2) ** -2.5

    return density, lambda R: 1 / (np.pi * a**2) * (1 + (R / a) ** 2) ** -2


def _zhao_tracer(r_s, alpha, beta, gamma):
    density, _ = _zhao(1.0, r_s, alpha, beta, gamma)
    norm = 4 * np.pi * r_s**3 / alpha * special.beta((3 - gamma) / alpha, (beta - 3) / alpha)
    return lambda r: density(r) / norm, None


def _sersic_b(m):
    return special.gammaincinv(2 * m, 0.5)


def _sersic(R_e, m):
    b = _sersic_b(m)
    norm = 2 * np.pi * m * R_e**2 * b ** (-2 * m) * special.gamma(2 * m)

    def surface_density(R):
        return np.exp(-b * (R / R_e) ** (1 / m)) / norm

    def density(r):
        """Abel: int_r^inf X e^-X / (pi m norm R) dR / sqrt(R^2 - r^2), X = b (R/R_e)^(1/m)."""
        x0 = b * (r / R_e) ** (1 / m)

        def slope(w):  # e^-X0 taken out, so that the relative tolerance means something
            x = x0 * math.cosh(w) ** (1 / m)
            return x * math.exp(x0 - x) / math.cosh(w)

        if x0 > 700:
            return 0.0
        end = math.acosh((1 + 60 / x0) ** m) if (1 + 60 / x0) ** m < 1e15 else 35.0
        width = min(end, math.acosh((1 + 1 / x0) ** m)) if x0 > 1e-3 else end
        parts = _quad(slope, 0, width) + (_quad(slope, width, end) if end > width else 0.0)
        return parts * math.exp(-x0) / (np.pi * m * norm * r)

    return np.vectorize(density, otypes=[float]), surface_density


def _exponential(R_d):
    def density(r):
        return special.k0(r / R_d) / (2 * np.pi**2 * R_d**3)

    return density, lambda R: np.exp(-R / R_d) / (2 * np.pi * R_d**2)


def _plummer_sum(a, weights):
    parts = [_plummer(float(scale)) for scale in a]
    shares = [float(w) / float(sum(weights)) for w in weights]

    def density(r):
        return sum(w * part[0](r) for w, part in zip(shares, parts, strict=True))

    def surface_density(R):
        return sum(w * part[1](R) for w, part in zip(shares, parts, strict=True))

    return density, surface_density


_TRACERS: dict[str, Callable[..., tuple[Function, Function | None]]] = {
    "plummer": _plummer,
    "zhao": _zhao_tracer,
    "sersic": _sersic,
    "exponential": _exponential,
    "plummer_sum": _plummer_sum,
}


def tracer(name: str, fields: dict[str, Any]) -> tuple[Function, Function]:
    """nu(r) and Sigma(R) of an entry of TRACERS as functions of numpy arrays."""
    if name in _TRACERS:
        density, surface_density = _TRACERS[name](**fields)
    else:
        package = TRACERS[name](**fields).density
        density, surface_density = (lambda r: np.asarray(package(r))), None
    if surface_density is None:
        surface_density = np.vectorize(lambda R: project(density, R))
    return density, surface_density


def project(density: Function, R: float) -> float:
    """2 int_R^inf nu r dr / sqrt(r^2 - R^2), with r = R cosh w."""
    end = 40.0
    inner = lambda w: float(density(R * math.cosh(w))) * math.cosh(w)  # noqa: E731
    return 2 * R * sum(_quad(inner, a, b) for a, b in ((0, 2), (2, 6), (6, 15), (15, end)))


# --- anisotropies: beta(r) and ln g(r), for one radius -------------------------------------------


def _constant(beta_0):
    return (lambda r: beta_0), (lambda r: 2 * beta_0 * math.log(r))


def _osipkov_merritt(r_a):
    return (lambda r: r**2 / (r**2 + r_a**2)), (lambda r: math.log1p((r / r_a) ** 2))


def _baes_van_hese(beta_0, beta_inf, r_a, eta):
    def beta(r):
        y = (r / r_a) ** eta
        return (beta_0 + beta_inf * y) / (1 + y)

    power = 2 * (beta_inf - beta_0) / eta
    return beta, lambda r: 2 * beta_0 * math.log(r) + power * math.log1p((r / r_a) ** eta)


_ANISOTROPIES: dict[str, Callable[..., tuple[Function, Function]]] = {
    "isotropic": lambda: _constant(0.0),
    "constant": _constant,
    "osipkov_merritt": _osipkov_merritt,
    "baes_van_hese": _baes_van_hese,
}


def anisotropy(name: str, fields: dict[str, Any]) -> tuple[Function, Function]:
    """beta(r) and ln g(r) of an entry of ANISOTROPIES as functions of one radius."""
    if name in _ANISOTROPIES:
        return _ANISOTROPIES[name](**fields)
    package = ANISOTROPIES[name](**fields)
    return (lambda r: float(package.beta(r))), (lambda r: float(package.log_g(r)))


# --- the dispersion -----------------------------------------------------------------------------


#: share of sigma_r^2 that is seen of each velocity component, of beta and y = R^2/r^2
COMPONENTS: dict[str, Callable[[float, float], float]] = {
    "away": lambda beta, y: 1 - beta * y,  # along the line of sight
    "outward": lambda beta, y: (1 - beta) * (1 - y) + y,  # on the sky, from the centre
    "across": lambda beta, y: 1 - beta,
    "unprojected": lambda beta, y: 1.0,  # wrong
}


def kernel(beta: Function, log_g: Function, R: float, u: float, *, component: str = "away"):
    """g(s) K(R, s) / R at s = R cosh u, of one of the `COMPONENTS`."""
    log_g_s = log_g(R * math.cosh(u))

    def integrand(t):
        c = math.cosh(t)
        r = R * c
        seen = COMPONENTS[component](beta(r), 1 / c**2)
        return seen * math.exp(log_g_s - log_g(r)) * c

    return _quad(integrand, 0.0, u, rtol=1e-10)


class Sources:
    """nu(s) and M(s) of many tracers and halos, remembered for the radii already asked for."""

    def __init__(self, halos: Sequence[Spec], tracers: Sequence[Spec], stellar_mass: float = 0.0):
        self._mass = [halo(*spec)[1] for spec in halos]
        self._tracers = [tracer(*spec) for spec in tracers]
        self._known: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self._surface: dict[float, np.ndarray] = {}
        values = [v for _, fields in (*halos, *tracers) for k, v in fields.items() if k in LENGTHS]
        self.scales = sorted({float(v) for value in values for v in np.atleast_1d(value)})

    def at(self, s: float) -> tuple[np.ndarray, np.ndarray]:
        """(tracers,) and (halos,)."""
        if s not in self._known:
            nu = np.array([float(density(s)) for density, _ in self._tracers])
            self._known[s] = nu, np.array([float(mass(s)) for mass in self._mass])
        return self._known[s]

    def surface_density(self, R: float) -> np.ndarray:
        """(tracers,)."""
        if R not in self._surface:
            self._surface[R] = np.array([float(sigma(R)) for _, sigma in self._tracers])
        return self._surface[R]

    def forget(self) -> None:
        self._known.clear()


LENGTHS = {"r_s", "r_c", "r_t", "r_a", "a", "R_e", "R_d"}


def dispersions(
    R: float, sources: Sources, anisotropy_spec: Spec, *, component: str = "away"
) -> np.ndarray:
    """Dispersion (tracers, halos) [km/s] of one of the `COMPONENTS` at one R [kpc]."""
    beta, log_g = anisotropy(*anisotropy_spec)
    own = [v for k, v in anisotropy_spec[1].items() if k in LENGTHS]

    def integrand(u: float) -> np.ndarray:
        s = R * math.cosh(u)
        nu, mass = sources.at(s)
        if not nu.any():
            return np.zeros((len(nu), len(mass)))
        weight = 2 * G * R**2 * math.sinh(u) / s**2
        return weight * kernel(beta, log_g, R, u, component=component) * np.outer(nu, mass)

    # every element of the vector is brought to about one, so that each meets the relative tolerance
    coarse = sum(0.25 * integrand(u) for u in np.arange(0.125, 15, 0.25))
    size = np.where(coarse > 0, coarse, 1.0)
    marks = [math.acosh(x / R) for x in (*sources.scales, *own) if x > R]
    points = sorted({*marks, 0.5, 1.5, 3.0, 6.0, 12.0})
    value, _ = integrate.quad_vec(
        lambda u: integrand(u) / size,
        0.0,
        OUTERMOST,
        epsabs=0.0,
        epsrel=1e-9,
        norm="max",
        points=[p for p in points if 0 < p < OUTERMOST],
        limit=2000,
    )
    return np.sqrt(value * size / sources.surface_density(R)[:, None])


def sigma_los(R: float, halo_spec: Spec, tracer_spec: Spec, anisotropy_spec: Spec, **kw) -> float:
    """sigma_los [km/s] of one halo, tracer and anisotropy at one R [kpc]; `component` as in `dispersions`."""
    return float(dispersions(R, Sources([halo_spec], [tracer_spec]), anisotropy_spec, **kw)[0, 0])
